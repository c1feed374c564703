// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"time"
)

// notified takes what a slot's process says of itself, with systemd's meaning
// (sd_notify(3)). A process that has not been told what to become says nothing.
func (s *slot) notified(now Instant, ev Notified) {
	if !s.assigned || s.sweeping {
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
		s.beats(now)
	}
	if ev.Ready {
		s.saysReady(now)
	}
	if ev.Reloading {
		s.reloads(now)
	}
	if ev.Watchdog {
		s.beats(now)
	}
	if ev.Stopping && s.state == StateReady {
		s.stopsItself(now)
	}
	if ev.Extend > 0 {
		s.extend(now, ev.Extend) // of the state that it has just announced
	}
	if ev.Recycle != "" {
		s.asks(now, ev.Recycle)
	}
	if ev.Trigger && (s.state == StateReady || s.state == StateStarting) {
		s.abort(now, "sent WATCHDOG=trigger")
	}
}

// saysReady ends a start or a reload. A process may say so before it is heard
// that it has left its gate.
func (s *slot) saysReady(now Instant) {
	switch {
	case s.state == StateStarting && s.policy().Notify && !s.running:
		s.early = true
	case s.state == StateStarting && s.policy().Notify:
		s.becomeReady(now)
	case s.state == StateReady && s.reloading:
		s.reloading, s.deadline = false, Never
		s.remark("", Info, "reloaded")
	}
}

// reloads limits how long a process that serves may reload. What it was told
// before still holds, so a reload that does not end is not a reason to kill it.
func (s *slot) reloads(now Instant) {
	if s.state == StateReady && !s.reloading {
		s.reloading, s.deadline = true, now.timeout(s.policy().TimeoutStart)
		s.remark("", Info, "reloads")
	}
}

func (s *slot) reloadTimeout() {
	s.reloading, s.deadline = false, Never
	s.remark("", Warning, fmt.Sprintf("did not finish its reload within %s (timeout_start_sec); it is left as it is",
		Span(s.policy().TimeoutStart)))
}

// beats takes a keep-alive: the next one is due within the interval.
func (s *slot) beats(now Instant) {
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
func (s *slot) stopsItself(now Instant) {
	s.thaw(now) // it said so before it was frozen
	s.enterStopping(now, KindSlotStops, Info, "stops by itself (STOPPING=1)")
}

// abort ends a process that is stuck: SIGABRT, so that it can leave a core and a
// traceback, and SIGKILL if that does not help.
func (s *slot) abort(now Instant, why string) {
	s.thaw(now)
	s.result = Watchdog
	s.enterStopping(now, KindSlotWatchdog, Warning, why+s.lastWords()+"; sent SIGABRT")
	s.fleet.signal(s.proc, SIGABRT, s.signalsAll())
}

// lastWords is what a process last said of itself, for a line that says how it
// failed.
func (s *slot) lastWords() string {
	text := ""
	if s.status != "" {
		text += fmt.Sprintf("; its last status: %q", s.status)
	}
	if s.errno != "" {
		text += "; its error: " + s.errno
	}
	return text
}
