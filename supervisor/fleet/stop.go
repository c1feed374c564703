// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

// stopRequested stops the fleet; asked a second time, it kills.
func (f *Fleet) stopRequested(now Instant, why string) {
	again := f.asked
	f.asked = true
	switch {
	case again:
		f.killAll(now, why+" again")
	case f.phase == stopping:
		f.report(Notice, why+": the fleet stops already; once more kills what is left")
	default:
		f.stop(now, 0, why)
	}
}

// killAll ends what a stop has left. Spares have been killed already.
func (f *Fleet) killAll(now Instant, why string) {
	f.report(Warning, why+": killing what is left")
	for i := range f.slots {
		s := &f.slots[i]
		if s.proc != 0 && !s.killed {
			f.kill(now, s, why)
		}
	}
	if f.floor.proc != 0 && !f.floor.allKilled {
		f.killFloor(now, why)
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
	f.phase, f.code, f.why = stopping, code, why
	f.startDeadline, f.stopAt = Never, Never
	if f.cfg.Extend {
		f.nextExtend = now
	}
	f.do(Stopping{})
	f.reportKind(kind, level, "fleet stops: "+why)
	for i := range f.slots {
		f.stopOne(now, &f.slots[i], why)
	}
	f.advanceDemands(now)
	f.stopPool(now)
	f.stopFloor(now)
}

func (f *Fleet) stopOne(now Instant, s *slot, why string) {
	switch s.state {
	case StateWaiting, StateListening, StateStarting, StateReady:
		f.stopSlot(now, s, why)
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
	if f.code == 0 {
		f.code, f.why = 1, why
	}
}
