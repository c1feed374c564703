// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/output"
)

// listener is one socket that is handed down to workers. It is a plain
// descriptor: nothing about its open file description is changed after it was
// taken or bound, since systemd and all workers share that.
type listener struct {
	fd   int
	name string
}

// listeners holds the sockets of a fleet by name, each in the order of its
// addresses.
type listeners struct {
	byName map[string][]listener
	kept   []listener // what slots have stored with an earlier master
	paths  []string   // socket files that were made here and go with the fleet
}

// of returns the sockets of a worker in the order in which it names them.
func (ls *listeners) of(names []string) []listener {
	var all []listener
	for _, name := range names {
		all = append(all, ls.byName[name]...)
	}
	return all
}

func (ls *listeners) close() {
	for _, of := range ls.byName {
		for _, l := range of {
			_ = unix.Close(l.fd) // nothing was written
		}
	}
	for _, k := range ls.kept {
		_ = unix.Close(k.fd) // systemd has its own
	}
	for _, path := range ls.paths {
		_ = unix.Unlink(path) // another fleet may have replaced it already
	}
	*ls = listeners{}
}

// openListeners takes the sockets that systemd passed and binds the others.
func openListeners(opts Options, managed bool) (*listeners, error) {
	ls := &listeners{byName: map[string][]listener{}}
	if err := ls.open(opts, managed); err != nil {
		ls.close()
		return nil, err
	}
	return ls, nil
}

func (ls *listeners) open(opts Options, managed bool) error {
	if err := ls.take(opts); err != nil {
		return err
	}
	for i := range opts.File.Sockets {
		s := &opts.File.Sockets[i]
		if passed := ls.byName[s.Name]; passed != nil {
			if err := checkPassed(opts.Log, s, passed); err != nil {
				return err
			}
			continue
		}
		if managed {
			opts.Log.Warn(fmt.Sprintf("socket %s: systemd did not pass it, so it is bound here and connections are refused while this service restarts; "+
				"a socket unit with FileDescriptorName=%s and Service=prefork@%s.service keeps them (systemctl start prefork-%s:%s.socket)",
				s.Name, s.Name, opts.File.Name, opts.File.Name, s.Name))
		}
		if err := ls.bind(s); err != nil {
			return fmt.Errorf("%s: %w", opts.File.Path, err)
		}
	}
	return nil
}

// take sorts what systemd passed by name, and closes what the file does not
// know.
func (ls *listeners) take(opts Options) error {
	passed, err := sdnotify.Listeners(opts.Env)
	if err != nil {
		return fmt.Errorf("sockets from systemd: %w", err)
	}
	for _, a := range passed {
		if strings.HasPrefix(a.Name, keptPrefix) {
			ls.kept = append(ls.kept, listener{fd: a.FD, name: a.Name})
			continue
		}
		known := slices.ContainsFunc(opts.File.Sockets, func(s fleetfile.Socket) bool { return s.Name == a.Name })
		if !known {
			opts.Log.Warn(fmt.Sprintf("systemd passed a socket named %q, which %s does not declare; closed: "+
				"add [socket.%s] or correct FileDescriptorName=", a.Name, opts.File.Path, a.Name))
			_ = unix.Close(a.FD) // not wanted
			continue
		}
		ls.byName[a.Name] = append(ls.byName[a.Name], listener{fd: a.FD, name: a.Name})
	}
	return nil
}

var sockTypes = map[fleetfile.SocketType]int{
	fleetfile.Stream: unix.SOCK_STREAM, fleetfile.Datagram: unix.SOCK_DGRAM, fleetfile.Seqpacket: unix.SOCK_SEQPACKET,
}

