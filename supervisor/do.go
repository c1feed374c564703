// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/sockets"
)

// do carries out one action.
func (m *master) do(act fleet.Action) []fleet.Event {
	switch act := act.(type) {
	case fleet.LoadFloor:
		return m.launch.LoadFloor(act)
	case fleet.StopFloor:
		m.launch.StopFloor(act.Proc)
	case fleet.Fork:
		return m.launch.Fork(act)
	case fleet.Abandon:
		m.launch.Abandon(act.Proc)
	case fleet.StartShim:
		return m.launch.StartShim(act.Proc, m.slots.Of(act.Slot))
	case fleet.Assign:
		return m.launch.Assign(act.Proc, m.slots.Of(act.Slot), act.Count)
	case fleet.Probe:
		return m.launch.Probe(act.Proc)
	case fleet.Kill:
		m.procs.Kill(act)
	case fleet.TakeStacks:
		m.takeStacks(act.Proc)
	case fleet.Measure:
		m.measure(act.Proc)
	case fleet.Watch:
		return m.watchSockets(act.Worker)
	case fleet.Unwatch:
		m.sockets.Unwatch(act.Worker)
	case fleet.PollSockets:
		return m.pollSockets(act.Worker)
	case fleet.Ready:
		m.manager.Ready()
		m.bridge.Idle()
	case fleet.Reloading:
		m.manager.Reloading()
	case fleet.Draining:
		m.manager.Stopping()
		m.stops = 0 // the next signal is the first that ends anything
	case fleet.Stopping:
		m.manager.Stopping()
		m.sockets.StopLooking()
		m.procs.Stopping()
		m.launch.Stopping()
	case fleet.Freeze:
		return m.procs.Freeze(act)
	case fleet.OrderTask:
		return m.orderTask(act)
	case fleet.Status:
		m.manager.SetStatus(act.Text)
		m.bridge.Changed()
	case fleet.Extend:
		m.manager.Extend(act.By)
	case fleet.Ping:
		if err := m.signals.Beat(); err != nil {
			m.log.Error(fmt.Sprintf("watchdog: %v", err))
		}
	case fleet.Report:
		m.report(act)
		m.remember(act)
		m.bridge.Changed()
	case fleet.Show:
		m.bridge.Show(m.snapshot(act.Snapshot))
	case fleet.Answer:
		m.bridge.Answer(act)
	case fleet.Quit:
	default:
		return m.change(act)
	}
	return nil
}

// change carries out one action of a change of the fleet.
func (m *master) change(act fleet.Action) []fleet.Event {
	switch act := act.(type) {
	case fleet.OpenSlot:
		m.slots.Open(m.revisions.Of(act.Info.Revision), act.Info)
	case fleet.CloseSlot:
		m.slots.Remove(act.Slot)
	case fleet.LimitSlot:
		m.limit(act)
	case fleet.Commit:
		return m.commit(act)
	case fleet.Discard:
		m.revisions.Discard(act.Revision)
	case fleet.Outcome:
		m.bridge.Outcome(act)
	default:
		panic(fmt.Sprintf("supervisor: unknown action %T", act))
	}
	return nil
}

// remember keeps a line about a slot; one about a task is of the slot, too.
func (m *master) remember(r fleet.Report) {
	switch {
	case r.Slot == "" || r.Level >= fleet.Debug:
	case r.Task != "":
		m.bridge.Remember(m.now(), r.Slot, r.Task+": "+r.Text)
		m.bridge.Remember(m.now(), r.Slot+"/"+r.Task, r.Text)
	default:
		m.bridge.Remember(m.now(), r.Slot, r.Text)
	}
}

// orderTask tells a process what to do with a task.
func (m *master) orderTask(act fleet.OrderTask) []fleet.Event {
	ordered := fleet.TaskOrdered{ID: act.ID}
	if err := m.launch.OrderTask(act); err != nil {
		ordered.Why = err.Error()
	}
	return []fleet.Event{ordered}
}

// flush ends a turn: who waits for what it said to be done is told, and what may
// wait is done.
func (m *master) flush() {
	m.procs.Flush()
	m.slots.Flush()
	m.manager.Flush(m.now())
	m.bridge.Flush() // whoever waits for a reload may end the service manager's wait for it
	m.launch.Flush()
}

// pollSockets answers whether a connection waits for a worker.
func (m *master) pollSockets(worker fleet.WorkerID) []fleet.Event {
	if _, at := m.slots.Sockets(worker); sockets.Poll(at) {
		return []fleet.Event{fleet.Demand{Worker: worker}}
	}
	return []fleet.Event{fleet.NoDemand{Worker: worker}}
}

// watchSockets: a worker whose sockets cannot be watched is started at once.
func (m *master) watchSockets(worker fleet.WorkerID) []fleet.Event {
	name, at := m.slots.Sockets(worker)
	if err := m.sockets.Watch(worker, at); err != nil {
		m.log.Error(fmt.Sprintf("%s: watch its sockets: %v; started without a connection", name, err))
		return []fleet.Event{fleet.Demand{Worker: worker}}
	}
	return nil
}
