// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"time"
)

// Verb is what an operator wants of a slot.
type Verb string

// The verbs.
const (
	VerbStart   Verb = "start"   // now, if it does not run
	VerbStop    Verb = "stop"    // and let it be until it is started
	VerbRestart Verb = "restart" // end its process and start the next at once
	VerbReset   Verb = "reset"   // forget its failures; what waits or gave up starts now
	VerbKill    Verb = "kill"    // send its process a signal
	VerbFreeze  Verb = "freeze"  // keep its processes from running; nothing is held against them
	VerbThaw    Verb = "thaw"    // let them run again
)

// operate does what an operator wants, and says if that cannot be done.
func (f *Fleet) operate(now Instant, ev Operate) {
	refusal := ""
	switch {
	case ev.Slot < 0 || int(ev.Slot) >= len(f.slots):
		refusal = "there is no such slot"
	case f.phase == stopping:
		refusal = "the fleet stops"
	default:
		refusal = f.obey(now, &f.slots[ev.Slot], ev)
	}
	f.do(Answer{ID: ev.ID, Refusal: refusal})
}

func (f *Fleet) obey(now Instant, s *slot, ev Operate) (refusal string) {
	why := fmt.Sprintf("%s by %s", ev.Verb, ev.Who)
	switch ev.Verb {
	case VerbStart:
		f.startByHand(now, s, why)
	case VerbStop:
		f.stopByHand(now, s, why)
	case VerbRestart:
		f.restartByHand(now, s, why)
	case VerbReset:
		s.failures, s.lastDelay = 0, 0
		if s.state == StateFailed || s.state == StateWaiting {
			f.startByHand(now, s, why)
		}
	case VerbKill:
		if s.proc == 0 || !s.told || s.sweeping {
			return fmt.Sprintf("%s has no process: it is %s", s.name, s.state)
		}
		f.report(Notice, fmt.Sprintf("%s: sent %s (%s)", s.name, ev.Signal, why))
		f.do(Kill{Proc: s.proc, Signal: ev.Signal})
	case VerbFreeze:
		return f.freezeByHand(now, s, why)
	case VerbThaw:
		if s.frozen {
			f.thaw(now, s)
			f.setState(s, s.state, Notice, why)
		}
	default:
		panic(fmt.Sprintf("fleet: unknown verb %q", ev.Verb))
	}
	return ""
}

// startByHand starts a slot that does not run as soon as it may. What ends is
// started when it has ended.
func (f *Fleet) startByHand(now Instant, s *slot, why string) {
	s.held = false
	switch s.state {
	case StateExited, StateFailed:
		s.starts = nil
		s.due = now.Add(f.sooner(now, s))
		f.setState(s, StateWaiting, Notice, why)
	case StateWaiting:
		s.starts = nil
		if !s.blocked {
			s.due = min(s.due, now.Add(f.sooner(now, s)))
		}
	case StateStopping, StateKilling:
		s.again = true
	case StateStarting, StateReady, StateListening:
	}
}

// sooner is the delay of a start that is asked for: none, but for the bound of
// all starts.
func (f *Fleet) sooner(now Instant, s *slot) time.Duration {
	if s.begun == 0 {
		return 0
	}
	return max(0, s.startedAt.Add(minStartInterval).Sub(now))
}

func (f *Fleet) stopByHand(now Instant, s *slot, why string) {
	switch s.state {
	case StateExited, StateFailed:
		return // it will not start by itself
	case StateStarting, StateReady:
		s.held = true
		f.endByHand(now, s, why)
	case StateWaiting, StateListening:
		s.held = true
		s.due, s.blocked, s.woken = Never, false, false
		f.setState(s, StateExited, Notice, why)
	case StateStopping, StateKilling:
		s.held, s.again = true, false
	}
}

func (f *Fleet) restartByHand(now Instant, s *slot, why string) {
	s.failures, s.lastDelay = 0, 0
	switch s.state {
	case StateStarting, StateReady:
		s.held, s.again = false, true
		f.endByHand(now, s, why)
	default:
		f.startByHand(now, s, why)
	}
}

// endByHand stops the process of a slot that starts or is ready. One that waits
// for a process gives up its place.
func (f *Fleet) endByHand(now Instant, s *slot, why string) {
	if s.proc != 0 {
		f.stopSlot(now, s, why)
		return
	}
	p := &f.pool
	p.queue = slices.DeleteFunc(p.queue, func(id SlotID) bool { return id == s.id })
	if len(p.queue) == 0 && len(p.spares) >= f.cfg.Spares {
		f.abandonRequest() // what it asked for is not wanted any more
	}
	s.deadline = Never
	if !s.again {
		f.setState(s, StateExited, Notice, why)
		return
	}
	s.again = false
	s.due = now.Add(f.sooner(now, s))
	f.setState(s, StateWaiting, Notice, why)
}

// freezeByHand freezes a slot that runs, or starts. Its deadlines pass on when it
// is thawed.
func (f *Fleet) freezeByHand(now Instant, s *slot, why string) (refusal string) {
	switch {
	case !f.cfg.Freezer:
		return "there are no control groups to freeze it with: only a fleet that systemd runs has them"
	case !s.told || s.state != StateReady && s.state != StateStarting:
		return fmt.Sprintf("%s has no process that could be frozen: it is %s", s.name, s.state)
	case s.frozen:
		return ""
	}
	s.frozen, s.frozenAt = true, now
	f.setState(s, s.state, Notice, why)
	f.do(Freeze{Proc: s.proc, Frozen: true})
	return ""
}

// thaw lets a slot run again, if it is frozen: what was left of its deadlines is
// left of them now.
func (f *Fleet) thaw(now Instant, s *slot) {
	if s.frozen {
		f.do(Freeze{Proc: s.proc, Frozen: false})
		f.resume(now, s)
	}
}

func (f *Fleet) resume(now Instant, s *slot) {
	gap := now.Sub(s.frozenAt)
	s.frozen, s.deadline, s.beatDue = false, s.deadline.Add(gap), s.beatDue.Add(gap)
}

// freezeFailed leaves a slot that could not be frozen as it was. If it could not
// be thawed, its watchdog and the operator will see that.
func (f *Fleet) freezeFailed(now Instant, ev FreezeFailed) {
	s := f.owned(ev.Proc)
	if s == nil || !s.told || s.sweeping {
		return
	}
	if s.frozen {
		f.resume(now, s)
	}
	f.setState(s, s.state, Err, "freezer: "+ev.Why)
}
