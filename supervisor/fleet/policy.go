// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import "time"

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

// Signal is a Linux signal number. The core needs only a few names and must
// not depend on package syscall.
type Signal int

// The signals that the core decides about.
const (
	SIGHUP  Signal = 1
	SIGINT  Signal = 2
	SIGABRT Signal = 6
	SIGKILL Signal = 9
	SIGPIPE Signal = 13
	SIGTERM Signal = 15
	SIGCONT Signal = 18
)

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

// Forever is a duration that never passes ("infinity" in a fleet file).
const Forever time.Duration = 1<<63 - 1

// ReadyWhen says when a fleet is ready: all slots, the floor, or N slots.
type ReadyWhen struct {
	Floor bool // the floor is loaded; N is not used
	N     int  // so many slots; 0: all of them
}
