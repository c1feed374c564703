// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"time"
)

// lateAfter is how late a turn must be for it to say something about the world:
// the unit was frozen, the master stopped, or the machine starved.
const lateAfter = 500 * time.Millisecond

// maxForgiven is how often a process is forgiven that has sent no keep-alive
// since: a machine that is always short of CPU must not hide one that is stuck.
const maxForgiven = 3

// lateness is how a turn is known to be late.
type lateness struct {
	decided  Instant // the now of the last Decide
	promised Instant // its Deadline
}

// forgive moves the deadlines of processes that had no chance to meet them. If
// the master did not run, neither did they, or their words were not read: what
// was left of each deadline when the master last ran is left of it now. Delays
// and the deadlines of the fleet's own plan stay: time has passed.
func (f *Fleet) forgive(now Instant) {
	if f.late.promised == Never || now.Sub(f.late.promised) < lateAfter {
		return
	}
	gap := now.Sub(f.late.decided)
	waiting := min(f.plan.startDeadline, f.floor.deadline, f.pool.deadline) != Never
	f.plan.startDeadline = f.plan.startDeadline.Add(gap)
	f.floor.deadline = f.floor.deadline.Add(gap)
	f.pool.deadline = f.pool.deadline.Add(gap)
	for _, s := range f.slots {
		watchdog := s.forgiven < maxForgiven
		waiting = waiting || s.deadline != Never || watchdog && s.beatDue != Never
		if watchdog {
			s.forgiven++
		}
		s.postpone(gap, watchdog)
	}
	if waiting {
		f.reportKind(KindOverslept, Notice, fmt.Sprintf("the master did not run for %s (frozen, stopped, or short of CPU); "+
			"the deadlines of its processes were extended", Span(now.Sub(f.late.promised))))
	}
}

// hearFirst lets every event of a turn come before a watchdog's end: a process
// that was late only as long as the master was may have said that it lives. The
// Tick that ends the turn judges.
func (f *Fleet) hearFirst(now Instant) {
	for _, s := range f.slots {
		if s.beatDue <= now && !s.frozen {
			s.beatDue = now + 1
		}
	}
}

// promise remembers when the next turn is due.
func (f *Fleet) promise(now Instant) {
	f.late = lateness{decided: now, promised: f.Deadline()}
}
