// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Seqpacket returns a pair of connected SOCK_SEQPACKET sockets, both
// close-on-exec and blocking. Ours is for [Receive]: it gets the sender's
// credentials with each message and, where the kernel knows that, no descriptors.
func Seqpacket() (ours, theirs int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	if err := PassCred(pair[0]); err != nil {
		_, _ = unix.Close(pair[0]), unix.Close(pair[1]) // the error that matters is err
		return -1, -1, err
	}
	RefuseRights(pair[0])
	return pair[0], pair[1], nil
}

// OneWay returns a pair of connected SOCK_SEQPACKET sockets, both close-on-exec. Only ours
// can send, a few messages before they are read: what is theirs is a stranger's, and can
// send nothing that ours would have to close.
func OneWay() (ours, theirs int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	err = os.NewSyscallError("shutdown", unix.Shutdown(pair[0], unix.SHUT_RD))
	if err == nil { // the kernel makes the least of it that there is
		err = os.NewSyscallError("setsockopt SO_SNDBUF", unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 1))
	}
	if err != nil {
		_, _ = unix.Close(pair[0]), unix.Close(pair[1]) // the error that matters is err
		return -1, -1, err
	}
	return pair[0], pair[1], nil
}

// RefuseRights has the kernel refuse whoever sends a descriptor to a socket, and to
// those that it accepts (SO_PASSRIGHTS). Before Linux 6.16 nothing changes.
func RefuseRights(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0) // ENOPROTOOPT
}

// PassCred asks the kernel to attach the sender's credentials to each message
// that is received (SO_PASSCRED, unix(7)).
func PassCred(fd int) error {
	return os.NewSyscallError("setsockopt SO_PASSCRED",
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
}

// Send sends one message with descriptors. It does not block: EAGAIN means that
// the other side does not read.
func Send(fd int, msg []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return os.NewSyscallError("sendmsg", retry(func() error {
		return unix.Sendmsg(fd, msg, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}))
}

// ErrRights is of a message that carries descriptors where none are taken. It stays
// in the queue: the kernel would drop them, and the last close(2) of one can block
// for as long as its sender likes (SO_LINGER, socket(7)).
var ErrRights = errors.New("recvmsg: the message carries descriptors")

// ErrUnread is the end of a connection whose other side has not read all that it was sent.
// It is an io.EOF, too.
var ErrUnread = fmt.Errorf("recvmsg: what was sent has not been read: %w", io.EOF)

// Receive reads one message into buf, and its sender, whose pid is 0 if none came
// with it. It does not block, whatever was sent. fd must be one of those that pass
// credentials.
//
// io.EOF is the end of the connection. An empty message carries credentials and
// so is not taken for it. Messages of a process that ended without reading its
// own are read before that; if there were none, it is ErrUnread.
func Receive(fd int, buf []byte) (n int, from unix.Ucred, err error) {
	n, from, flags, err := peek(fd, buf)
	switch {
	case err != nil:
		return 0, from, err
	case flags&unix.MSG_CTRUNC != 0:
		return 0, from, ErrRights
	}
	// The rest of it goes: there is no room for any.
	if err := retry(func() error {
		_, _, _, _, err := unix.Recvmsg(fd, nil, nil, unix.MSG_DONTWAIT)
		return err
	}); err != nil {
		return 0, from, os.NewSyscallError("recvmsg", err)
	}
	if flags&unix.MSG_TRUNC != 0 {
		return n, unix.Ucred{}, errors.New("recvmsg: the message is longer than any that is meant")
	}
	return n, from, nil
}

// peek reads a message and leaves it in the queue. The credentials take all the room
// that there is: MSG_CTRUNC tells of descriptors. What the kernel drops of a copy is
// not the last of it.
func peek(fd int, buf []byte) (n int, from unix.Ucred, flags int, err error) {
	var oob [16 + 16]byte // CMSG_SPACE(SizeofUcred)
	var oobn int
	receive := func() (err error) {
		n, oobn, flags, _, err = unix.Recvmsg(fd, buf, oob[:], unix.MSG_DONTWAIT|unix.MSG_PEEK)
		return err
	}
	err = retry(receive)
	reset := errors.Is(err, unix.ECONNRESET)
	if reset {
		err = retry(receive) // it is told once, and before what is in the queue
	}
	switch {
	case err != nil:
		return 0, from, 0, os.NewSyscallError("recvmsg", err)
	case n == 0 && oobn == 0 && reset:
		return 0, from, 0, ErrUnread
	case n == 0 && oobn == 0:
		return 0, from, 0, io.EOF
	}
	return n, sender(oob[:oobn]), flags, nil
}

func sender(oob []byte) (from unix.Ucred) {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return from
	}
	for i := range cmsgs {
		if cred, err := unix.ParseUnixCredentials(&cmsgs[i]); err == nil {
			from = *cred
		}
	}
	return from
}

// Drained reports whether nothing waits in a socket that is for [Receive], and nothing
// ever will: its other side cannot send any more. To close it cannot block then.
func Drained(fd int) bool {
	_ = unix.Shutdown(fd, unix.SHUT_RD) // ENOTCONN: it is
	_, _, _, err := peek(fd, nil)
	return errors.Is(err, io.EOF)
}

// ReceiveFDs blocks until one message comes, and returns it with its
// descriptors, which are close-on-exec and the caller's. io.EOF is the end of
// the connection.
func ReceiveFDs(fd int, buf []byte, most int) (n int, fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(4*most))
	var oobn, flags int
	err = retry(func() (err error) {
		n, oobn, flags, _, err = unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return 0, nil, os.NewSyscallError("recvmsg", err)
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, nil, os.NewSyscallError("recvmsg", err)
	}
	for i := range cmsgs {
		if rights, err := unix.ParseUnixRights(&cmsgs[i]); err == nil {
			fds = append(fds, rights...)
		}
	}
	switch {
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		for _, fd := range fds {
			_ = unix.Close(fd) // not wanted
		}
		return 0, nil, errors.New("recvmsg: the message was cut off")
	case n == 0 && oobn == 0:
		return 0, nil, io.EOF
	}
	return n, fds, nil
}
