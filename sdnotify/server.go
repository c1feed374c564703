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
	oob  [maxControl]byte
}

// maxControl holds what comes with a datagram at most: descriptors, the sender's pidfd
// and its credentials, each behind a header of 16 bytes, on a boundary of 8.
const maxControl = (16 + 4*(maxFDs+1)) + (16 + 8) + (16 + 16)

// Datagram is one notification and who sent it. Its owner closes what it does not
// keep.
type Datagram struct {
	Message Message
	PID     int // of the sender, as the kernel says; 0: not known
	UID     uint32
	PIDFD   int   // of the sender; -1 if the kernel does not pass one
	FDs     []int // close-on-exec

	// Carries tells of one that was looked at that it has descriptors.
	Carries bool

	// Refused is why the message was not read.
	Refused error
}

// Close closes the descriptors that the datagram still has. It may block for as
// long as their sender likes: see [Server.Skip].
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
// can be. What stands there is replaced. Only this user and root may send, or who
// the caller gives the socket to; each message comes with its sender, for the
// caller to check. The caller owns the server and closes it. It does not block.
func Listen(path string) (*Server, error) {
	if len(path) > maxPath || len(path) == 0 || path[0] != '/' {
		return nil, fmt.Errorf("notify socket %q: it must be an absolute path of at most %d bytes", path, maxPath)
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
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_PASSCRED", err)
	}
	// The file gets the mode of the socket, from its first moment.
	if err := unix.Fchmod(s.fd, 0o600); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	return os.NewSyscallError("bind", unix.Bind(s.fd, &unix.SockaddrUnix{Name: s.path}))
}

// FD is for poll(2) and the like: it is readable when a datagram waits.
func (s *Server) FD() int { return s.fd }

// Path is the value for NOTIFY_SOCKET.
func (s *Server) Path() string { return s.path }

// Close closes and removes the socket. It may block as [Server.Skip] does: what
// waits there is dropped.
func (s *Server) Close() error {
	s.Remove()
	return os.NewSyscallError("close", unix.Close(s.fd))
}

// Remove removes the socket, of which the datagrams that wait can still be read.
func (s *Server) Remove() { _ = unix.Unlink(s.path) } // another may have replaced it

// Look reads the next datagram and leaves it in the queue: it has neither
// descriptors nor a pidfd, but reports whether it [Datagram.Carries] any. It does not
// block: the error wraps EAGAIN if none waits. A datagram that is not a notification
// comes with Refused set.
//
// It is for those who do not trust the senders. Who has received a descriptor has to
// close it, and that can block: see [Server.Skip].
func (s *Server) Look(b *Buffer) (Datagram, error) {
	// There is room for the credentials, which come first, and for nothing else: what
	// the kernel drops of a copy is not the last of it.
	const room = 16 + 16
	d, flags, err := s.receive(b, b.oob[:room], unix.MSG_PEEK)
	if err != nil {
		return d, err
	}
	d.Carries = flags&unix.MSG_CTRUNC != 0
	d.judge(flags &^ unix.MSG_CTRUNC)
	if d.Refused == nil && d.Message.Barrier && !d.Carries {
		d.refuse(errors.New("BARRIER=1 without a descriptor"))
	}
	return d, nil
}

// Skip takes the next datagram out of the queue, unread. The error wraps EAGAIN if
// none waits.
//
// If it carries descriptors, the kernel drops them, and that may block for as long as
// the sender likes: the last close(2) of a socket that lingers (SO_LINGER, socket(7))
// waits until its peer has read.
func (s *Server) Skip() error {
	for {
		_, _, _, _, err := unix.Recvmsg(s.fd, nil, nil, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("recvmsg", err)
		}
	}
}

// Receive reads one datagram, which is the caller's to close and keeps nothing of
// the buffer. It waits for no datagram: the error wraps EAGAIN if there is none. A
// datagram that is not a notification comes with Refused set. If there is no room in
// this process's table, the kernel drops descriptors as in [Server.Skip].
func (s *Server) Receive(b *Buffer) (Datagram, error) {
	// ENOPROTOOPT before Linux 6.5. What it adds would look like a descriptor to Look.
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, soPassPIDFD, 1)
	d, flags, err := s.receive(b, b.oob[:], unix.MSG_CMSG_CLOEXEC)
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, soPassPIDFD, 0)
	if err != nil {
		return d, err
	}
	d.judge(flags)
	if d.Refused == nil && d.Message.Barrier && len(d.FDs) != 1 {
		d.refuse(fmt.Errorf("BARRIER=1 with %d descriptors", len(d.FDs)))
	}
	return d, nil
}

// receive reads one datagram, of which nothing has been judged yet.
func (s *Server) receive(b *Buffer, oob []byte, how int) (d Datagram, flags int, err error) {
	d.PIDFD = -1
	for {
		n, oobn, flags, _, err := unix.Recvmsg(s.fd, b.text[:], oob, unix.MSG_DONTWAIT|how)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return d, 0, os.NewSyscallError("recvmsg", err)
		}
		d.take(oob[:oobn])
		d.Message, d.Refused = ParseMessage(b.text[:n])
		return d, flags, nil
	}
}

// judge refuses what did not come whole.
func (d *Datagram) judge(flags int) {
	switch {
	case flags&unix.MSG_TRUNC != 0:
		d.refuse(errLong)
	case flags&unix.MSG_CTRUNC != 0:
		d.refuse(errors.New("not all of the descriptors could be received"))
	case d.PID == 0:
		d.refuse(errors.New("the sender is not known"))
	case d.Refused != nil:
		d.refuse(d.Refused)
	}
}

func (d *Datagram) refuse(why error) { d.Message, d.Refused = Message{}, why }

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
