// SPDX-License-Identifier: AGPL-3.0-or-later

package memory

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
)

// probeFD is the descriptor by which a probe is asked.
const probeFD = 0

// maxAnswer bounds what is read of one, in bytes.
const maxAnswer = 1 << 30

// Ask asks a probe (package zygote) for the objects in these pages, until a deadline. It
// takes the right to trace that process (ptrace(2), PTRACE_MODE_ATTACH_REALCREDS): the
// error wraps fs.ErrPermission without it. It needs Linux 5.6.
func (p *Process) Ask(pages []uint64, until time.Time) (*Objects, error) {
	socket, err := p.take(probeFD)
	if err != nil {
		return nil, err
	}
	defer func() { _ = socket.Close() }() // all is read
	if err := socket.SetDeadline(until); err != nil {
		return nil, err
	}
	if _, err := socket.Write(runsOf(pages)); err != nil {
		return nil, fmt.Errorf("ask the probe: %w", err)
	}
	if err := endWriting(socket); err != nil {
		return nil, fmt.Errorf("ask the probe: %w", err)
	}
	return ReadObjects(bufio.NewReader(io.LimitReader(socket, maxAnswer)))
}

// take gets a copy of a descriptor of the process.
func (p *Process) take(fd int) (*os.File, error) {
	pidfd, err := linux.PidfdOpen(p.PID)
	if err != nil {
		return nil, err
	}
	defer linux.CloseFD(&pidfd)
	own, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_getfd", err)
	}
	if err := unix.SetNonblock(own, true); err != nil { // so that it can have a deadline
		_ = unix.Close(own) // nothing was written
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(own), "probe"), nil
}

// endWriting says that nothing more is asked.
func endWriting(socket *os.File) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.Shutdown(int(fd), unix.SHUT_WR) }); err != nil {
		return err
	}
	return os.NewSyscallError("shutdown", failed)
}

// runsOf writes pages, which are sorted, as the numbers of the first and the last of each
// run.
func runsOf(pages []uint64) []byte {
	var b bytes.Buffer
	for i := 0; i < len(pages); {
		n := 1
		for i+n < len(pages) && pages[i+n] == pages[i]+uint64(n)*pageSize {
			n++
		}
		fmt.Fprintf(&b, "%x %x\n", pages[i]/pageSize, pages[i]/pageSize+uint64(n)-1)
		i += n
	}
	return b.Bytes()
}
