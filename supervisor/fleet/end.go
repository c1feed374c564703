// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"time"
)

// A slot ends gently: its main process gets kill_signal and has timeout_stop_sec;
// what that one then leaves behind (a program behind a shell, multiprocessing's
// resource tracker) gets SIGTERM and a short grace. So it is after a crash, too.
// SIGKILL is for what is left, and the slot's next process waits for all of it.

// signal sends a signal that asks processes to end, and SIGCONT after it, as
// systemd does: one that is stopped (SIGSTOP) would not see it before its end.
func (f *Fleet) signal(p Proc, sig Signal, all bool) {
	f.do(Kill{Proc: p, Signal: sig, All: all})
	if sig != SIGKILL && sig != SIGCONT {
		f.do(Kill{Proc: p, Signal: SIGCONT, All: all})
	}
}

// signalAll tells whether the first signal is for all processes of the slot.
func (f *Fleet) signalAll(s *slot) bool { return f.policy(s).KillMode == KillControlGroup }

// stopSlot asks the slot's process to end. A slot without one has ended.
func (f *Fleet) stopSlot(now Instant, s *slot, why string) {
	sig, all := f.policy(s).KillSignal, f.signalAll(s)
	switch {
	case s.proc == 0:
		f.ended(s)
	case !s.told || sig == SIGKILL && all:
		f.kill(now, s, why) // at its gate there is no user code that could clean up
	case sig == SIGKILL:
		f.thaw(now, s) // what it leaves behind is to end by itself
		f.leaveReady(s)
		s.deadline = now.Add(killGrace)
		f.setState(s, StateKilling, Warning, why+"; sent SIGKILL")
		f.signal(s.proc, sig, false)
	default:
		f.thaw(now, s)
		f.leaveReady(s)
		s.deadline = now.timeout(f.policy(s).TimeoutStop)
		f.setState(s, StateStopping, Info, fmt.Sprintf("%s; sent %s%s", why, sig, f.sigkillFollows(s)))
		f.signal(s.proc, sig, all)
	}
}

// stopTimeout ends the patience with what was asked to end.
func (f *Fleet) stopTimeout(now Instant, s *slot) {
	if s.sweeping {
		f.kill(now, s, fmt.Sprintf("what it left behind did not end within %s", Span(now.Sub(s.endedAt))))
		return
	}
	if s.result == "" {
		s.result = Timeout
	}
	f.kill(now, s, fmt.Sprintf("did not end within %s (timeout_stop_sec)", Span(f.policy(s).TimeoutStop)))
}

// kill ends all of a slot.
func (f *Fleet) kill(now Instant, s *slot, why string) {
	f.killed(now, s, why+"; sent SIGKILL")
}

func (f *Fleet) killed(now Instant, s *slot, why string) {
	f.leaveReady(s)
	s.killed, s.frozen = true, false // it ends nevertheless (cgroup.freeze in cgroups(7))
	s.deadline = now.Add(killGrace)
	f.setState(s, StateKilling, Warning, why)
	f.signal(s.proc, SIGKILL, true)
}

// unkillable reports a process that does not end from SIGKILL (it sleeps in the
// kernel, or is frozen). A fleet that stops does not wait for it.
func (f *Fleet) unkillable(now Instant, s *slot) {
	s.deadline = Never
	why := fmt.Sprintf("does not end %s after SIGKILL", Span(killGrace))
	switch {
	case s.sweeping:
		why = fmt.Sprintf("what it left behind does not end %s after SIGKILL", Span(killGrace))
	case s.pid != 0:
		why += fmt.Sprintf(": look at /proc/%d/stack and /proc/%d/wchan", s.pid, s.pid)
	}
	if f.phase == stopping {
		f.blame(fmt.Sprintf("%s: %s", s.name, why))
		f.setState(s, StateFailed, Err, why)
		f.release(s)
		return
	}
	f.setState(s, StateKilling, Err, why+"; the slot waits for it")
}

// slotExited takes the end of the slot's process.
func (f *Fleet) slotExited(now Instant, s *slot, ev Exited) {
	if s.sweeping {
		return // a process ends once
	}
	if s.frozen && ev.Left > 0 {
		f.do(Freeze{Proc: s.proc, Frozen: false}) // what is left is to end by itself
	}
	s.exit, s.usage, s.frozen, s.endedAt = ev.Exit, ev.Usage, false, now
	if s.wasReady {
		s.readyFor = now.Sub(s.readyAt)
	}
	if s.result == "" {
		s.result = f.early(s, ev)
	}
	f.leaveReady(s)
	if ev.Left > 0 {
		f.sweep(now, s, ev.Left)
		return
	}
	f.settle(now, s)
}

// sweep ends what the slot's process left behind, as gently as there is time for:
// the limit of a stop holds for all of it.
func (f *Fleet) sweep(now Instant, s *slot, left int) {
	what := fmt.Sprintf("%s; %s that it left behind", f.describe(s), times(left, "process"))
	until := now.Add(f.grace(s))
	if s.state == StateStopping {
		until = min(until, s.deadline)
	}
	s.sweeping = true
	if s.killed || until <= now {
		f.killed(now, s, what+" got SIGKILL")
		return
	}
	s.deadline = until
	f.setState(s, StateStopping, Info, fmt.Sprintf("%s got SIGTERM, SIGKILL follows in %s", what, Span(until.Sub(now))))
	f.signal(s.proc, SIGTERM, true)
}

// grace is how long what a process left behind may take to end.
func (f *Fleet) grace(s *slot) time.Duration {
	if limit := f.policy(s).TimeoutStop; limit > 0 {
		return min(leftGrace, limit)
	}
	return leftGrace
}

func (f *Fleet) swept(now Instant, ev Swept) {
	if ev.Proc == f.floor.proc && f.floor.sweeping {
		f.floorExited(now, f.floor.cause)
	}
	if s := f.owned(ev.Proc); s != nil && s.sweeping {
		f.settle(now, s)
	}
}
