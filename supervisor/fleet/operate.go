// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

// handlers carry out the verbs. why names the verb and the operator; a refusal says why
// nothing is done.
var handlers = map[verb.Name]func(s *slot, now policy.Instant, ev Operate, why string) (refusal string){
	verb.Start: func(s *slot, now policy.Instant, _ Operate, why string) string {
		s.goes = true
		return s.operatorStart(now, why)
	},
	verb.Stop:    func(s *slot, now policy.Instant, _ Operate, why string) string { return s.operatorStop(now, why) },
	verb.Restart: func(s *slot, now policy.Instant, _ Operate, why string) string { return s.operatorRestart(now, why) },
	verb.Reset:   func(s *slot, now policy.Instant, _ Operate, why string) string { return s.operatorReset(now, why) },
	verb.Kill: func(s *slot, _ policy.Instant, ev Operate, why string) string {
		return s.operatorKill(policy.Signal(ev.Call.Signal), why)
	},
	verb.Freeze: func(s *slot, now policy.Instant, _ Operate, why string) string { return s.operatorFreeze(now, why) },
	verb.Stacks: func(s *slot, now policy.Instant, _ Operate, why string) string { return s.operatorStacks(now, why) },
	verb.Thaw:   func(s *slot, now policy.Instant, _ Operate, why string) string { return s.operatorThaw(now, why) },
}

// operate does what an operator wants, and says if that cannot be done.
func (f *Fleet) operate(now policy.Instant, ev Operate) {
	refusal := f.obey(now, ev)
	if refusal == "" && ev.Call.Task != "" {
		return // the process is to be told first
	}
	f.do(Answer{ID: ev.ID, Refusal: refusal})
}

func (f *Fleet) obey(now policy.Instant, ev Operate) (refusal string) {
	s, handler := f.named(ev.Slot), handlers[ev.Call.Name]
	moves := ev.Call.Name.Moves()
	if s != nil && handler != nil && moves && f.change != nil && f.change.has(s) {
		f.yields(now, fmt.Sprintf("%s by %s comes first", ev.Call.Name, ev.Who))
	}
	switch {
	case s == nil:
		return "there is no slot " + ev.Slot
	case handler == nil:
		return fmt.Sprintf("there is no verb %q", string(ev.Call.Name))
	case f.phase == stopping && ev.Call.Name != verb.Stacks:
		return fleetStops
	case moves && f.change != nil && f.change.has(s):
		return fmt.Sprintf("%s is being replaced by %s %d: wait for its end, or prefork cancel it", s.name, f.change.Kind, f.change.id)
	}
	why := fmt.Sprintf("%s by %s", ev.Call.Name, ev.Who)
	if ev.Call.Task != "" {
		return s.orderTask(ev, why)
	}
	return handler(s, now, ev, why)
}

// operatorStart starts a slot that does not run as soon as it may. What ends is
// started when it has ended.
func (s *slot) operatorStart(now policy.Instant, why string) (refusal string) {
	s.held = false
	switch s.state {
	case StateExited, StateFailed:
		s.starts = nil
		s.enter(now, StateWaiting, now.Add(s.sooner(now)), "", Notice, why)
	case StateWaiting:
		s.starts = nil
		if !s.blocked {
			s.due = min(s.due, now.Add(s.sooner(now)))
		}
	case StateStopping, StateKilling:
		s.startOnceEnded = true
	case StateStarting, StateReady, StateListening:
	}
	return ""
}

// sooner is the delay of a start that is asked for: none, but for the bound of
// all starts.
func (s *slot) sooner(now policy.Instant) time.Duration {
	if s.startCount == 0 {
		return 0
	}
	return max(0, s.startedAt.Add(minStartInterval).Sub(now))
}

func (s *slot) operatorStop(now policy.Instant, why string) (refusal string) {
	switch s.state {
	case StateExited, StateFailed: // it will not start by itself
	case StateStarting, StateReady:
		s.held = true
		s.operatorEnd(now, why)
	case StateWaiting, StateListening:
		s.held = true
		s.enter(now, StateExited, policy.Never, "", Notice, why)
	case StateStopping, StateKilling:
		s.held, s.startOnceEnded = true, false
	}
	return ""
}

