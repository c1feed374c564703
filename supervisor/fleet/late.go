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
		s := &f.slots[i]
		patience = append(patience, &s.deadline)
		if s.forgiven < mostForgiven {
			s.forgiven++
			patience = append(patience, &s.beatDue)
		}
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

// mostForgiven is how often a process is forgiven that has sent no keep-alive
// since: a machine that is always short of CPU must not hide one that is stuck.
const mostForgiven = 3

// hearFirst lets every event of a turn come before a watchdog's end: a process
// that was late only as long as the master was may have said that it lives. The
// Tick that ends the turn judges.
func (f *Fleet) hearFirst(now Instant) {
	for i := range f.slots {
		if s := &f.slots[i]; s.beatDue <= now && !s.frozen {
			s.beatDue = now + 1
		}
	}
}

// promise remembers when the next turn is due.
func (f *Fleet) promise(now Instant) {
	f.decided, f.promised = now, f.Deadline()
}
