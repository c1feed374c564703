// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

// View is a fleet at one time, for those who look at it.
type View struct {
	State      string // "activating", "active" or "deactivating"
	Status     string // as in Status
	Generation int    // of the floor; 0 if no floor was ever needed
	Slots      []SlotView
}

// SlotView is a slot at one time. Instants are of the clock that Decide is told.
type SlotView struct {
	Name, Worker string
	State        State
	Why          string
	Since        Instant // of State
	PID          int     // 0: there is no process
	Generation   int     // of the floor that the process was forked from
	Result       Result  // of the last process that has ended; "" before that
	Failures     int     // in a row
	Restarts     int     // in all
	Due          Instant // the next start; Never if there is none, or none that is known
	Text         string  // STATUS= of its process
}

func (f *Fleet) view(now Instant) View {
	v := View{
		State: phaseNames[f.phase], Status: f.describeFleet(now),
		Generation: f.floor.generation, Slots: make([]SlotView, len(f.slots)),
	}
	for i := range f.slots {
		s := &f.slots[i]
		v.Slots[i] = SlotView{
			Name: s.name, Worker: f.cfg.Workers[s.worker].Name,
			State: s.state, Why: s.why, Since: s.since,
			PID: s.pid, Generation: s.generation, Result: s.lastResult,
			Failures: s.failures, Restarts: max(0, s.begun-1), Due: s.due, Text: s.status,
		}
	}
	return v
}

// phaseNames are systemd's words for the ActiveState of a unit.
var phaseNames = [...]string{"activating", "active", "deactivating", "inactive"}
