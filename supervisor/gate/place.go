// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"fmt"
	"math"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// placeFDs moves the descriptors to 3 and up, and marks all others to be closed
// by execve(2). The gate may stand where a socket belongs, and moves too: it
// stays open until then, so that a failure can still be told.
//
// Below them come as many copies of standard input as are reserved: a floor, and
// whatever its interpreter loads before it, then gets no number that its workers
// need for their sockets.
func placeFDs(gate *int, reserve int, fds []int) error {
	if reserve < 0 {
		return fmt.Errorf("%d reserved descriptors", reserve)
	}
	first := firstFD + reserve
	high := first + len(fds)
	if err := moveUp(gate, high); err != nil {
		return err
	}
	for i := range fds {
		if err := moveUp(&fds[i], high); err != nil {
			return err
		}
	}
	for number := firstFD; number < high; number++ {
		from := 0
		if number >= first {
			from = fds[number-first]
		}
		if err := unix.Dup3(from, number, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return os.NewSyscallError("close_range",
		unix.CloseRange(uint(high), math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC))
}

// moveUp gives a descriptor a number that is not below low.
func moveUp(fd *int, low int) error {
	moved, err := unix.FcntlInt(uintptr(*fd), unix.F_DUPFD_CLOEXEC, low)
	if err != nil {
		return os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	_ = unix.Close(*fd) // the copy has replaced it
	*fd = moved
	return nil
}

// program is what execve(2) takes, made ready: between the limits of memory and
// execve nothing is allocated.
type program struct {
	path *byte
	argv []*byte
	env  []*byte
}

func newProgram(path string, argv, env []string) (p program, err error) {
	if p.path, err = syscall.BytePtrFromString(path); err != nil {
		return p, err
	}
	if p.argv, err = syscall.SlicePtrFromStrings(argv); err != nil {
		return p, err
	}
	p.env, err = syscall.SlicePtrFromStrings(env)
	return p, err
}

// execute returns only if it fails.
func (p program) execute(o *Orders) error {
	resetSignals(o.IgnoreSIGPIPE)
	// Package syscall puts RLIMIT_NOFILE back to what it was before Go raised it,
	// here and in no other way. There is no such program, so that is all it does.
	_ = syscall.Exec("", nil, nil)
	for _, l := range o.Limits {
		if l.late() {
			limit := syscall.Rlimit{Cur: l.Soft, Max: l.Hard}
			_ = syscall.Setrlimit(l.Resource, &limit) // late says that it may be set
		}
	}
	_, _, errno := syscall.RawSyscall(
		syscall.SYS_EXECVE, uintptr(unsafe.Pointer(p.path)),
		uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.env[0])),
	)
	return errno
}

// resetSignals gives every signal its default action, SIGPIPE apart if that is to
// be ignored, and blocks none: execve(2) does so for handlers, but what was ignored
// stays ignored and the mask stays.
func resetSignals(ignoreSIGPIPE bool) {
	type sigaction struct{ handler, flags, restorer, mask uintptr }
	const sigDfl, sigIgn = 0, 1
	var mask uint64
	for sig := uintptr(1); sig <= 64; sig++ {
		var old sigaction
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0)
		want := sigaction{handler: sigDfl}
		if ignoreSIGPIPE && sig == uintptr(unix.SIGPIPE) {
			want.handler = sigIgn
		}
		if errno == 0 && old.handler != want.handler && (old.handler == sigIgn || want.handler == sigIgn) {
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&want)), 0, 8, 0, 0)
		}
	}
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
}
