// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"os"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// pair returns a Seqpacket pair that the test closes.
func pair(t *testing.T) (ours, theirs int) {
	t.Helper()
	ours, theirs, err := Seqpacket()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Close(ours)
		_ = unix.Close(theirs) // a test may have closed it
	})
	return ours, theirs
}

// child starts a shell that is nobody's but the test's to wait for.
func child(t *testing.T, script string) (pid, pidfd int) {
	t.Helper()
	pidfd = -1
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	pid, err = syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{
		Dir:   t.TempDir(),
		Files: []uintptr{null.Fd(), null.Fd(), 2},
		Sys:   &syscall.SysProcAttr{PidFD: &pidfd},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) // it may have ended
		_ = unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED, nil)
		_ = unix.Close(pidfd)
	})
	return pid, pidfd
}

// ended waits until a child has ended, and leaves it to be reaped.
func ended(t *testing.T, pid int) {
	t.Helper()
	err := retry(func() error { return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) })
	if err != nil {
		t.Fatalf("waitid %s: %v", strconv.Itoa(pid), err)
	}
}
