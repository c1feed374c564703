// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"time"
)

// Result is why a process of a slot ended, in systemd's words.
type Result string

// The results, of which the restart table decides as systemd's does.
const (
	Success       Result = "success"
	ExitCode      Result = "exit-code"
	Signalled     Result = "signal"
	CoreDump      Result = "core-dump"
	Watchdog      Result = "watchdog"
	Timeout       Result = "timeout"
	Protocol      Result = "protocol"
	OOMKill       Result = "oom-kill"
	Resources     Result = "resources"
	StartLimitHit Result = "start-limit-hit"
)

// allResults are all of them.
var allResults = [...]Result{
	Success, ExitCode, Signalled, CoreDump, Watchdog, Timeout, Protocol, OOMKill, Resources, StartLimitHit,
}

// Exit is how a process ended: by a status or by a signal.
type Exit struct {
	Code   int
	Signal Signal // 0: it exited with Code
	Core   bool   // it was killed by Signal and dumped core
}

// noExit is the end of a process that never was: no list of exit statuses
// matches it.
var noExit = Exit{Code: -1}

func (e Exit) String() string {
	if e.Signal != 0 {
		return e.Signal.String()
	}
	return fmt.Sprint(e.Code)
}

var signalNames = [...]string{
	1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS",
	8: "SIGFPE", 9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE",
	14: "SIGALRM", 15: "SIGTERM", 16: "SIGSTKFLT", 17: "SIGCHLD", 18: "SIGCONT", 19: "SIGSTOP",
	20: "SIGTSTP", 21: "SIGTTIN", 22: "SIGTTOU", 23: "SIGURG", 24: "SIGXCPU", 25: "SIGXFSZ",
	26: "SIGVTALRM", 27: "SIGPROF", 28: "SIGWINCH", 29: "SIGIO", 30: "SIGPWR", 31: "SIGSYS",
}

func (s Signal) String() string {
	if s > 0 && int(s) < len(signalNames) {
		return signalNames[s]
	}
	return fmt.Sprintf("signal %d", int(s))
}

func (set ExitSet) has(e Exit) bool {
	if e.Signal != 0 {
		return slices.Contains(set.Signals, e.Signal)
	}
	return slices.Contains(set.Codes, e.Code)
}

// clean is systemd's is_clean_exit() for a service: status 0, an end by one of
// four signals, or what the worker calls a success. A core dump is never clean.
func (p *Policy) clean(e Exit) bool {
	switch {
	case e.Core:
		return false
	case p.Success.has(e):
		return true
	case e.Signal != 0:
		return e.Signal == SIGHUP || e.Signal == SIGINT || e.Signal == SIGTERM || e.Signal == SIGPIPE
	default:
		return e.Code == 0
	}
}

func (p *Policy) result(e Exit) Result {
	switch {
	case p.clean(e):
		return Success
	case e.Core:
		return CoreDump
	case e.Signal != 0:
		return Signalled
	default:
		return ExitCode
	}
}

// shouldRestart is systemd's service_shall_restart(): first the two lists of
// exit statuses, then Restart=. The second value says which rule decided.
func (p *Policy) shouldRestart(r Result, e Exit) (bool, string) {
	if p.RestartPrevent.has(e) {
		return false, "restart_prevent_exit_status"
	}
	if p.RestartForce.has(e) {
		return true, "restart_force_exit_status"
	}
	rule := fmt.Sprintf("restart = %q", string(p.Restart))
	switch p.Restart {
	case RestartAlways:
		return true, rule
	case RestartOnSuccess:
		return r == Success, rule
	case RestartOnFailure:
		return r != Success, rule
	case RestartOnAbnormal:
		return r != Success && r != ExitCode, rule
	case RestartOnWatchdog:
		return r == Watchdog, rule
	case RestartOnAbort:
		return r == Signalled || r == CoreDump, rule
	case RestartNo:
		return false, rule
	default:
		panic(fmt.Sprintf("fleet: unknown restart policy %q", p.Restart))
	}
}

// backoff is the delay before the n-th restart in a row, without jitter:
// RestartSec doubled n-1 times, at most RestartMaxDelay.
func backoff(first, most time.Duration, n int) time.Duration {
	d := first
	for ; n > 1 && d < most && d > 0; n-- {
		if d > most/2 {
			return most
		}
		d *= 2
	}
	return min(d, most)
}

