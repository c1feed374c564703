// SPDX-License-Identifier: AGPL-3.0-or-later

package metrics

import (
	"maps"
	"slices"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/policy"
)

// family is a metric with all of its samples.
type family struct {
	name  string // without the suffix of its kind
	kind  kind
	unit  string // the name ends in it; "" if it has none
	help  string // one sentence
	write func(p *printer, s *Sample)
}

// families is everything that is exposed, in this order. Labels have the values
// that the fleet file, the states and the results give them, and no others.
var families = []family{
	{"prefork_fleet", info, "", "The fleet, by its name.", func(p *printer, s *Sample) {
		p.sample("", 1, "fleet", s.Fleet.Name)
	}},
	{"prefork_fleet_ready", gauge, "", "1 if the fleet is active and has a ready slot of each worker that needs one, as /readyz says; else 0.", func(p *printer, s *Sample) {
		ready, _ := control.Readiness(s.Fleet, control.Wants(s.Fleet, 1))
		p.sample("", truth(ready))
	}},
	{"prefork_slots", gauge, "", "Slots of a worker, by state.", slotsByState},
	{"prefork_restarts", counter, "", "Restarts of the slots of a worker, by the result of the process before.", restartsByResult},
	{"prefork_recycles", counter, "", "Processes of the slots of a worker that were replaced though nothing was wrong with them, by the reason.", recyclesByReason},
	{"prefork_spawn_duration_seconds", histogram, "seconds", "Time from when the process of a slot was asked for until it ran.", func(p *printer, s *Sample) {
		p.histogram(&s.Spawns)
	}},
	{"prefork_slot_restarts", counter, "", "Restarts of a slot.", eachSlot(func(s *control.SlotStatus) (float64, bool) {
		return float64(s.NRestarts), true
	})},
	{"prefork_slot_recycles", counter, "", "Processes of a slot that were replaced though nothing was wrong with them.", eachSlot(func(s *control.SlotStatus) (float64, bool) {
		return float64(s.NRecycles), true
	})},
	{"prefork_slot_failures", gauge, "", "Failures of a slot in a row, which its backoff grows with; 0 once it has been ready for restart_reset_sec.", eachSlot(func(s *control.SlotStatus) (float64, bool) {
		return float64(s.Failures), true
	})},
	{"prefork_slot_next_start_timestamp_seconds", gauge, "seconds", "Unix time when the backoff of a slot is over; 0 if it does not wait.", eachSlot(func(s *control.SlotStatus) (float64, bool) {
		return float64(s.NextStartTimestamp) / 1e6, true
	})},
	{"prefork_slot_memory_private_bytes", gauge, "bytes", "Memory of the main process of a slot that nobody shares.", eachSlot(func(s *control.SlotStatus) (float64, bool) {
		return float64(s.MemoryPrivate), s.MemoryPrivate+s.MemoryShared > 0
	})},
	{"prefork_slot_memory_shared_bytes", gauge, "bytes", "Memory of the main process of a slot that others, such as the floor, have mapped too.", eachSlot(func(s *control.SlotStatus) (float64, bool) {
		return float64(s.MemoryShared), s.MemoryPrivate+s.MemoryShared > 0
	})},
	{"prefork_slot_cpu_seconds", counter, "seconds", "Processor time of the present process of a slot, and of what it has started.", eachSlot(func(s *control.SlotStatus) (float64, bool) {
		return float64(s.CPUUsageNSec) / 1e9, s.CPUUsageNSec > 0
	})},
	{"prefork_tasks", gauge, "", "Tasks of a slot, by state.", func(p *printer, s *Sample) {
		eachTasks(s, func(slot *control.SlotStatus, tasks []control.TaskStatus) {
			n := map[string]int{}
			for i := range tasks {
				n[tasks[i].State]++
			}
			for _, state := range taskStates {
				p.sample("", float64(n[state.String()]), "worker", slot.Worker, "slot", slot.Name, "state", state.String())
			}
		})
	}},
	{"prefork_task_restarts", counter, "", "Restarts of a task, in all processes of its slot.", eachTask(func(t *control.TaskStatus) float64 {
		return float64(t.NRestarts)
	})},
	{"prefork_task_failures", gauge, "", "Failures of a task in a row, which its backoff grows with.", eachTask(func(t *control.TaskStatus) float64 {
		return float64(t.Failures)
	})},
	{"prefork_loop_lag_seconds", gauge, "seconds", "How late the loop of a slot's tasks was when it last sent WATCHDOG=1.", func(p *printer, s *Sample) {
		eachTasks(s, func(slot *control.SlotStatus, _ []control.TaskStatus) {
			p.sample("", float64(slot.LoopLagUSec)/1e6, "worker", slot.Worker, "slot", slot.Name)
		})
	}},
	{"prefork_socket_accept_queue", gauge, "", "Connections to a socket that no worker has accepted.", eachSocket(false, func(s *control.SocketStatus) int64 {
		return s.Queue
	})},
	{"prefork_socket_accept_queue_limit", gauge, "", "Connections that may wait at a socket to be accepted; one more is let in.", eachSocket(false, func(s *control.SocketStatus) int64 {
		return s.QueueLimit
	})},
	{"prefork_socket_accept_drops", counter, "", "Attempts to connect to a socket that the kernel turned away, most often since its queue was full.", eachSocket(false, func(s *control.SocketStatus) int64 {
		return s.Drops
	})},
	{"prefork_socket_receive_queue_bytes", gauge, "bytes", "Datagrams at a socket that no worker has read, with what the kernel needs for them.", eachSocket(true, func(s *control.SocketStatus) int64 {
		return s.Queue
	})},
	{"prefork_socket_receive_queue_limit_bytes", gauge, "bytes", "How much of that there may be (SO_RCVBUF).", eachSocket(true, func(s *control.SocketStatus) int64 {
		return s.QueueLimit
	})},
	{"prefork_socket_receive_drops", counter, "", "Datagrams to a socket that the kernel threw away, most often since its queue was full.", eachSocket(true, func(s *control.SocketStatus) int64 {
		return s.Drops
	})},
	{"prefork_floor_loaded", gauge, "", "1 if there is a floor to fork workers from; 0 while it is loaded, or loaded again.", func(p *printer, s *Sample) {
		if s.Fleet.FloorState != "" { // else none is needed
			p.sample("", truth(s.Fleet.FloorState == "loaded"))
		}
	}},
	{"prefork_floor_losses", counter, "", "Floors that have ended though nobody had asked for it.", func(p *printer, s *Sample) {
		p.sample("", float64(s.Fleet.FloorLosses))
	}},
	{"prefork_floor_load_failures", counter, "", "Floors that could not be loaded.", func(p *printer, s *Sample) {
		p.sample("", float64(s.Fleet.FloorLoadFailures))
	}},
	{"prefork_floor_generation", gauge, "", "Generation of the floor that is, or was, loaded; 0 if none was.", func(p *printer, s *Sample) {
		p.sample("", float64(s.Fleet.Generation))
	}},
	{"prefork_floor_memory_bytes", gauge, "bytes", "Resident memory of the floor.", func(p *printer, s *Sample) {
		if s.Fleet.FloorMemory > 0 { // else there is none, or it is not known
			p.sample("", float64(s.Fleet.FloorMemory))
		}
	}},
	{"prefork_spares", gauge, "", "Processes that are forked and wait to become a slot.", func(p *printer, s *Sample) {
		p.sample("", float64(s.Fleet.Spares))
	}},
	{"prefork_revision", gauge, "", "Revision of the fleet: 1 is the one that was started; it grows with each change that is done.", func(p *printer, s *Sample) {
		p.sample("", float64(s.Fleet.Revision))
	}},
	{"prefork_change_under_way", gauge, "", "1 while a reload, a restart, a scale or a recycling changes the fleet; else 0.", func(p *printer, s *Sample) {
		p.sample("", truth(s.Fleet.Change != 0))
	}},
	{"prefork_last_change_failed", gauge, "", "1 if the last change that somebody wanted was not made, and the fleet is as it was before; else 0.", func(p *printer, s *Sample) {
		p.sample("", truth(s.Fleet.LastChangeResult != "" && s.Fleet.LastChangeResult != control.ChangeDone))
	}},
	{"prefork_notifications_dropped", counter, "", "Datagrams to the notify sockets of slots that were not heard: of strangers, malformed, or too many.", func(p *printer, s *Sample) {
		p.sample("", float64(s.Fleet.NotificationsDropped))
	}},
	{"prefork_log_lines_lost", counter, "", "Lines of the log, and of slots where the master passes them on, that nobody has taken in time.", func(p *printer, s *Sample) {
		p.sample("", float64(s.Fleet.LinesLost))
	}},
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// eachSlot writes one value of each slot of which it is known.
func eachSlot(value func(s *control.SlotStatus) (float64, bool)) func(*printer, *Sample) {
	return func(p *printer, s *Sample) {
		for i := range s.Fleet.Slots {
			slot := &s.Fleet.Slots[i]
			if v, known := value(slot); known {
				p.sample("", v, "worker", slot.Worker, "slot", slot.Name)
			}
		}
	}
}

// eachSocket writes one value of each socket, to which connections or datagrams come, as
// far as it is known.
func eachSocket(datagrams bool, value func(s *control.SocketStatus) int64) func(*printer, *Sample) {
	return func(p *printer, s *Sample) {
		for i := range s.Fleet.Sockets {
			socket := &s.Fleet.Sockets[i]
			if v := value(socket); v >= 0 && datagrams == (socket.Type == "datagram") {
				p.sample("", float64(v), "socket", socket.Name, "address", socket.Address)
			}
		}
	}
}

// taskStates are those that a task can have.
var taskStates = []fleet.State{
	fleet.StateWaiting, fleet.StateStarting, fleet.StateReady, fleet.StateStopping, fleet.StateExited, fleet.StateFailed,
}

// eachTasks calls f for each slot that has tasks.
func eachTasks(s *Sample, f func(slot *control.SlotStatus, tasks []control.TaskStatus)) {
	for i := range s.Fleet.Slots {
		if slot := &s.Fleet.Slots[i]; len(slot.Tasks) > 0 {
			f(slot, slot.Tasks)
		}
	}
}

// eachTask writes one value of each task.
func eachTask(value func(t *control.TaskStatus) float64) func(*printer, *Sample) {
	return func(p *printer, s *Sample) {
		eachTasks(s, func(slot *control.SlotStatus, tasks []control.TaskStatus) {
			for i := range tasks {
				p.sample("", value(&tasks[i]), "worker", slot.Worker, "slot", slot.Name, "task", tasks[i].Name)
			}
		})
	}
}

// workers calls f for the slots of each worker: they stand together.
func workers(all []control.SlotStatus, f func(worker string, slots []control.SlotStatus)) {
	for len(all) > 0 {
		name := all[0].Worker
		n := slices.IndexFunc(all, func(s control.SlotStatus) bool { return s.Worker != name })
		if n < 0 {
			n = len(all)
		}
		f(name, all[:n])
		all = all[n:]
	}
}

// slotsByState has a line for each state that there is, so that none comes and
// goes.
func slotsByState(p *printer, s *Sample) {
	workers(s.Fleet.Slots, func(worker string, slots []control.SlotStatus) {
		n := map[string]int{}
		for i := range slots {
			n[slots[i].State]++
		}
		for state := fleet.StateWaiting; state <= fleet.StateListening; state++ {
			p.sample("", float64(n[state.String()]), "worker", worker, "state", state.String())
		}
	})
}

// results are those that a restart can have. A counter that is there from the
// start is one whose first step is seen.
var results = []policy.Result{
	policy.Success, policy.ExitCode, policy.Signalled, policy.CoreDump, policy.Watchdog,
	policy.Timeout, policy.Protocol, policy.OOMKill, policy.Resources,
}

func restartsByResult(p *printer, s *Sample) {
	workers(s.Fleet.Slots, func(worker string, slots []control.SlotStatus) {
		n := map[string]uint64{}
		for _, r := range results {
			n[string(r)] = 0
		}
		for i := range slots {
			for result, restarts := range slots[i].Restarts {
				n[result] += restarts
			}
		}
		for _, result := range slices.Sorted(maps.Keys(n)) {
			p.sample("", float64(n[result]), "worker", worker, "result", result)
		}
	})
}

func recyclesByReason(p *printer, s *Sample) {
	workers(s.Fleet.Slots, func(worker string, slots []control.SlotStatus) {
		for _, reason := range policy.RecycleReasons {
			n := uint64(0)
			for i := range slots {
				n += slots[i].Recycles[string(reason)]
			}
			p.sample("", float64(n), "worker", worker, "reason", string(reason))
		}
	})
}
