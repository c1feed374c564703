// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"cmp"
	"fmt"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// A slot ends gently: its main process gets kill_signal and has timeout_stop_sec;
// what that one then leaves behind (a program behind a shell, multiprocessing's
// resource tracker) gets SIGTERM and a short grace. So it is after a crash, too.
// SIGKILL is for what is left, and the slot's next process waits for all of it.

// signal sends a signal that asks processes to end, and SIGCONT after it, as
// systemd does: one that is stopped (SIGSTOP) would not see it before its end.
func (f *Fleet) signal(p Proc, sig policy.Signal, all bool) {
	f.do(Kill{Proc: p, Signal: sig, All: all})
	if sig != policy.SIGKILL && sig != policy.SIGCONT {
		f.do(Kill{Proc: p, Signal: policy.SIGCONT, All: all})
	}
}

// signalsAll reports whether the first signal is for all processes of the slot.
func (s *slot) signalsAll() bool { return s.policy().KillMode == policy.KillControlGroup }

// stop asks the slot's process to end. A slot without one has ended.
func (s *slot) stop(now policy.Instant, kind Kind, why string) {
	sig, all := s.policy().KillSignal, s.signalsAll()
	switch {
	case s.proc == 0:
		s.enter(now, StateExited, policy.Never, "", Debug, "stopped")
	case !s.assigned || sig == policy.SIGKILL && all:
		s.kill(now, kind, why) // at its gate there is no user code that could clean up
	case sig == policy.SIGKILL:
		s.thaw(now) // what it leaves behind is to end by itself
		s.enter(now, StateKilling, now.Add(killGrace), kind, Warning, why+"; sent SIGKILL")
		s.fleet.signal(s.proc, sig, false)
	default:
		s.thaw(now)
		s.enterStopping(now, kind, Info, fmt.Sprintf("%s; sent %s", why, sig))
		s.fleet.signal(s.proc, sig, all)
	}
}

// enterStopping gives the slot's process the time to end that its policy allows.
func (s *slot) enterStopping(now policy.Instant, kind Kind, level Level, why string) {
	until, told := now.Timeout(s.policy().TimeoutStop), why
	if until != policy.Never {
		told += ", SIGKILL follows in " + policy.Span(s.policy().TimeoutStop)
	}
	s.enterUntil(now, StateStopping, until, kind, level, why, told)
}

// stopTimeout ends the patience with what was asked to end.
func (s *slot) stopTimeout(now policy.Instant) {
	if s.sweeping {
		s.kill(now, KindSlotLeft, fmt.Sprintf("what it left behind did not end within %s", policy.Span(now.Sub(s.endedAt))))
		return
	}
	switch s.hung.next {
	case policy.SIGABRT:
		s.sendAbort(now)
		return
	case policy.SIGKILL:
		s.kill(now, KindSlotTimeout, s.hung.why)
		return
	}
	if s.result == "" {
		s.result = policy.Timeout
	}
	s.hung = hang{policy.SIGKILL, fmt.Sprintf("did not end within %s (timeout_stop_sec)", policy.Span(s.policy().TimeoutStop))}
	s.takeStacks(now, "", Debug, s.policy().TimeoutStop)
}

// kill ends all of a slot.
func (s *slot) kill(now policy.Instant, kind Kind, why string) {
	s.enterKilling(now, kind, why+"; sent SIGKILL")
}

func (s *slot) enterKilling(now policy.Instant, kind Kind, why string) {
	s.killed, s.frozen = true, false // it ends nevertheless (cgroup.freeze in cgroups(7))
	s.enter(now, StateKilling, now.Add(killGrace), kind, Warning, why)
	s.fleet.signal(s.proc, policy.SIGKILL, true)
}

// unkillable reports a process that does not end from SIGKILL (it sleeps in the
// kernel, or is frozen). A fleet that stops does not wait for it.
func (s *slot) unkillable(now policy.Instant) {
	s.deadline = policy.Never
	why := fmt.Sprintf("does not end %s after SIGKILL", policy.Span(killGrace))
	switch {
	case s.sweeping:
		why = fmt.Sprintf("what it left behind does not end %s after SIGKILL", policy.Span(killGrace))
	case s.pid != 0:
		why += fmt.Sprintf(": look at /proc/%d/stack and /proc/%d/wchan", s.pid, s.pid)
	}
	if s.fleet.phase == stopping {
		s.fleet.blame(fmt.Sprintf("%s: %s", s.name, why))
		s.enter(now, StateFailed, policy.Never, s.endKind(KindSlotFailed), Err, why)
		s.release()
		return
	}
	s.remark(KindSlotStuck, Err, why+"; the slot waits for it")
	if s.assigned && !s.sweeping {
		s.fleet.do(TakeStacks{s.proc})
	}
	s.stuckOnItsWay(now)
}

