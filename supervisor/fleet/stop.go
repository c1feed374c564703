// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

// stopRequested stops the fleet; asked a second time, it kills.
func (f *Fleet) stopRequested(now Instant, why string) {
	second := f.stopping.asked
	f.stopping.asked = true
	switch {
	case second:
		f.killAll(now, why+" again")
	case f.phase == stopping:
		f.report(Notice, why+": already stopping; repeat it to kill what is left")
	default:
		f.stop(now, 0, why)
	}
}

// killAll ends what a stop has left. Spares have been killed already.
func (f *Fleet) killAll(now Instant, why string) {
	f.report(Warning, why+": killing what is left")
	for _, s := range f.slots {
		if s.proc != 0 && !s.killed {
			s.kill(now, s.killKind(), why)
		}
	}
	for _, l := range f.floors {
		if l.proc != 0 && !l.allKilled {
			l.killAll(now, why)
		}
	}
}

// stop ends the fleet: no more starts, every slot is asked to end at once, and
// Quit follows when nothing is left.
func (f *Fleet) stop(now Instant, code int, why string) {
	kind, level := KindFleetFails, Err
	if code == 0 {
		kind, level = KindFleetStops, Notice
		f.sayReady()
	}
	f.phase, f.stopping.code, f.stopping.why = stopping, code, why
	f.agenda.startDeadline, f.agenda.stopAt = Never, Never
	if f.cfg.Extend {
		f.agenda.nextExtend = now
	}
	f.stopChange()
	f.do(Stopping{})
	f.reportKind(kind, level, "fleet stops: "+why)
	for _, s := range f.slots {
		s.stopForFleet(now, why)
	}
	for _, w := range f.workers {
		w.advance(now)
	}
	for _, l := range f.floors {
		l.stop(now)
	}
	f.agenda.probe.kill(now, f, "the fleet stops")
}

func (s *slot) stopForFleet(now Instant, why string) {
	switch s.state {
	case StateWaiting, StateListening, StateStarting, StateReady:
		s.stop(now, KindSlotStops, why)
	case StateKilling:
		if s.deadline == Never { // it was reported as one that cannot be killed
			s.deadline = now.Add(killGrace)
		}
	case StateStopping, StateExited, StateFailed:
	}
}

// blame makes a stop end with exit status 1. The first cause stays.
func (f *Fleet) blame(why string) {
	f.report(Err, why+"; the fleet does not wait for it")
	if f.phase == stopping && f.stopping.code == 0 {
		f.stopping.code, f.stopping.why = 1, why
	}
}

// killKind is the kind of a kill that nobody has waited for.
func (s *slot) killKind() Kind {
	if s.sweeping {
		return KindSlotLeft
	}
	return KindSlotStops
}
