// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The kernel passes at most 253 descriptors in one message (SCM_MAX_FD,
// unix(7)).
const maxFDs = 253

// SO_PASSPIDFD and SCM_PIDFD came with Linux 6.5 (unix(7)).
const (
	soPassPIDFD = 76
	scmPIDFD    = 4
)

// Server is the receiving end of a NOTIFY_SOCKET. It is not safe for concurrent
// use.
type Server struct {
	fd   int
	path string
}

// Buffer is what a datagram is received into. Servers that are read one after
// the other can share one. The zero value is ready.
type Buffer struct {
	text [MessageMax + 1]byte // one more, to notice what is too long
	oob  [oobMax]byte
}

// oobMax holds what comes with a datagram at most: descriptors, the sender's pidfd
// and its credentials, each behind a header of 16 bytes, on a boundary of 8.
const oobMax = (16 + 4*(maxFDs+1)) + (16 + 8) + (16 + 16)

// Datagram is one notification and who sent it. Its owner closes what it does not
// keep.
type Datagram struct {
	Message Message
	PID     int // of the sender, as the kernel says; 0: not known
	UID     uint32
	PIDFD   int   // of the sender; -1 if the kernel does not pass one
	FDs     []int // close-on-exec

	// Refused is why the message was not read; there are no descriptors then.
	Refused error
}

// Close closes the descriptors that the datagram still has.
func (d *Datagram) Close() {
	closeAll(d.FDs)
	d.FDs = nil
	if d.PIDFD >= 0 {
		_ = unix.Close(d.PIDFD) // read only
		d.PIDFD = -1
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // not wanted
	}
}

// Listen makes a socket at path, which must not be longer than a Unix address
// can be. What stands there is replaced. Everybody may send: each message comes
// with its sender, for the caller to check. The caller owns the server and closes
// it. It does not block.
func Listen(path string) (*Server, error) {
	if len(path) > pathMax || len(path) == 0 || path[0] != '/' {
		return nil, fmt.Errorf("notify socket %q: it must be an absolute path of at most %d bytes", path, pathMax)
	}
	const flags = unix.SOCK_DGRAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	fd, err := unix.Socket(unix.AF_UNIX, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", os.NewSyscallError("socket", err))
	}
	s := &Server{fd: fd, path: path}
	if err := s.bind(); err != nil {
		_ = unix.Close(fd) // the error that matters is err
		return nil, fmt.Errorf("notify socket %s: %w", path, err)
	}
	return s, nil
}

func (s *Server) bind() error {
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := unix.Bind(s.fd, &unix.SockaddrUnix{Name: s.path}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := os.Chmod(s.path, 0o666); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_PASSCRED", err)
	}
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, soPassPIDFD, 1) // ENOPROTOOPT before Linux 6.5
	return nil
}

// FD is for poll(2) and the like: it is readable when a datagram waits.
func (s *Server) FD() int { return s.fd }

// Path is the value for NOTIFY_SOCKET.
func (s *Server) Path() string { return s.path }

// Close closes and removes the socket.
func (s *Server) Close() error {
	_ = unix.Unlink(s.path) // another may have replaced it
	return os.NewSyscallError("close", unix.Close(s.fd))
}

// Receive reads one datagram, which is the caller's to close and keeps nothing of
// the buffer. It does not block: the error wraps EAGAIN if none waits. A datagram
// that is not a notification comes with Refused set.
func (s *Server) Receive(b *Buffer) (Datagram, error) {
	for {
		n, oobn, flags, _, err := unix.Recvmsg(s.fd, b.text[:], b.oob[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return Datagram{PIDFD: -1}, os.NewSyscallError("recvmsg", err)
		}
		d := Datagram{PIDFD: -1}
		d.take(b.oob[:oobn])
		d.Message, d.Refused = ParseMessage(b.text[:n])
		switch {
		case flags&unix.MSG_TRUNC != 0:
			d.Refused = errLong
		case flags&unix.MSG_CTRUNC != 0:
			d.Refused = errors.New("not all of the descriptors could be received")
		case d.PID == 0:
			d.Refused = errors.New("the sender is not known")
		case d.Message.Barrier && len(d.FDs) != 1 && d.Refused == nil:
			d.Refused = fmt.Errorf("BARRIER=1 with %d descriptors", len(d.FDs))
		}
		if d.Refused != nil {
			d.Message = Message{}
			d.Close()
		}
		return d, nil
	}
}

// take reads the control messages. It must find every descriptor, or one would
// leak.
func (d *Datagram) take(oob []byte) {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return // the kernel wrote it
	}
	for i := range cmsgs {
		c := &cmsgs[i]
		switch {
		case c.Header.Level != unix.SOL_SOCKET:
		case c.Header.Type == unix.SCM_RIGHTS:
			if fds, err := unix.ParseUnixRights(c); err == nil {
				d.FDs = append(d.FDs, fds...)
			}
		case c.Header.Type == scmPIDFD:
			d.takePIDFD(c)
		case c.Header.Type == unix.SCM_CREDENTIALS:
			if cred, err := unix.ParseUnixCredentials(c); err == nil {
				d.PID, d.UID = int(cred.Pid), cred.Uid
			}
		}
	}
}

// takePIDFD reads a control message that is like SCM_RIGHTS with one descriptor.
func (d *Datagram) takePIDFD(c *unix.SocketControlMessage) {
	c.Header.Type = unix.SCM_RIGHTS
	fds, err := unix.ParseUnixRights(c)
	if err != nil || len(fds) != 1 {
		return
	}
	if d.PIDFD = fds[0]; d.PIDFD < 0 {
		d.PIDFD = -1 // the sender was gone when it was received
	}
}