// exited takes the end of the slot's process.
func (s *slot) exited(now policy.Instant, ev Exited) {
	if s.sweeping {
		return // a process ends once
	}
	if s.frozen && ev.Left > 0 {
		s.fleet.do(Freeze{Proc: s.proc, Frozen: false}) // what is left is to end by itself
	}
	s.exit, s.usage, s.frozen, s.endedAt = ev.Exit, ev.Usage, false, now
	if s.wasReady {
		s.readyFor = now.Sub(s.readyAt)
	}
	if s.result == "" {
		s.result = s.resultBeforeExit(ev)
	}
	if ev.Left > 0 {
		s.sweep(now, ev.Left)
		return
	}
	s.settle(now)
}

// sweep ends what the slot's process left behind, as gently as there is time for:
// the limit of a stop holds for all of it.
func (s *slot) sweep(now policy.Instant, left int) {
	what := fmt.Sprintf("%s; %s that it left behind", s.describe(), times(left, "process"))
	until := now.Add(s.grace())
	if s.state == StateStopping {
		until = min(until, s.deadline)
	}
	s.sweeping = true
	if s.killed || until <= now {
		s.enterKilling(now, KindSlotLeft, what+" got SIGKILL")
		return
	}
	what += " got SIGTERM"
	s.enterUntil(now, StateStopping, until, KindSlotLeft, Info, what, fmt.Sprintf("%s, SIGKILL follows in %s", what, policy.Span(until.Sub(now))))
	s.fleet.signal(s.proc, policy.SIGTERM, true)
}

// grace is how long what a process left behind may take to end.
func (s *slot) grace() time.Duration {
	if limit := s.policy().TimeoutStop; limit > 0 {
		return min(leftGrace, limit)
	}
	return leftGrace
}

// swept: nothing is left of what a process left behind.
func (f *Fleet) swept(now policy.Instant, ev Swept) {
	if l := f.floorOf(ev.Proc); l != nil && l.proc == ev.Proc && l.sweeping {
		l.nextGeneration(now, l.cause)
	}
	if s := f.owners[ev.Proc]; s != nil && s.sweeping {
		s.settle(now)
	}
}

