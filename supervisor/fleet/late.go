// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"time"
)

// lateAfter is how late a turn must be for it to say something about the world:
// the unit was frozen, the master stopped, or the machine starved.
const lateAfter = 500 * time.Millisecond

// forgive moves the deadlines of processes that had no chance to meet them. If
// the master did not run, neither did they, or their words were not read: what
// was left of each deadline when the master last ran is left of it now. Delays
// and the deadlines of the fleet's own plan stay: time has passed.
func (f *Fleet) forgive(now Instant) {
	if f.promised == Never || now.Sub(f.promised) < lateAfter {
		return
	}
	gap := now.Sub(f.decided)
	patience := []*Instant{&f.startDeadline, &f.floor.deadline, &f.pool.deadline}
	for i := range f.slots {
		patience = append(patience, &f.slots[i].deadline, &f.slots[i].beatDue)
	}
	waiting := false
	for _, deadline := range patience {
		waiting = waiting || *deadline != Never
		*deadline = deadline.Add(gap)
	}
	if waiting {
		f.reportKind(KindOverslept, Notice, fmt.Sprintf("the master did not run for %s (frozen, stopped, or short of CPU); "+
			"nothing is held against the processes of the fleet", Span(now.Sub(f.promised))))
	}
}

// promise remembers when the next turn is due.
func (f *Fleet) promise(now Instant) {
	f.decided, f.promised = now, f.Deadline()
}