// resetAfter is how long a slot must have been ready to start over from
// RestartSec.
func (p *Policy) resetAfter(last time.Duration) time.Duration {
	if p.RestartReset >= 0 {
		return p.RestartReset
	}
	return max(30*time.Second, last)
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
func (s *slot) resultBeforeExit(ev Exited) Result {
	switch {
	case ev.OOM && ev.Exit.Signal == SIGKILL:
		return OOMKill
	case s.state == StateStarting && s.policy().Notify && !s.early && s.policy().clean(ev.Exit):
		return Protocol
	default:
		return ""
	}
}

// settle decides what becomes of a slot that has no process any more.
func (s *slot) settle(now Instant) {
	what := s.describe()
	if s.refusal != "" {
		what += ": " + s.refusal
	}
	if s.wasReady {
		what += fmt.Sprintf(" after %s", Span(s.readyFor))
	}
	if s.result == Timeout {
		what += ", timed out"
	}
	if s.result != "" || !s.policy().clean(s.exit) {
		what += s.lastWords()
	}
	s.conclude(now, what)
}

// conclude applies the restart policy to the result of the slot's last process.
func (s *slot) conclude(now Instant, what string) {
	if s.result == "" {
		s.result = s.policy().result(s.exit)
	}
	s.lastResult = s.result
	if s.concludeMove(now, what) {
		return
	}
	restart, rule := s.policy().shouldRestart(s.result, s.exit)
	switch {
	case s.fleet.phase == stopping, s.held:
		s.enter(now, StateExited, Never, s.endKind(KindSlotExited), Info, what)
	case s.startOnceEnded:
		s.waitForRestart(now, Info, s.sooner(now), what)
	case s.result == Success && s.config.OnDemand && !s.policy().RestartPrevent.has(s.exit):
		s.waitForRestart(now, Info, s.listenDelay(now), what)
	case restart && s.result == Success:
		s.waitForRestart(now, Info, s.cleanDelay(now), what)
	case restart:
		s.backOff(now, what)
	case s.result == Success:
		s.enter(now, StateExited, Never, KindSlotExited, Info, fmt.Sprintf("%s; finished (%s)", what, rule))
	default:
		s.enter(now, StateFailed, Never, s.endKind(KindSlotFailed), Err, fmt.Sprintf("%s: %s; will not be restarted (%s)", s.result, what, rule))
	}
	s.release()
	s.failChange(now, what)
}

// cleanDelay: a clean exit restarts without backoff, but never faster than once
// per RestartSec.
func (s *slot) cleanDelay(now Instant) time.Duration {
	s.failures = 0
	return max(0, s.startedAt.Add(max(s.policy().RestartSec, minStartInterval)).Sub(now))
}

func (s *slot) backOff(now Instant, what string) {
	p := s.policy()
	if s.wasReady && s.readyFor >= p.resetAfter(s.lastDelay) {
		s.failures = 0
	}
	s.failures++
	s.lastDelay = backoff(p.RestartSec, p.RestartMaxDelay, s.failures)
	delay := s.lastDelay + min(s.fleet.jitter(s.lastDelay), Forever-s.lastDelay)
	delay = max(delay, s.startedAt.Add(minStartInterval).Sub(now))
	s.waitForRestart(now, Warning, delay, fmt.Sprintf("%s: %s", s.result, what))
}

// endKind is the kind of a report about the end of a process, of which running out of
// memory is one of its own.
func (s *slot) endKind(kind Kind) Kind {
	if s.result == OOMKill {
		return KindSlotOOMKilled
	}
	return kind
}

// waitForRestart makes the slot wait for its next start.
func (s *slot) waitForRestart(now Instant, level Level, delay time.Duration, what string) {
	s.waits = delay
	next := "starts again"
	if s.config.OnDemand {
		next = "listens again"
	}
	if delay > 0 {
		next += " in " + Span(delay)
	} else {
		next += " now"
	}
	if s.failures > 0 {
		next += fmt.Sprintf(" (%s failure in a row)", ordinal(s.failures))
	}
	s.enter(now, StateWaiting, now.Add(delay), s.endKind(KindSlotRestarts), level, what+"; "+next)
}

// giveUp ends a slot that could have been started again.
func (s *slot) giveUp(now Instant, r Result, why string) {
	s.result, s.lastResult = r, r
	s.enter(now, StateFailed, Never, KindSlotFailed, Err, fmt.Sprintf("%s: %s; gave up", r, why))
}
