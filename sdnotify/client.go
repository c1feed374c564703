// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrFull means that nothing was sent because the receiver has not read what
// was sent before. Try again later, with the status of that time: there is no
// way to be told when there is room.
var ErrFull = errors.New("queue is full")

const (
	maxPath = 107     // bytes of sun_path in unix(7) less its final NUL
	sndbuf  = 8 << 20 // bytes; what libsystemd asks for
)

// Client sends notifications to one socket. A nil *Client is valid: its methods
// do nothing and report nothing. [Client.Send] and [Client.Barrier] may be called
// from several goroutines; [Client.Close] must come after all of them.
type Client struct {
	fd   int
	path string
}

// New returns a client for a path or an abstract "@name", the value of
// NOTIFY_SOCKET; for "" it returns nil without an error. The receiver need not
// be there yet. The caller owns the client and closes it. It does not block.
func New(socketPath string) (*Client, error) {
	if socketPath == "" {
		return nil, nil
	}
	if err := checkPath(socketPath); err != nil {
		return nil, fmt.Errorf("notify socket %q: %v", socketPath, err)
	}
	const flags = unix.SOCK_DGRAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	fd, err := unix.Socket(unix.AF_UNIX, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", os.NewSyscallError("socket", err))
	}
	// A small buffer only means that ErrFull comes earlier.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sndbuf) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sndbuf)
	}
	return &Client{fd: fd, path: socketPath}, nil
}

func checkPath(path string) error {
	switch {
	case strings.HasPrefix(path, "vsock:"), strings.HasPrefix(path, "vsock-"):
		return errors.New("vsock is not supported, it must be a Unix socket")
	case path[0] != '/' && path[0] != '@':
		return errors.New(`it must be an absolute path or begin with "@"`)
	case len(path) == 1:
		return errors.New("it must have a name")
	case len(path) > maxPath:
		return fmt.Errorf("it must be at most %d bytes long, not %d", maxPath, len(path))
	case strings.ContainsRune(path, 0):
		return errors.New("it cannot hold a NUL byte")
	}
	return nil
}

// Send sends the fields as one datagram, with the state (ready, stopping,
// reloading) first. It never blocks. Two states, or a field given twice, are an
// error and nothing is sent.
//
// A nil error means that the kernel took the datagram, not that anyone has read
// it. ErrFull, ECONNREFUSED and ENOENT (nobody listens) can be told apart with
// errors.Is. The address is looked up every time, so a receiver that was
// replaced is found again.
func (c *Client) Send(fields ...Field) error {
	if c == nil {
		return nil
	}
	datagram, err := encode(fields)
	if err != nil {
		return fmt.Errorf("notify: %v", err)
	}
	return c.send(datagram, nil)
}

func (c *Client) send(datagram, control []byte) error {
	const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	for {
		err := unix.Sendmsg(c.fd, datagram, control, &unix.SockaddrUnix{Name: c.path}, flags)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("notify %s: %w", c.path, ErrFull)
		default:
			return fmt.Errorf("notify %s: %w", c.path, os.NewSyscallError("sendmsg", err))
		}
	}
}

// StoreFD asks the service manager to keep a copy of fd, which stays the
// caller's. When this process has been replaced the manager passes it to the next
// one, under that name (LISTEN_FDNAMES). It is dropped when its other end hangs
// up, unless poll is false. It never blocks; that there was no room is not told.
func (c *Client) StoreFD(name string, fd int, poll bool) error {
	if c == nil {
		return nil
	}
	if !validFDName(name) {
		return fmt.Errorf("notify: %q is not a name for a descriptor", name)
	}
	datagram := "FDSTORE=1\nFDNAME=" + name
	if !poll {
		datagram += "\nFDPOLL=0"
	}
	return c.send([]byte(datagram), unix.UnixRights(fd))
}

// RemoveFD takes back all descriptors that are stored under a name.
func (c *Client) RemoveFD(name string) error {
	if c == nil {
		return nil
	}
	if !validFDName(name) {
		return fmt.Errorf("notify: %q is not a name for a descriptor", name)
	}
	return c.send([]byte("FDSTOREREMOVE=1\nFDNAME="+name), nil)
}

// Barrier waits until the receiver has processed everything that was sent
// before. It blocks, for at most timeout; then the error is
// os.ErrDeadlineExceeded. It does not wait for room in the queue: ErrFull comes
// at once. Use it where there is nothing left to supervise.
func (c *Client) Barrier(timeout time.Duration) error {
	if c == nil {
		return nil
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("notify barrier: %w", os.NewSyscallError("pipe2", err))
	}
	defer unix.Close(pipe[0])
	// sd_notify(3): the message must hold nothing else, and one descriptor.
	err := c.send([]byte("BARRIER=1"), unix.UnixRights(pipe[1]))
	_ = unix.Close(pipe[1]) // ours; the copy in the queue is what counts
	if err != nil {
		return err
	}
	if err := waitHangup(pipe[0], timeout); err != nil {
		return fmt.Errorf("notify barrier: %w", err)
	}
	return nil
}

// waitHangup waits until the last writer of a pipe is gone.
func waitHangup(fd int, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		left := unix.NsecToTimespec(int64(max(time.Until(deadline), 0)))
		fds := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP need not be asked for
		n, err := unix.Ppoll(fds, &left, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("ppoll", err)
		case n == 0:
			return os.ErrDeadlineExceeded
		default:
			return nil
		}
	}
}

// Close closes the socket. What was sent stays in the receiver's queue. Closing
// twice is harmless. It does not block.
func (c *Client) Close() error {
	if c == nil || c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}
