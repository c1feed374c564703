// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"fmt"
	"os"
	"syscall"

	"github.com/decnet/prefork/supervisor/internal/linux"
)

// Shim is a process that waits at its gate. The descriptors are the caller's.
type Shim struct {
	PID   int
	PIDFD int
	Gate  int // this side's end
}

// StartShim starts this program again as the shim, a child in a session of its own, with
// standard input from devNull. procs is the cgroup.procs, open for writing, that it is to
// enter, or negative. The environment is empty: what the shim becomes gets its own with
// the orders. It must be called on a thread that lasts, see [Orders.DeathSignal].
func StartShim(devNull, procs int) (Shim, error) {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return Shim{}, err
	}
	defer linux.CloseFD(&theirs)
	s := Shim{PIDFD: -1, Gate: ours}
	args := []string{ShimName}
	attr := &syscall.ProcAttr{
		Files: []uintptr{uintptr(devNull), 1, 2, uintptr(theirs)},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &s.PIDFD},
	}
	if procs >= 0 {
		args, attr.Files = append(args, InGroup), append(attr.Files, uintptr(procs))
	}
	if s.PID, err = syscall.ForkExec("/proc/self/exe", args, attr); err != nil {
		linux.CloseFD(&s.Gate)
		return Shim{}, fmt.Errorf("start the shim: %w", os.NewSyscallError("fork/exec", err))
	}
	return s, nil
}
