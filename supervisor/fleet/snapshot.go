// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"slices"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// Snapshot is a fleet at one time, for those who look at it.
type Snapshot struct {
	State      string         // "activating", "active" or "deactivating"
	Status     string         // as in Status
	Generation int            // of the floor that is, or was, loaded; 0 if none was
	FloorState string         // "loading", "loaded", "lost" (until it is loaded again), "ending" or "ended"; "": none is needed
	Floor      Proc           // 0: there is none, or none that is loaded
	FloorSince policy.Instant // when it began to be loaded, if it is
	Spares     int            // processes that wait to become a slot
	Floors     []Unnamed      // that are loaded
	Waiting    []Unnamed      // the spares
	Spawns     Histogram
	Losses     int // of floors
	Failures   int // of loads of floors
	Slots      []SlotSnapshot
	Workers    []WorkerSnapshot // of the fleet as it is
	Revision   Revision
	Change     ChangeSnapshot
	Unserved   []string // sockets that no slot is left to serve
}

// Unnamed is a process that is no slot's.
type Unnamed struct {
	Proc       Proc
	Generation int // of the floor that it is, or was forked from
}

// ChangeSnapshot is the change that is under way.
type ChangeSnapshot struct {
	ID    ChangeID // 0: there is none
	Kind  ChangeKind
	State string // "loading", "proving", "rolling" or "returning"
	Text  string // one line: how far it is, or why it goes back
}

// WorkerSnapshot counts the slots of a worker.
type WorkerSnapshot struct {
	Name                                             string
	Slots, Ready, Listening, Waiting, Exited, Failed int // Ready counts listening ones, and no frozen ones
	Needs                                            int // ready slots without which the fleet is not ready
}

// SlotSnapshot is a slot at one time. Instants are of the clock that Decide is told.
type SlotSnapshot struct {
	Name, Worker string
	Proc         Proc // 0: there is none
	State        State
	Why          string
	Since        policy.Instant               // of State
	PID          int                          // 0: there is no process
	Generation   int                          // of the floor that the process was forked from
	Result       policy.Result                // of the last process that has ended; "" before that
	Failures     int                          // in a row
	Restarts     int                          // in all
	ByResult     map[policy.Result]int        // restarts, by the result of the process before
	Recycles     map[policy.RecycleReason]int // that have been done
	RecycleAt    policy.Instant               // when it is to be recycled for its age; Never
	Frozen       bool
	Due          policy.Instant // the next start; Never if there is none, or none that is known
	Text         string         // STATUS= of its process
	Tasks        []TaskSnapshot // in the order of the file
	LoopLag      time.Duration  // how late the loop of its tasks was the last time
	Scaled       bool           // an operator has said how many slots its worker has
	Successor    Beside         // that is to take its place
	Predecessor  Beside         // whose place it has taken, and that ends
}

// TaskSnapshot is a task of a slot at one time, as its process has told.
type TaskSnapshot struct {
	Name     string
	State    State
	Since    policy.Instant // of State
	Why      string
	Result   policy.Result  // of its last end; "" before that
	Failures int            // in a row
	Restarts int            // in all
	Due      policy.Instant // the next start, Never if there is none
	Text     string         // what it says of itself
}

// Beside is another process of a slot, the zero Beside if there is none.
type Beside struct {
	PID        int // 0: it has none yet
	State      State
	Generation int
}

