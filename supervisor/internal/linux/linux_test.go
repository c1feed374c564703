// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

func TestMonotonicIsTheKernelsClock(t *testing.T) {
	before := Monotonic()
	time.Sleep(2 * time.Millisecond)
	if passed := Monotonic() - before; passed < int64(2*time.Millisecond) {
		t.Errorf("2 ms took %d ns", passed)
	}
}

func TestWaitTellsHowAChildEnded(t *testing.T) {
	testutil.WantNoLeak(t)
	for script, want := range map[string]Wait{
		"exit 0":        {},
		"exit 255":      {Code: 255},
		"kill -TERM $$": {Signal: int(unix.SIGTERM)},
		"kill -KILL $$": {Signal: int(unix.SIGKILL)},
	} {
		pid, pidfd := child(t, script)
		ended(t, pid)
		want.PID = pid
		if got, err := PeekAny(); got != want || err != nil {
			t.Errorf("%s: PeekAny: got %+v and %v, want %+v", script, got, err, want)
		}
		if got, err := PeekPidfd(pidfd); got != want || err != nil {
			t.Errorf("%s: PeekPidfd: got %+v and %v, want %+v", script, got, err, want)
		}
		if got, err := ReapPidfd(pidfd); got != want || err != nil {
			t.Errorf("%s: ReapPidfd: got %+v and %v, want %+v", script, got, err, want)
		}
		if _, err := ReapPidfd(pidfd); !errors.Is(err, unix.ECHILD) {
			t.Errorf("%s: reaped twice: got %v, want ECHILD", script, err)
		}
	}
}

func TestWaitDoesNotBlockForALivingChild(t *testing.T) {
	pid, pidfd := child(t, "exec sleep 1000")
	for name, wait := range map[string]func() (Wait, error){
		"PeekAny":   PeekAny,
		"PeekPidfd": func() (Wait, error) { return PeekPidfd(pidfd) },
		"ReapPidfd": func() (Wait, error) { return ReapPidfd(pidfd) },
		"ReapPID":   func() (Wait, error) { return ReapPID(pid) },
	} {
		if got, err := wait(); got != (Wait{}) || err != nil {
			t.Errorf("%s: got %+v and %v, want nothing", name, got, err)
		}
	}
	if err := PidfdSendSignal(pidfd, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended(t, pid)
	want := Wait{PID: pid, Signal: int(unix.SIGKILL)}
	if got, err := ReapPID(pid); got != want || err != nil {
		t.Errorf("ReapPID: got %+v and %v, want %+v", got, err, want)
	}
	if err := PidfdSendSignal(pidfd, unix.SIGKILL); !errors.Is(err, unix.ESRCH) {
		t.Errorf("a signal to who has been reaped: got %v, want ESRCH", err)
	}
}

// The kernel sets the flag also when it pipes the core to a program, but not
// where cores are switched off.
func TestWaitTellsOfACoreDump(t *testing.T) {
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	var limit unix.Rlimit
	if err != nil || strings.TrimSpace(string(pattern)) == "" || unix.Getrlimit(unix.RLIMIT_CORE, &limit) != nil || limit.Max == 0 {
		t.Skip("this machine dumps no cores")
	}
	pid, pidfd := child(t, "ulimit -c unlimited; kill -ABRT $$")
	ended(t, pid)
	want := Wait{PID: pid, Signal: int(unix.SIGABRT), Core: true}
	if got, err := ReapPidfd(pidfd); got != want || err != nil {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
}

func TestWaitWithoutChildren(t *testing.T) {
	if got, err := PeekAny(); !errors.Is(err, unix.ECHILD) {
		t.Errorf("PeekAny: got %+v and %v, want ECHILD", got, err)
	}
	self, err := PidfdOpen(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(self)
	if got, err := PeekPidfd(self); !errors.Is(err, unix.ECHILD) {
		t.Errorf("PeekPidfd of what is not a child: got %+v and %v, want ECHILD", got, err)
	}
	if got, err := ReapPID(os.Getpid()); !errors.Is(err, unix.ECHILD) {
		t.Errorf("ReapPID of what is not a child: got %+v and %v, want ECHILD", got, err)
	}
}

func TestPidfdIsCloseOnExecAndTellsWhoIsGone(t *testing.T) {
	pid, _ := child(t, "exit 0")
	fd, err := PidfdOpen(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
		t.Errorf("flags: got %d and %v, want FD_CLOEXEC", flags, err)
	}
	ended(t, pid)
	if _, err := ReapPID(pid); err != nil {
		t.Fatal(err)
	}
	if fd, err := PidfdOpen(pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("got %d and %v, want ESRCH", fd, err)
	}
}

func TestMemfdHoldsItsContentForGood(t *testing.T) {
	testutil.WantNoLeak(t)
	for _, content := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("0123456789abcdef"), 1<<16)} {
		fd, err := Memfd("test", content)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fd), "memfd")
		got := make([]byte, len(content)+1)
		n, _ := file.Read(got) // io.EOF if it is empty
		if !bytes.Equal(got[:n], content) {
			t.Errorf("%d bytes: read from its start, it is %d bytes and different", len(content), n)
		}
		if _, err := unix.Pwrite(fd, []byte("y"), 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("%d bytes: written: got %v, want EPERM", len(content), err)
		}
		if err := unix.Ftruncate(fd, int64(len(content))+1); !errors.Is(err, unix.EPERM) {
			t.Errorf("%d bytes: grown: got %v, want EPERM", len(content), err)
		}
		if err := unix.Ftruncate(fd, 0); len(content) > 0 && !errors.Is(err, unix.EPERM) {
			t.Errorf("%d bytes: shrunk: got %v, want EPERM", len(content), err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("%d bytes: sealed again: got %v, want EPERM", len(content), err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
			t.Errorf("flags: got %d and %v, want FD_CLOEXEC", flags, err)
		}
		_ = file.Close()
	}
}

func TestMemfdWithABadNameLeaksNothing(t *testing.T) {
	testutil.WantNoLeak(t)
	if fd, err := Memfd(strings.Repeat("n", 300), nil); !errors.Is(err, unix.EINVAL) || fd != -1 {
		t.Errorf("got %d and %v, want -1 and EINVAL", fd, err)
	}
}
