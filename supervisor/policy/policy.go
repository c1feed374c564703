// SPDX-License-Identifier: AGPL-3.0-or-later

package policy

import (
	"fmt"
	"slices"
	"time"
)

// Restart is systemd's Restart= for one worker.
type Restart string

// The values of Restart=, with systemd's meaning (systemd.service(5)).
const (
	RestartNo         Restart = "no"
	RestartOnSuccess  Restart = "on-success"
	RestartOnFailure  Restart = "on-failure"
	RestartOnAbnormal Restart = "on-abnormal"
	RestartOnWatchdog Restart = "on-watchdog"
	RestartOnAbort    Restart = "on-abort"
	RestartAlways     Restart = "always"
)

// Restarts lists every value of Restart, in systemd's order.
var Restarts = []Restart{
	RestartNo, RestartOnSuccess, RestartOnFailure, RestartOnAbnormal,
	RestartOnWatchdog, RestartOnAbort, RestartAlways,
}

// KillMode is systemd's KillMode=: which processes of a slot get its first
// signal. What its main process then leaves behind is ended in either.
type KillMode string

// The values of KillMode= that a slot can have (systemd.kill(5)). The others
// would leave processes behind that nobody stops.
const (
	KillMixed        KillMode = "mixed"         // its main process
	KillControlGroup KillMode = "control-group" // all of them
)

// ExitSet is a set of exit statuses and signals, as in SuccessExitStatus=.
type ExitSet struct {
	Codes   []int
	Signals []Signal
}

// Policy says how one worker is started, restarted and stopped. As in systemd, a
// timeout of 0 or Forever is none, and a delay of 0 is none either; a delay of
// Forever does not pass.
type Policy struct {
	Restart Restart
	//lint:ignore ST1011 the name is that of RestartSec= in systemd
	RestartSec       time.Duration // delay before the first restart in a row
	RestartMaxDelay  time.Duration // the delay never grows beyond this, jitter apart
	RestartReset     time.Duration // ready for this long starts over; < 0: the greater of 30 s and the last delay
	RestartPrevent   ExitSet
	RestartForce     ExitSet
	Success          ExitSet
	StartLimitBurst  int           // 0: no limit
	StartLimitPeriod time.Duration // 0: no limit
	Notify           bool          // ready when it says READY=1, not already when it runs
	TimeoutStart     time.Duration
	TimeoutStop      time.Duration
	Watchdog         time.Duration // a keep-alive is due this often once it is ready; 0 or Forever: none
	KillSignal       Signal
	KillMode         KillMode // "" is KillMixed
}

// Has reports whether the set lists an end: by its signal, or else by its status.
func (set ExitSet) Has(e Exit) bool {
	if e.Signal != 0 {
		return slices.Contains(set.Signals, e.Signal)
	}
	return slices.Contains(set.Codes, e.Code)
}

// Clean is systemd's is_clean_exit() for a service: status 0, an end by one of
// four signals, or what the worker calls a success. A core dump is never clean.
func (p *Policy) Clean(e Exit) bool {
	switch {
	case e.Core:
		return false
	case p.Success.Has(e):
		return true
	case e.Signal != 0:
		return e.Signal == SIGHUP || e.Signal == SIGINT || e.Signal == SIGTERM || e.Signal == SIGPIPE
	default:
		return e.Code == 0
	}
}

// Result is that of a process of which nothing but its end is known.
func (p *Policy) Result(e Exit) Result {
	switch {
	case p.Clean(e):
		return Success
	case e.Core:
		return CoreDump
	case e.Signal != 0:
		return Signalled
	default:
		return ExitCode
	}
}

// ShouldRestart is systemd's service_shall_restart(): first the two lists of
// exit statuses, then Restart=. The second value says which rule decided.
func (p *Policy) ShouldRestart(r Result, e Exit) (bool, string) {
	if p.RestartPrevent.Has(e) {
		return false, "restart_prevent_exit_status"
	}
	if p.RestartForce.Has(e) {
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
		panic(fmt.Sprintf("policy: unknown restart policy %q", p.Restart))
	}
}

// Backoff is the delay before the n-th restart in a row, without jitter:
// RestartSec doubled n-1 times, at most RestartMaxDelay.
func Backoff(first, most time.Duration, n int) time.Duration {
	d := first
	for ; n > 1 && d < most && d > 0; n-- {
		if d > most/2 {
			return most
		}
		d *= 2
	}
	return min(d, most)
}

// ResetAfter is how long a slot must have been ready to start over from
// RestartSec.
func (p *Policy) ResetAfter(last time.Duration) time.Duration {
	if p.RestartReset >= 0 {
		return p.RestartReset
	}
	return max(30*time.Second, last)
}