// checkPassed compares what systemd passed with the file. A wrong type cannot
// work; of different addresses systemd's win, as clients already use them.
func checkPassed(log *output.Log, s *fleetfile.Socket, passed []listener) error {
	var got []string
	for _, l := range passed {
		info, err := sdnotify.Describe(l.fd)
		if err != nil {
			return fmt.Errorf("socket %s, from systemd: %w", s.Name, err)
		}
		if info.Type != sockTypes[s.Type] || info.Type != unix.SOCK_DGRAM && !info.Listening {
			return fmt.Errorf("socket %s, from systemd: %s is not a listening %s socket: "+
				"correct its socket unit or socket.%s.type", s.Name, info.Address, s.Type, s.Name)
		}
		got = append(got, info.Address)
	}
	var want []string
	for _, a := range s.Listen {
		if a.IsPort() && !a.V6Only && slices.Contains(got, ipv4(a).String()) {
			a.IP = ipv4(a) // systemd, too, found a kernel without IPv6
		}
		want = append(want, canonical(a))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		log.Warn(fmt.Sprintf("socket %s: systemd listens on %s, the fleet file says %s; systemd's is used: "+
			"change one of the two, then systemctl daemon-reload and restart the socket unit",
			s.Name, strings.Join(got, ", "), strings.Join(want, ", ")))
	}
	return nil
}

func canonical(a fleetfile.Address) string {
	if a.Unix != "" {
		return a.Unix
	}
	return a.IP.String()
}

// bind makes the sockets of one [socket.*] table.
func (ls *listeners) bind(s *fleetfile.Socket) error {
	for _, a := range s.Listen {
		fd, err := bindOne(s, a)
		if err != nil {
			return fmt.Errorf("socket.%s.listen: %s: %w; %s", s.Name, a.Text, err, listenRemedy(err))
		}
		ls.byName[s.Name] = append(ls.byName[s.Name], listener{fd: fd, name: s.Name})
		if strings.HasPrefix(a.Unix, "/") {
			ls.paths = append(ls.paths, a.Unix)
		}
	}
	return nil
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

// bindAddress binds; the file of a Unix socket never has wider rights than it
// is to have.
func bindAddress(fd int, s *fleetfile.Socket, a fleetfile.Address, address unix.Sockaddr) error {
	if !strings.HasPrefix(a.Unix, "/") {
		return os.NewSyscallError("bind", unix.Bind(fd, address))
	}
	uid, gid, err := socketOwner(s)
	if err != nil {
		return err
	}
	if err := removeStale(a.Unix, sockTypes[s.Type]); err != nil {
		return err
	}
	old := unix.Umask(int(0o777 &^ s.Mode))
	err = unix.Bind(fd, address)
	unix.Umask(old)
	if err != nil {
		return os.NewSyscallError("bind", err)
	}
	if uid < 0 && gid < 0 {
		return nil
	}
	if err := unix.Lchown(a.Unix, uid, gid); err != nil {
		_ = unix.Unlink(a.Unix) // it was made just now
		return &os.PathError{Op: "chown", Path: a.Unix, Err: err}
	}
	return nil
}

// removeStale removes a socket file that nobody listens on. Anything else that
// stands there stays, and is an error.
func removeStale(path string, sockType int) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return errors.New("the file exists and is not a socket: remove it, or listen elsewhere")
	}
	fd, err := unix.Socket(unix.AF_UNIX, sockType|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer linux.CloseFD(&fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	if errors.Is(err, unix.ECONNREFUSED) {
		return os.Remove(path)
	}
	return fmt.Errorf("another process listens there: %w", unix.EADDRINUSE)
}

func socketOwner(s *fleetfile.Socket) (uid, gid int, err error) {
	uid, gid = -1, -1
	if s.User != "" {
		if uid, err = strconv.Atoi(s.User); err != nil {
			u, err := user.Lookup(s.User)
			if err != nil {
				return 0, 0, fmt.Errorf("user %s does not exist", s.User)
			}
			uid, _ = strconv.Atoi(u.Uid)
		}
	}
	if s.Group != "" {
		if gid, err = strconv.Atoi(s.Group); err != nil {
			g, err := user.LookupGroup(s.Group)
			if err != nil {
				return 0, 0, fmt.Errorf("group %s does not exist", s.Group)
			}
			gid, _ = strconv.Atoi(g.Gid)
		}
	}
	return uid, gid, nil
}