func (s *slot) operatorRestart(now policy.Instant, why string) (refusal string) {
	s.failures, s.lastDelay = 0, 0
	if s.state != StateStarting && s.state != StateReady {
		return s.operatorStart(now, why)
	}
	s.held, s.startOnceEnded = false, true
	s.operatorEnd(now, why)
	return ""
}

func (s *slot) operatorReset(now policy.Instant, why string) (refusal string) {
	s.failures, s.lastDelay = 0, 0
	if s.state == StateFailed || s.state == StateWaiting {
		return s.operatorStart(now, why)
	}
	return ""
}

func (s *slot) operatorKill(sig policy.Signal, why string) (refusal string) {
	if s.proc == 0 || !s.assigned || s.sweeping {
		return fmt.Sprintf("%s has no process: it is %s", s.name, s.state)
	}
	s.fleet.report(Notice, fmt.Sprintf("%s: sent %s (%s)", s.name, sig, why))
	s.fleet.do(Kill{Proc: s.proc, Signal: sig})
	return ""
}

// operatorStacks has the process of a slot write where its threads are.
func (s *slot) operatorStacks(now policy.Instant, why string) (refusal string) {
	switch {
	case s.proc == 0 || !s.assigned || s.sweeping:
		return fmt.Sprintf("%s has no process: it is %s", s.name, s.state)
	case now < s.stacksDue:
		return "" // they have just been taken
	}
	s.stacksDue = now.Add(stacksGrace)
	s.fleet.report(Notice, fmt.Sprintf("%s: its stacks are taken (%s)", s.name, why))
	s.fleet.do(TakeStacks{s.proc})
	return ""
}

// operatorEnd stops the process of a slot that starts or is ready. One that waits
// for a process gives up its place.
func (s *slot) operatorEnd(now policy.Instant, why string) {
	if s.proc != 0 {
		s.stop(now, KindSlotStops, why)
		return
	}
	s.withdraw()
	if !s.startOnceEnded {
		s.enter(now, StateExited, policy.Never, KindSlotExited, Notice, why)
		return
	}
	s.startOnceEnded = false
	s.enter(now, StateWaiting, now.Add(s.sooner(now)), KindSlotRestarts, Notice, why)
}

// operatorFreeze freezes a slot that runs, or starts. Its deadlines pass on when it
// is thawed.
func (s *slot) operatorFreeze(now policy.Instant, why string) (refusal string) {
	switch {
	case !s.fleet.cfg.Freezer:
		return "there are no control groups to freeze it with: only a fleet that systemd runs has them"
	case !s.assigned || s.state != StateReady && s.state != StateStarting:
		return fmt.Sprintf("%s has no process that could be frozen: it is %s", s.name, s.state)
	case s.frozen:
		return ""
	}
	s.frozen, s.frozenAt = true, now
	s.remark("", Notice, why)
	s.fleet.do(Freeze{Proc: s.proc, Frozen: true})
	return ""
}

func (s *slot) operatorThaw(now policy.Instant, why string) (refusal string) {
	if s.frozen {
		s.thaw(now)
		s.remark("", Notice, why)
	}
	return ""
}

// thaw lets a slot run again, if it is frozen: what was left of its deadlines is
// left of them now.
func (s *slot) thaw(now policy.Instant) {
	if s.frozen {
		s.fleet.do(Freeze{Proc: s.proc, Frozen: false})
		s.resume(now)
	}
}

func (s *slot) resume(now policy.Instant) {
	s.frozen = false
	s.postpone(now.Sub(s.frozenAt), true)
}

// postpone moves the deadlines of a process that could not meet them, and the watchdog's
// if that is forgiven, too.
func (s *slot) postpone(gap time.Duration, watchdog bool) {
	s.deadline, s.provenAt, s.wellAt = s.deadline.Add(gap), s.provenAt.Add(gap), s.wellAt.Add(gap)
	if watchdog {
		s.beatDue = s.beatDue.Add(gap)
	}
}

// freezeFailed leaves a slot that could not be frozen as it was. If it could not
// be thawed, its watchdog and the operator will see that.
func (s *slot) freezeFailed(now policy.Instant, why string) {
	if !s.assigned || s.sweeping {
		return
	}
	if s.frozen {
		s.resume(now)
	}
	s.remark("", Err, "freezer: "+why)
}
