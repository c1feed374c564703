// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

var sockTypes = map[fleetfile.SocketType]int{
	fleetfile.Stream: unix.SOCK_STREAM, fleetfile.Datagram: unix.SOCK_DGRAM, fleetfile.Seqpacket: unix.SOCK_SEQPACKET,
}

// bindOne binds a port alone for IPv4 only where the kernel has no IPv6. Other
// IPv6 addresses mean what they say, and so does a port whose IPv4 is another's.
func bindOne(s *fleetfile.Socket, a fleetfile.Address) (int, error) {
	fd, err := bindAs(s, a)
	if !lacksIPv6(err) || !a.IP.Addr().Is6() {
		return fd, err
	}
	if a.IsPort() && !a.V6Only {
		a.IP = ipv4(a)
		return bindAs(s, a)
	}
	return -1, errNoIPv6
}

// errNoIPv6 comes of a kernel without it, and of a unit or container whose filter
// refuses it.
var errNoIPv6 = fmt.Errorf("there is no IPv6 here: %w", unix.EAFNOSUPPORT)

func lacksIPv6(err error) bool { return errors.Is(err, unix.EAFNOSUPPORT) }

// ipv4 is the address of a port alone where there is no IPv6.
func ipv4(a fleetfile.Address) netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), a.IP.Port())
}

func bindAs(s *fleetfile.Socket, a fleetfile.Address) (int, error) {
	domain, address, err := sockaddr(a)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(domain, sockTypes[s.Type]|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := prepareSocket(fd, domain, s, a, address); err != nil {
		linux.CloseFD(&fd)
		return -1, err
	}
	return fd, nil
}

func prepareSocket(fd, domain int, s *fleetfile.Socket, a fleetfile.Address, address unix.Sockaddr) error {
	if err := setOptions(fd, domain, s, a); err != nil {
		return err
	}
	if err := bindAddress(fd, s, a, address); err != nil {
		return err
	}
	if s.Type == fleetfile.Datagram {
		return nil
	}
	return os.NewSyscallError("listen", unix.Listen(fd, s.Backlog))
}

func setOptions(fd, domain int, s *fleetfile.Socket, a fleetfile.Address) error {
	if domain == unix.AF_UNIX {
		return nil
	}
	if s.Type == fleetfile.Stream {
		// Connections of the last run may still be in TIME_WAIT (socket(7)).
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return os.NewSyscallError("setsockopt SO_REUSEADDR", err)
		}
	}
	if s.ReusePort {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return os.NewSyscallError("setsockopt SO_REUSEPORT", err)
		}
	}
	if s.FreeBind { // for IPv6 too (ip(7))
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1); err != nil {
			return os.NewSyscallError("setsockopt IP_FREEBIND", err)
		}
	}
	if domain == unix.AF_INET6 {
		only := 0
		if a.V6Only {
			only = 1
		}
		return os.NewSyscallError("setsockopt IPV6_V6ONLY",
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only))
	}
	return nil
}

func sockaddr(a fleetfile.Address) (domain int, address unix.Sockaddr, err error) {
	if a.Unix != "" {
		return unix.AF_UNIX, &unix.SockaddrUnix{Name: a.Unix}, nil
	}
	ip, port := a.IP.Addr(), int(a.IP.Port())
	if ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: ip.As4()}, nil
	}
	in6 := &unix.SockaddrInet6{Port: port, Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		nic, err := net.InterfaceByName(zone)
		if err != nil {
			return 0, nil, fmt.Errorf("interface %s: %w", zone, err)
		}
		in6.ZoneId = uint32(nic.Index)
	}
	return unix.AF_INET6, in6, nil
}

// remedy is what an operator can do about it.
func remedy(err error, a fleetfile.Address, t fleetfile.SocketType) string {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		if who := holderOf(a, t); who != "" {
			return "listen elsewhere, or stop who listens there: " + who
		}
		return "listen elsewhere, or stop who listens there (ss -lnp)"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "listen where this user may, such as a port above 1023"
	case lacksIPv6(err):
		return "listen on IPv4 (0.0.0.0:PORT), or on PORT alone, which takes what there is; where IPv4 is listed already, remove this one"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "listen on an address that this machine has, such as 127.0.0.1"
	}
	return "listen elsewhere"
}
