// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"time"
)

// notified takes what a slot's process says of itself, with systemd's meaning
// (sd_notify(3)). A process that has not been told what to become says nothing.
func (f *Fleet) notified(now Instant, ev Notified) {
	s := f.owned(ev.Proc)
	if s == nil || !s.told || s.sweeping {
		return
	}
	if ev.HasStatus {
		s.status = ev.Status
	}
	if ev.Errno != "" {
		s.errno = ev.Errno
	}
	if ev.Interval > 0 {
		s.watchdog = ev.Interval
		f.beat(now, s)
	}
	if ev.Ready {
		f.saidReady(now, s)
	}
	if ev.Reloading {
		f.reloading(now, s)
	}
	if ev.Watchdog {
		f.beat(now, s)
	}
	if ev.Stopping && s.state == StateReady {
		f.stopsItself(now, s)
	}
	if ev.Extend > 0 {
		s.extend(now, ev.Extend) // of the state that it has just announced
	}
	if ev.Trigger && (s.state == StateReady || s.state == StateStarting) {
		f.abort(now, s, "sent WATCHDOG=trigger")
	}
}

// saidReady ends a start or a reload. A process may say so before it is heard
// that it has left its gate.
func (f *Fleet) saidReady(now Instant, s *slot) {
	switch {
	case s.state == StateStarting && f.policy(s).Notify && !s.runs:
		s.saidReady = true
	case s.state == StateStarting && f.policy(s).Notify:
		f.becomeReady(now, s)
	case s.state == StateReady && s.reloading:
		s.reloading, s.deadline = false, Never
		f.setState(s, StateReady, Info, "reloaded")
	}
}

// reloading limits how long a process that serves may reload. What it was told
// before still holds, so a reload that does not end is not a reason to kill it.
func (f *Fleet) reloading(now Instant, s *slot) {
	if s.state == StateReady && !s.reloading {
		s.reloading, s.deadline = true, now.timeout(f.policy(s).TimeoutStart)
		f.setState(s, StateReady, Info, "reloads")
	}
}

func (f *Fleet) reloadTimeout(s *slot) {
	s.reloading, s.deadline = false, Never
	f.setState(s, StateReady, Warning, fmt.Sprintf("did not finish its reload within %s (timeout_start_sec); it is left as it is",
		Span(f.policy(s).TimeoutStart)))
}

// beat takes a keep-alive: the next one is due within the interval.
func (f *Fleet) beat(now Instant, s *slot) {
	if s.state == StateReady {
		s.beatDue, s.forgiven = now.timeout(s.watchdog), 0
	}
}

// extend moves the deadlines that the process is subject to, the watchdog's too,
// never to an earlier time and never one that ends with SIGKILL sent. Where there
// is no deadline, max keeps it so.
func (s *slot) extend(now Instant, by time.Duration) {
	if s.state != StateKilling {
		s.deadline = max(s.deadline, now.Add(by))
		s.beatDue = max(s.beatDue, now.Add(by))
	}
}

// stopsItself waits for a process that said STOPPING=1 as for one that was asked
// to end, and sends it nothing.
func (f *Fleet) stopsItself(now Instant, s *slot) {
	f.thaw(now, s) // it said so before it was frozen
	f.leaveReady(s)
	s.deadline = now.timeout(f.policy(s).TimeoutStop)
	f.setState(s, StateStopping, Info, "stops by itself (STOPPING=1)"+f.sigkillFollows(s))
}

// abort ends a process that is stuck: SIGABRT, so that it can leave a core and a
// traceback, and SIGKILL if that does not help.
func (f *Fleet) abort(now Instant, s *slot, why string) {
	f.thaw(now, s)
	f.leaveReady(s)
	s.result = Watchdog
	s.deadline = now.timeout(f.policy(s).TimeoutStop)
	f.setState(s, StateStopping, Warning, why+s.words()+"; sent SIGABRT"+f.sigkillFollows(s))
	f.signal(s.proc, SIGABRT, f.signalAll(s))
}

func (f *Fleet) sigkillFollows(s *slot) string {
	if s.deadline == Never {
		return ""
	}
	return ", SIGKILL follows in " + Span(f.policy(s).TimeoutStop)
}

// words is what a process last said of itself, for a line that says how it
// failed.
func (s *slot) words() string {
	text := ""
	if s.status != "" {
		text += fmt.Sprintf("; its last status: %q", s.status)
	}
	if s.errno != "" {
		text += "; its error: " + s.errno
	}
	return text
}
