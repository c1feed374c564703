// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// SocketInfo is what a socket says about itself.
type SocketInfo struct {
	Domain    int  // unix.AF_INET, AF_INET6, AF_UNIX...
	Type      int  // unix.SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET...
	Listening bool // it accepts connections
	V6Only    bool // an IPv6 socket that leaves IPv4 alone; only [::] has the choice

	// Address is the socket's own, written as in a fleet file: "0.0.0.0:8080",
	// "[::]:8080", "[fe80::1%eth0]:8080", "/run/x.sock", "@abstract". It is ""
	// for a socket without a name and for other domains.
	Address string
	IP      netip.AddrPort // the same, for IPv4 and IPv6
}

// Describe asks the socket at fd what it is and changes nothing about it. It
// does not block. For what is not a socket the error is ENOTSOCK.
func Describe(fd int) (SocketInfo, error) {
	info, err := describe(fd)
	if err != nil {
		return SocketInfo{}, fmt.Errorf("fd %d: %w", fd, err)
	}
	return info, nil
}

func describe(fd int) (info SocketInfo, err error) {
	get := func(level, option int) (value int) {
		if err == nil {
			value, err = unix.GetsockoptInt(fd, level, option)
			err = os.NewSyscallError("getsockopt", err)
		}
		return value
	}
	info.Domain = get(unix.SOL_SOCKET, unix.SO_DOMAIN)
	info.Type = get(unix.SOL_SOCKET, unix.SO_TYPE)
	info.Listening = get(unix.SOL_SOCKET, unix.SO_ACCEPTCONN) != 0
	if info.Domain == unix.AF_INET6 {
		info.V6Only = get(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) != 0
	}
	if err != nil {
		return info, err
	}
	address, err := unix.Getsockname(fd)
	if err != nil {
		return info, os.NewSyscallError("getsockname", err)
	}
	info.setAddress(fd, address)
	return info, nil
}

func (i *SocketInfo) setAddress(fd int, address unix.Sockaddr) {
	switch a := address.(type) {
	case *unix.SockaddrUnix:
		if a.Name != "@" { // what x/sys makes of a socket without a name
			i.Address = a.Name
		}
	case *unix.SockaddrInet4:
		i.setIP(netip.AddrFrom4(a.Addr), a.Port)
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(a.Addr)
		if a.ZoneId != 0 {
			ip = ip.WithZone(interfaceName(fd, a.ZoneId))
		}
		i.setIP(ip, a.Port)
	}
}

func (i *SocketInfo) setIP(ip netip.Addr, port int) {
	i.IP = netip.AddrPortFrom(ip, uint16(port))
	i.Address = i.IP.String()
}

// interfaceName asks through any socket for the name of a network interface. One
// that is gone is called by its number.
func interfaceName(fd int, index uint32) string {
	request, err := unix.NewIfreq("unknown")
	if err == nil {
		request.SetUint32(index)
		err = unix.IoctlIfreq(fd, unix.SIOCGIFNAME, request)
	}
	if err != nil {
		return strconv.FormatUint(uint64(index), 10)
	}
	return request.Name()
}