func (f *Fleet) snapshot(now policy.Instant) Snapshot {
	v := Snapshot{
		State: phaseNames[f.phase], Status: f.describe(now),
		Generation: f.floor.newest, FloorState: f.floor.inWords(), Losses: f.floorLosses, Failures: f.loadFailures,
		Spares: len(f.floor.pool.spares), Spawns: f.spawns, Slots: []SlotSnapshot{}, Revision: f.revision, Unserved: f.unserved,
	}
	if c := f.change; c != nil {
		v.Change = ChangeSnapshot{c.id, c.Kind, changePhases[c.phase], c.inStatus()}
	}
	if f.floor.state == floorUp {
		v.Floor, v.FloorSince = f.floor.proc, f.floor.since
	}
	for _, l := range f.floors {
		if l.state == floorUp {
			v.Floors = append(v.Floors, Unnamed{l.proc, l.number})
		}
		for _, s := range l.pool.spares {
			v.Waiting = append(v.Waiting, Unnamed{s.proc, s.generation})
		}
	}
	for _, s := range f.slots {
		if s.role != current {
			continue
		}
		var tasks []TaskSnapshot
		for _, t := range s.tasks {
			tasks = append(tasks, TaskSnapshot{t.name, t.state, t.since, t.reason, t.result, t.failures, t.restarts, t.due, t.status})
		}
		v.Slots = append(v.Slots, SlotSnapshot{
			Tasks: tasks, LoopLag: s.lag,
			Name: s.name, Proc: s.proc, Worker: s.config.Name,
			State: s.state, Why: s.why, Since: s.since,
			PID: s.pid, Generation: s.generation, Result: s.lastResult,
			Failures: s.failures, Restarts: max(0, s.startCount-1), ByResult: s.byResult(), Frozen: s.frozen, Due: s.due, Text: s.says(),
			Recycles: s.byReason(), RecycleAt: s.recycleAt, Scaled: s.worker.config.Scaled, Successor: s.next.beside(), Predecessor: s.worker.ending(s.index).beside(),
		})
	}
	for i := range f.cfg.Workers { // one that a change adds is none of the fleet before the end
		v.Workers = append(v.Workers, f.workerNamed(f.cfg.Workers[i].Name).snapshot())
	}
	return v
}

func (w *worker) snapshot() WorkerSnapshot {
	v := WorkerSnapshot{Name: w.config.Name, Slots: len(w.slots)}
	for _, s := range w.slots {
		switch s.state {
		case StateReady, StateListening:
			if !s.frozen { // it does nothing
				v.Ready++
			}
			if s.state == StateListening {
				v.Listening++
			}
		case StateWaiting:
			v.Waiting++
		case StateExited:
			v.Exited++
		case StateFailed:
			v.Failed++
		case StateStarting, StateStopping, StateKilling:
		}
	}
	// Who wants no slot of a worker in the file does not wait for one; an operator who has
	// scaled it to 0 does not have it serve.
	if w.config.Needed && (w.config.Count > 0 || w.config.Scaled) {
		v.Needs = 1
	}
	return v
}

// says is what the slot's process says of itself: "" when it has ended. What the dead have
// said is in the reason, if they have failed.
func (s *slot) says() string {
	if s.proc == 0 || s.sweeping {
		return ""
	}
	return s.status
}

func (s *slot) beside() Beside {
	if s == nil {
		return Beside{}
	}
	return Beside{s.pid, s.state, s.generation}
}

// ending is the slot of that number that has given up its place, and ends; nil if there is
// none.
func (w *worker) ending(index int) *slot {
	i := slices.IndexFunc(w.leaving, func(s *slot) bool { return s.index == index })
	if i < 0 {
		return nil
	}
	return w.leaving[i]
}

// byResult is nil for a slot that was never restarted.
func (r *record) byResult() (by map[policy.Result]int) {
	for i, n := range r.restarts {
		if n == 0 {
			continue
		}
		if by == nil {
			by = map[policy.Result]int{}
		}
		by[policy.Results[i]] = n
	}
	return by
}

var changePhases = [...]string{"loading", "proving", "rolling", "returning"}

// phaseNames are systemd's words for the ActiveState of a unit.
var phaseNames = [...]string{"activating", "active", "deactivating", "deactivating", "inactive"}

// Histogram counts durations. Counts has one more than SpawnBounds, each is of
// those that are at most its bound and above the one before.
type Histogram struct {
	Counts [len(SpawnBounds) + 1]uint64
	Sum    time.Duration
}

// SpawnBounds are the bounds of how long slots take from when their process is
// asked for until it runs.
var SpawnBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

func (h *Histogram) add(d time.Duration) {
	i, _ := slices.BinarySearch(SpawnBounds[:], d)
	h.Counts[i]++
	h.Sum += d
}

// live reports whether a slot in this state has a process, or waits for one.
func (s State) live() bool {
	return s == StateStarting || s == StateReady || s == StateStopping || s == StateKilling
}
