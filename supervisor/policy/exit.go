// SPDX-License-Identifier: AGPL-3.0-or-later

package policy

import "fmt"

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

// Results are all of them.
var Results = [...]Result{
	Success, ExitCode, Signalled, CoreDump, Watchdog, Timeout, Protocol, OOMKill, Resources, StartLimitHit,
}

// Exit is how a process ended: by a status or by a signal.
type Exit struct {
	Code   int
	Signal Signal // 0: it exited with Code
	Core   bool   // it was killed by Signal and dumped core
}

// NoExit is the end of a process that never was: no list of exit statuses
// matches it.
var NoExit = Exit{Code: -1}

func (e Exit) String() string {
	if e.Signal != 0 {
		return e.Signal.String()
	}
	return fmt.Sprint(e.Code)
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