// killAll ends what a stop has left. Spares have been killed already.
func (f *Fleet) killAll(now policy.Instant, why string) {
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

// stop ends the fleet: no more starts, every slot is asked to end, at once or when
// those that are after it have ended, and Quit follows when nothing is left.
func (f *Fleet) stop(now policy.Instant, code int, why string) {
	kind, level, what, cause := KindFleetFails, Err, "fleet fails: ", "the fleet fails" // why is told once
	if code == 0 {
		kind, level, what, cause = KindFleetStops, Notice, "fleet stops: ", why
		f.sayReady()
	}
	f.phase, f.stopping.code, f.stopping.why, f.stopping.cause = stopping, code, why, cause
	f.agenda.startDeadline, f.agenda.stopAt, f.agenda.drainedAt = policy.Never, policy.Never, policy.Never
	if f.cfg.Extend {
		f.agenda.nextExtend = now
	}
	f.stopChange()
	f.do(Stopping{})
	f.reportKind(kind, level, what+why)
	f.stopInOrder(now)
	for _, w := range f.workers {
		w.advance(now)
	}
	for _, l := range f.floors {
		l.stop(now)
	}
	f.agenda.probe.kill(now, f, "the fleet stops")
}

func (s *slot) stopForFleet(now policy.Instant, why string) {
	switch s.state {
	case StateWaiting, StateListening, StateStarting, StateReady:
		s.stop(now, KindSlotStops, why)
	case StateKilling:
		if s.deadline == policy.Never { // it was reported as one that cannot be killed
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

// jitter returns up to 10 % of d, from the fleet's own generator (splitmix64),
// so that slots that fail together do not return together and a transcript
// still repeats.
func (f *Fleet) jitter(d time.Duration) time.Duration {
	f.random += 0x9e3779b97f4a7c15
	z := f.random
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	z ^= z >> 31
	most := uint64(d / 10)
	return time.Duration(z % (most + 1))
}

// resultBeforeExit is the result where the exit alone does not tell it: the kernel ended
// the process for its memory, or it ended cleanly before it was ready.
func (s *slot) resultBeforeExit(ev Exited) policy.Result {
	switch {
	case ev.OOM && ev.Exit.Signal == policy.SIGKILL:
		return policy.OOMKill
	case s.state == StateStarting && s.policy().Notify && !s.early && s.policy().Clean(ev.Exit):
		return policy.Protocol
	default:
		return ""
	}
}

// settle decides what becomes of a slot that has no process any more.
func (s *slot) settle(now policy.Instant) {
	clean := s.policy().Clean(s.exit)
	what := s.describe()
	if s.refusal != "" {
		what += ": " + s.refusal
	}
	if s.wasReady {
		what += fmt.Sprintf(" after %s", policy.Span(s.readyFor))
	}
	if clean {
		s.lament = "" // it has ended well nevertheless
	} else if s.lament != "" {
		what += ": " + s.lament
	}
	if s.result == policy.Timeout {
		what += ", timed out"
	}
	if s.result != "" || !clean {
		what += s.lastWords()
	}
	s.conclude(now, what)
}

// conclude applies the restart policy to the result of the slot's last process.
func (s *slot) conclude(now policy.Instant, what string) {
	if s.result == "" {
		s.result = s.policy().Result(s.exit)
	}
	s.lastResult, s.what = s.result, what
	if s.concludeMove(now, what) {
		return
	}
	restart, rule := s.policy().ShouldRestart(s.result, s.exit)
	switch {
	case s.fleet.phase == stopping, s.held:
		s.enter(now, StateExited, policy.Never, s.endKind(KindSlotExited), Info, what)
	case s.startOnceEnded:
		s.waitForRestart(now, Info, s.sooner(now), what)
	case s.result == policy.Success && s.config.OnDemand && !s.policy().RestartPrevent.Has(s.exit):
		s.waitForRestart(now, Info, s.listenDelay(now), what)
	case restart && s.result == policy.Success:
		s.waitForRestart(now, Info, s.cleanDelay(now), what)
	case restart:
		s.backOff(now, what)
	case s.result == policy.Success:
		s.enter(now, StateExited, policy.Never, KindSlotExited, Info, fmt.Sprintf("%s; finished (%s)", what, rule))
		s.vital = s.config.Vital.SuccessAction == policy.EndExit
	default:
		s.enter(now, StateFailed, policy.Never, s.endKind(KindSlotFailed), Err, fmt.Sprintf("%s: %s; will not be restarted (%s)", s.result, what, rule))
		s.vital = s.config.Vital.FailureAction == policy.EndExit
	}
	s.release()
	s.failChange(now, what)
}

// cleanDelay: a clean exit restarts without backoff, but never faster than once
// per RestartSec.
func (s *slot) cleanDelay(now policy.Instant) time.Duration {
	s.failures = 0
	return max(0, s.startedAt.Add(max(s.policy().RestartSec, minStartInterval)).Sub(now))
}

// recovered: it has been ready for restart_reset_sec, and its failures are over.
func (s *slot) recovered() {
	s.wellAt = policy.Never
	why := fmt.Sprintf("no failure for %s (restart_reset_sec)", policy.Span(s.policy().ResetAfter(s.lastDelay)))
	s.failures, s.lastDelay, s.why = 0, 0, "running"
	s.report("", Debug, why, End{Result: s.result})
}

func (s *slot) backOff(now policy.Instant, what string) {
	p := s.policy()
	if s.wasReady && s.readyFor >= p.ResetAfter(s.lastDelay) {
		s.failures = 0
	}
	s.failures++
	s.lastDelay = policy.Backoff(p.RestartSec, p.RestartMaxDelay, s.failures)
	delay := s.lastDelay + min(s.fleet.jitter(s.lastDelay), policy.Forever-s.lastDelay)
	delay = max(delay, s.startedAt.Add(minStartInterval).Sub(now))
	s.waitForRestart(now, Warning, delay, fmt.Sprintf("%s: %s", s.result, what))
}

// endKind is the kind of a report about the end of a process, of which running out of
// memory is one of its own.
func (s *slot) endKind(kind Kind) Kind {
	if s.result == policy.OOMKill {
		return KindSlotOOMKilled
	}
	return kind
}

// waitForRestart makes the slot wait for its next start.
func (s *slot) waitForRestart(now policy.Instant, level Level, delay time.Duration, what string) {
	s.waits = delay
	next := "starts again"
	if s.config.OnDemand {
		next = "listens again"
	}
	why, told := what, fmt.Sprintf("%s; %s %s", what, next, in(delay))
	if s.failures > 0 {
		row := fmt.Sprintf("%s failure in a row", ordinal(s.failures))
		why, told = fmt.Sprintf("%s; %s", why, row), fmt.Sprintf("%s (%s)", told, row)
	}
	s.enterUntil(now, StateWaiting, now.Add(delay), s.endKind(KindSlotRestarts), level, why, told)
}

// in says when something follows that does so after a delay.
func in(delay time.Duration) string {
	if delay <= 0 {
		return "now"
	}
	return "in " + policy.Span(delay)
}

// hitStartLimit gives up, with the failure that has led to it.
func (s *slot) hitStartLimit(now policy.Instant) {
	s.led = s.cause()
	why := fmt.Sprintf("%s: %d starts within %s (start_limit_burst)", policy.StartLimitHit,
		s.policy().StartLimitBurst, policy.Span(s.policy().StartLimitPeriod))
	if s.what != "" {
		why += "; the last one: " + s.what
	}
	s.result, s.lastResult = policy.StartLimitHit, policy.StartLimitHit
	s.enter(now, StateFailed, policy.Never, KindSlotFailed, Err,
		fmt.Sprintf("%s; gave up: prefork reset %s %s", why, cmp.Or(s.fleet.cfg.Called, "FLEET"), s.name))
	s.vital = s.config.Vital.FailureAction == policy.EndExit
}
