// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
)

// stderr is standard error where it is no terminal. Workers share its description,
// so that O_NONBLOCK is not ours to set.
type stderr struct {
	fd     int
	pipe   bool
	losses losses // lines that could not be written without blocking
}

// newStderr opens a pipe again, not to block: that description is ours alone. It may
// be another user's, and is written to as it is then.
func newStderr() *stderr {
	var stat unix.Stat_t
	if unix.Fstat(2, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		return &stderr{fd: 2}
	}
	if fd, err := unix.Open("/proc/self/fd/2", unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
		return &stderr{fd: fd, pipe: true}
	}
	return &stderr{fd: 2, pipe: true}
}

// write never blocks on a journal or a pipe that nobody reads. A line that cannot be
// written now is counted, and the count is told before the next one that can.
func (s *stderr) write(line []byte, priority bool) {
	if n := s.losses.untold.Load(); n > 0 {
		prefix := ""
		if priority {
			prefix = fmt.Sprintf("<%d>", fleet.Warning)
		}
		if s.try(fmt.Appendf(nil, "%s%d lines could not be written before this one\n", prefix, n)) != nil {
			s.losses.add(1)
			return
		}
		s.losses.untold.Add(-n)
	}
	if s.try(line) != nil {
		s.losses.add(1)
	}
}

// try returns EAGAIN if there is no room. A socket and a pipe take a line of maxRecord
// bytes whole or not at all. Only another user's pipe may block, with a kernel before
// 6.4, if a worker fills it in the moment after poll(2) has found room.
func (s *stderr) try(line []byte) error {
	_, err := unix.SendmsgN(s.fd, line, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if !errors.Is(err, unix.ENOTSOCK) {
		return err
	}
	if s.pipe {
		if _, err = unix.Pwritev2(s.fd, [][]byte{line}, -1, unix.RWF_NOWAIT); !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(fds, 0); n == 0 || err != nil {
		if errors.Is(err, unix.EINTR) { // a signal may be pending even if nothing is waited for
			return s.try(line)
		}
		return unix.EAGAIN
	}
	_, err = unix.Write(s.fd, line)
	return err
}
