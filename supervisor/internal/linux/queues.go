// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stateListen is that of a socket that accepts connections (TCP_LISTEN), of a Unix socket too.
const stateListen = 10

// AcceptQueue is how many connections to a listening TCP socket have not been accepted,
// and how many may be: one more than that is let in. The kernel tells it of the
// descriptor, in whatever network namespace the socket is: tcpi_unacked and tcpi_sacked
// of TCP_INFO are aliased for listeners, as ss(8) reads them.
func AcceptQueue(fd int) (length, limit uint32, err error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	switch {
	case err != nil:
		return 0, 0, os.NewSyscallError("getsockopt TCP_INFO", err)
	case info.State != stateListen:
		return 0, 0, errors.New("getsockopt TCP_INFO: the socket does not listen")
	}
	return info.Unacked, info.Sacked, nil
}

// SocketMemory is what SO_MEMINFO tells of a socket.
type SocketMemory struct {
	Received uint32 // bytes that wait to be read, with what the kernel needs for them
	Limit    uint32 // of those (SO_RCVBUF)
	Drops    uint32 // what was not let in for want of room; it wraps around
}

// MemoryOf asks for it.
func MemoryOf(fd int) (SocketMemory, error) {
	const receiveAlloc, receiveBuffer, drops, count = 0, 1, 8, 9 // SK_MEMINFO_* of linux/sock_diag.h
	var info [count]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	switch {
	case errno != 0:
		return SocketMemory{}, os.NewSyscallError("getsockopt SO_MEMINFO", errno)
	case size < uint32(unsafe.Sizeof(info)):
		return SocketMemory{}, fmt.Errorf("getsockopt SO_MEMINFO: it has %d bytes only", size)
	}
	return SocketMemory{info[receiveAlloc], info[receiveBuffer], info[drops]}, nil
}

// UnixDiag asks the kernel for the queues of Unix sockets, of which no getsockopt tells
// (sock_diag(7)). Its owner closes it.
type UnixDiag struct {
	fd  int
	seq uint32
}

// OpenUnixDiag opens it. To ask the first time may wait for a module of the kernel
// (unix_diag).
func OpenUnixDiag() (*UnixDiag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket AF_NETLINK", err)
	}
	return &UnixDiag{fd: fd}, nil
}

// Close closes it.
func (d *UnixDiag) Close() { CloseFD(&d.fd) }

// The parts of linux/netlink.h, linux/sock_diag.h and linux/unix_diag.h that are needed.
const (
	headerSize       = 16
	unixRequestSize  = headerSize + 24
	unixMessageSize  = headerSize + 16
	sockDiagByFamily = 20
	showQueue        = 0x10 // UDIAG_SHOW_RQLEN
	attributeQueue   = 4    // UNIX_DIAG_RQLEN
)

// AcceptQueue is that of a listening Unix socket. A socket of another network namespace
// than this process had when it opened d is not found; it is never taken for another one:
// the kernel compares its inode and its cookie (SO_COOKIE). It does not block.
func (d *UnixDiag) AcceptQueue(fd int) (length, limit uint32, err error) {
	request, err := d.request(fd)
	if err != nil {
		return 0, 0, err
	}
	if err := retry(func() error { return unix.Sendto(d.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) }); err != nil {
		return 0, 0, os.NewSyscallError("sendto NETLINK_SOCK_DIAG", err)
	}
	var buf [4096]byte
	for {
		var n int
		err := retry(func() (err error) {
			n, _, err = unix.Recvfrom(d.fd, buf[:], unix.MSG_DONTWAIT) // it was answered within sendto
			return err
		})
		if err != nil {
			return 0, 0, os.NewSyscallError("recvfrom NETLINK_SOCK_DIAG", err)
		}
		if m := buf[:n]; n >= headerSize && binary.NativeEndian.Uint32(m[8:]) == d.seq {
			return unixQueue(m)
		}
	}
}

func (d *UnixDiag) request(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt SO_COOKIE", err)
	}
	d.seq++
	b := binary.NativeEndian.AppendUint32(make([]byte, 0, unixRequestSize), unixRequestSize)
	b = binary.NativeEndian.AppendUint16(b, sockDiagByFamily)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, d.seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // the kernel
	b = append(b, unix.AF_UNIX, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, 0) // states: of one socket they do not matter
	b = binary.NativeEndian.AppendUint32(b, uint32(st.Ino))
	b = binary.NativeEndian.AppendUint32(b, showQueue)
	b = binary.NativeEndian.AppendUint32(b, uint32(cookie))
	return binary.NativeEndian.AppendUint32(b, uint32(cookie>>32)), nil
}

// unixQueue reads an answer.
func unixQueue(m []byte) (length, limit uint32, err error) {
	const what = "NETLINK_SOCK_DIAG"
	switch kind := binary.NativeEndian.Uint16(m[4:]); {
	case kind == unix.NLMSG_ERROR && len(m) >= headerSize+4:
		return 0, 0, os.NewSyscallError(what, unix.Errno(-int32(binary.NativeEndian.Uint32(m[headerSize:]))))
	case kind != sockDiagByFamily || len(m) < unixMessageSize:
		return 0, 0, fmt.Errorf("%s: unexpected answer of type %d, %d bytes", what, kind, len(m))
	case m[headerSize+2] != stateListen:
		return 0, 0, fmt.Errorf("%s: the socket does not listen", what)
	}
	for rest := m[unixMessageSize:]; len(rest) >= 4; {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < 4 || size > len(rest) {
			break
		}
		if binary.NativeEndian.Uint16(rest[2:]) == attributeQueue && size >= 12 {
			return binary.NativeEndian.Uint32(rest[4:]), binary.NativeEndian.Uint32(rest[8:]), nil
		}
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	return 0, 0, fmt.Errorf("%s: it does not tell the queue", what)
}
