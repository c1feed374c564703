// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Seqpacket returns a pair of connected SOCK_SEQPACKET sockets, both
// close-on-exec and blocking. Ours is for [Receive]: it gets the sender's
// credentials with each message.
func Seqpacket() (ours, theirs int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	if err := PassCred(pair[0]); err != nil {
		_, _ = unix.Close(pair[0]), unix.Close(pair[1]) // the error that matters is err
		return -1, -1, err
	}
	return pair[0], pair[1], nil
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

// Receive reads one message into buf and the pid of its sender, 0 if none came
// with it. It does not block. fd must be one of those that pass credentials:
// they take all the room that there is, so that the kernel drops descriptors
// that the other side tries to push into this process.
//
// io.EOF is the end of the connection. An empty message carries credentials and
// so is not taken for it. Messages of a process that ended without reading its
// own are read before that.
func Receive(fd int, buf []byte) (n, pid int, err error) {
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	var oobn, flags int
	receive := func() (err error) {
		n, oobn, flags, _, err = unix.Recvmsg(fd, buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		return err
	}
	err = retry(receive)
	if errors.Is(err, unix.ECONNRESET) {
		err = retry(receive) // it is told once, and before what is in the queue
	}
	switch {
	case err != nil:
		return 0, 0, os.NewSyscallError("recvmsg", err)
	case n == 0 && oobn == 0:
		return 0, 0, io.EOF
	case flags&unix.MSG_TRUNC != 0:
		return n, 0, errors.New("recvmsg: the message is longer than any that is meant")
	}
	return n, sender(oob[:oobn]), nil
}

func sender(oob []byte) (pid int) {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for i := range cmsgs {
		if cred, err := unix.ParseUnixCredentials(&cmsgs[i]); err == nil {
			pid = int(cred.Pid)
		}
	}
	return pid
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
