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
	if f.agenda.late.promised == Never || now.Sub(f.agenda.late.promised) < lateAfter {
		return
	}
	gap := now.Sub(f.agenda.late.decided)
	waiting := f.agenda.startDeadline != Never
	f.agenda.startDeadline = f.agenda.startDeadline.Add(gap)
	for _, l := range f.floors {
		waiting = waiting || min(l.deadline, l.pool.deadline) != Never
		l.deadline = l.deadline.Add(gap)
		l.pool.deadline = l.pool.deadline.Add(gap)
	}
	f.agenda.probe.deadline = f.agenda.probe.deadline.Add(gap)
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
			"the deadlines of its processes were extended", Span(now.Sub(f.agenda.late.promised))))
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
	f.agenda.late = lateness{decided: now, promised: f.Deadline()}
}
