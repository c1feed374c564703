// SPDX-License-Identifier: AGPL-3.0-or-later

// Package linux wraps the system calls that prefork needs. The wrappers retry
// EINTR and name the call in the error; they hold no policy and no state.
package linux

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Monotonic returns CLOCK_MONOTONIC in nanoseconds (clock_gettime(2)).
func Monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(os.NewSyscallError("clock_gettime", err)) // cannot fail on Linux
	}
	return ts.Nano()
}

// SetChildSubreaper makes this process the parent of its orphaned descendants
// (PR_SET_CHILD_SUBREAPER(2const)).
func SetChildSubreaper() error {
	return os.NewSyscallError("prctl PR_SET_CHILD_SUBREAPER",
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// PidfdOpen wraps pidfd_open(2). The descriptor is close-on-exec.
func PidfdOpen(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	return fd, os.NewSyscallError("pidfd_open", err)
}

// PidfdSendSignal wraps pidfd_send_signal(2). ESRCH means that the process has
// ended.
func PidfdSendSignal(pidfd int, sig unix.Signal) error {
	return os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(pidfd, sig, nil, 0))
}

// SameFile reports whether two descriptors of this process share one open file
// (kcmp(2)). Where the kernel does not tell, they do not.
func SameFile(a, b int) bool {
	const kcmpFile = 0
	pid := uintptr(unix.Getpid())
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	return errno == 0 && order == 0
}

// Wait is what waitid(2) tells of a child that has ended.
type Wait struct {
	PID    int // 0: no child has ended
	Code   int // exit status; not set if Signal is
	Signal int
	Core   bool
}

// siginfo is the part of siginfo_t that waitid(2) fills in, on 64-bit Linux.
type siginfo struct {
	signo, errno, code, _ int32
	pid, uid, status      int32
	_                     [100]byte
}

const (
	cldExited = 1
	cldDumped = 3
)

func waitid(idType, id, options int) (Wait, error) {
	var info siginfo
	err := retry(func() error {
		return unix.Waitid(idType, id, (*unix.Siginfo)(unsafe.Pointer(&info)), options, nil)
	})
	if err != nil {
		return Wait{}, os.NewSyscallError("waitid", err)
	}
	w := Wait{PID: int(info.pid)}
	switch {
	case info.code == cldExited:
		w.Code = int(info.status)
	default:
		w.Signal, w.Core = int(info.status), info.code == cldDumped
	}
	return w, nil
}

// PeekAny tells of any child that has ended, and leaves it as it is. It does
// not block. ECHILD means that there are no children.
func PeekAny() (Wait, error) {
	return waitid(unix.P_ALL, 0, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT)
}

// PeekPidfd reports whether the process is a child that has ended, and leaves it
// as it is. It does not block. ECHILD means that it is not a child of ours.
func PeekPidfd(pidfd int) (Wait, error) {
	return waitid(unix.P_PIDFD, pidfd, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT)
}

// ReapPidfd collects the status of a child that has ended. It does not block.
func ReapPidfd(pidfd int) (Wait, error) {
	return waitid(unix.P_PIDFD, pidfd, unix.WEXITED|unix.WNOHANG)
}

// ReapPID is ReapPidfd for a child that has no pidfd. A child's pid is not used
// again before it has been reaped.
func ReapPID(pid int) (Wait, error) {
	return waitid(unix.P_PID, pid, unix.WEXITED|unix.WNOHANG)
}

// Memfd returns a sealed memfd with this content, close-on-exec, read from its
// start.
func Memfd(name string, content []byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	if err := fillMemfd(fd, content); err != nil {
		_ = unix.Close(fd) // the error that matters is err
		return -1, err
	}
	return fd, nil
}

func fillMemfd(fd int, content []byte) error {
	for done := 0; done < len(content); {
		n, err := unix.Pwrite(fd, content[done:], int64(done))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("pwrite", err)
		}
		done += max(n, 0)
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	return os.NewSyscallError("fcntl F_ADD_SEALS", err)
}
