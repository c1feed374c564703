// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"slices"
	"time"
)

// Snapshot is a fleet at one time, for those who look at it.
type Snapshot struct {
	State      string // "activating", "active" or "deactivating"
	Status     string // as in Status
	Generation int    // of the floor; 0 if no floor was ever needed
	Floor      Proc   // 0: there is none, or none that is loaded
	Spares     int    // processes that wait to become a slot
	Spawns     Histogram
	Slots      []SlotSnapshot
}

// SlotSnapshot is a slot at one time. Instants are of the clock that Decide is told.
type SlotSnapshot struct {
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

func (f *Fleet) snapshot(now Instant) Snapshot {
	v := Snapshot{
		State: phaseNames[f.phase], Status: f.describe(now),
		Generation: f.floor.number, Spares: len(f.floor.pool.spares), Spawns: f.spawns, Slots: []SlotSnapshot{},
	}
	if f.floor.state == floorUp {
		v.Floor = f.floor.proc
	}
	for _, s := range f.slots {
		if s.role != current {
			continue
		}
		v.Slots = append(v.Slots, SlotSnapshot{
			Name: s.name, Proc: s.proc, Worker: s.config.Name,
			State: s.state, Why: s.why, Since: s.since,
			PID: s.pid, Generation: s.generation, Result: s.lastResult,
			Failures: s.failures, Restarts: max(0, s.startCount-1), ByResult: s.byResult(), Frozen: s.frozen, Due: s.due, Text: s.status,
		})
	}
	return v
}

// byResult is nil for a slot that was never restarted.
func (r *record) byResult() (by map[Result]int) {
	for i, n := range r.restarts {
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
