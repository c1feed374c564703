// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

// View is a fleet at one time, for those who look at it.
type View struct {
	State      string // "activating", "active" or "deactivating"
	Status     string // as in Status
	Generation int    // of the floor; 0 if no floor was ever needed
	Floor      Proc   // 0: there is none, or none that is loaded
	Spares     int    // processes that wait to become a slot
	Spawns     Histogram
	Slots      []SlotView
}

// SlotView is a slot at one time. Instants are of the clock that Decide is told.
type SlotView struct {
	Name, Worker string
	Proc         Proc // 0: there is none
	State        State
	Why          string
	Since        Instant        // of State
	PID          int            // 0: there is no process
	Generation   int            // of the floor that the process was forked from
	Result       Result         // of the last process that has ended; "" before that
	Failures     int            // in a row
	Restarts     int            // in all
	ByResult     map[Result]int // restarts, by the result of the process before
	Frozen       bool
	Due          Instant // the next start; Never if there is none, or none that is known
	Text         string  // STATUS= of its process
}

func (f *Fleet) view(now Instant) View {
	v := View{
		State: phaseNames[f.phase], Status: f.describeFleet(now),
		Generation: f.floor.generation, Spares: len(f.pool.spares), Spawns: f.spawns, Slots: make([]SlotView, len(f.slots)),
	}
	if f.floor.state == floorUp {
		v.Floor = f.floor.proc
	}
	for i := range f.slots {
		s := &f.slots[i]
		v.Slots[i] = SlotView{
			Name: s.name, Proc: s.proc, Worker: f.cfg.Workers[s.worker].Name,
			State: s.state, Why: s.why, Since: s.since,
			PID: s.pid, Generation: s.generation, Result: s.lastResult,
			Failures: s.failures, Restarts: max(0, s.begun-1), ByResult: s.byResult(), Frozen: s.frozen, Due: s.due, Text: s.status,
		}
	}
	return v
}

// byResult is nil for a slot that was never restarted.
func (s *slot) byResult() (by map[Result]int) {
	for i, n := range s.restarts {
		if n == 0 {
			continue
		}
		if by == nil {
			by = map[Result]int{}
		}
		by[allResults[i]] = n
	}
	return by
}

// phaseNames are systemd's words for the ActiveState of a unit.
var phaseNames = [...]string{"activating", "active", "deactivating", "inactive"}
