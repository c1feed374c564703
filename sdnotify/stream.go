// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// JournalDir returns the directory of the sockets of the journal that fd, a
// stream to it, is connected to: that of a namespace, if systemd gave the unit
// one (LogNamespace=).
func JournalDir(fd int) string {
	const standard = "/run/systemd/journal"
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return standard
	}
	if addr, ok := peer.(*unix.SockaddrUnix); ok && strings.HasPrefix(addr.Name, "/run/") {
		return filepath.Dir(addr.Name)
	}
	return standard
}

// OpenStream connects a stream to the journal whose sockets are in dir, on which
// each line becomes an entry with this SYSLOG_IDENTIFIER and, unless the line
// begins with another such as "<3>", this priority (sd_journal_stream_fd(3)). It
// does not block: if the journal does not take connections the error wraps
// ErrFull. The descriptor is the caller's, close-on-exec, and blocks who writes to
// it, which is not meant to be this process.
func OpenStream(dir, identifier string, priority int) (fd int, err error) {
	if identifier == "" || strings.ContainsFunc(identifier, unicode.IsControl) {
		return -1, fmt.Errorf("journal stream: identifier %q must be one word", identifier)
	}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("journal stream: %w", os.NewSyscallError("socket", err))
	}
	if err := startStream(fd, dir, identifier, priority); err != nil {
		_ = unix.Close(fd) // the error that matters is err
		return -1, fmt.Errorf("journal stream: %w", err)
	}
	return fd, nil
}

func startStream(fd int, dir, identifier string, priority int) error {
	err := unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "stdout")})
	if errors.Is(err, unix.EAGAIN) {
		return ErrFull
	}
	if err != nil {
		return os.NewSyscallError("connect", err)
	}
	if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
		return os.NewSyscallError("shutdown", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sndbuf) // a small one only blocks a worker earlier
	// Identifier, unit (from the cgroup), priority, prefixes are read, and the
	// journal's own configuration says what is forwarded.
	header := fmt.Sprintf("%s\n\n%d\n1\n0\n0\n0\n", identifier, priority)
	if _, err := unix.SendmsgN(fd, []byte(header), nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != nil {
		return os.NewSyscallError("send", err)
	}
	return os.NewSyscallError("fcntl", unix.SetNonblock(fd, false))
}

// StreamID is the value of JOURNAL_STREAM for a stream.
func StreamID(fd int) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", os.NewSyscallError("fstat", err)
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

// StreamAlive reports whether the journal still holds the other end. It does not
// block.
func StreamAlive(fd int) bool {
	polled := []unix.PollFd{{Fd: int32(fd)}}
	for {
		_, err := unix.Poll(polled, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && polled[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) == 0
		}
	}
}
