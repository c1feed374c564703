// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
)

func TestDescribeUnix(t *testing.T) {
	dir := t.TempDir()
	abstract := fmt.Sprintf("@sdnotify-describe-%d", os.Getpid())
	tests := []struct {
		address string
		typ     int
	}{
		{filepath.Join(dir, "stream"), unix.SOCK_STREAM},
		{filepath.Join(dir, "seqpacket"), unix.SOCK_SEQPACKET},
		{filepath.Join(dir, "dgram"), unix.SOCK_DGRAM},
		{abstract, unix.SOCK_STREAM},
		{"", unix.SOCK_STREAM},
	}
	for _, test := range tests {
		var address unix.Sockaddr
		if test.address != "" {
			address = &unix.SockaddrUnix{Name: test.address}
		}
		want := sdnotify.SocketInfo{
			Domain: unix.AF_UNIX, Type: test.typ, Address: test.address,
			Listening: address != nil && test.typ != unix.SOCK_DGRAM,
		}
		if got := describe(t, bound(t, unix.AF_UNIX, test.typ, address)); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestDescribeIP(t *testing.T) {
	for _, test := range []struct {
		ip  string
		typ int
	}{
		{"127.0.0.1", unix.SOCK_STREAM},
		{"0.0.0.0", unix.SOCK_STREAM},
		{"127.0.0.1", unix.SOCK_DGRAM},
	} {
		ip := netip.MustParseAddr(test.ip)
		fd := bound(t, unix.AF_INET, test.typ, &unix.SockaddrInet4{Addr: ip.As4()})
		want := sdnotify.SocketInfo{Domain: unix.AF_INET, Type: test.typ, Listening: test.typ == unix.SOCK_STREAM}
		want.IP = netip.AddrPortFrom(ip, portOf(t, fd))
		want.Address = fmt.Sprintf("%s:%d", test.ip, portOf(t, fd))
		if got := describe(t, fd); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestDescribeIPv6(t *testing.T) {
	for _, test := range []struct {
		ip     string
		zone   uint32
		v6only int
		text   string
	}{
		{"::", 0, 0, "[::]"},
		{"::", 0, 1, "[::]"},
		{"::1", 0, 1, "[::1]"},
		{"fe80::77", 1, 1, "[fe80::77%lo]"}, // lo is always the first interface
	} {
		fd := bound(t, unix.AF_INET6, unix.SOCK_STREAM, nil)
		for option, value := range map[int]int{unix.IPV6_V6ONLY: test.v6only, unix.IPV6_FREEBIND: 1} {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, option, value); err != nil {
				t.Fatal(err)
			}
		}
		address := &unix.SockaddrInet6{Addr: netip.MustParseAddr(test.ip).As16(), ZoneId: test.zone}
		if err := unix.Bind(fd, address); err != nil {
			t.Skip(err)
		}
		got := describe(t, fd)
		want := fmt.Sprintf("%s:%d", test.text, portOf(t, fd))
		if got.Address != want || got.IP != netip.MustParseAddrPort(want) {
			t.Errorf("got %s, %v, want %s", got.Address, got.IP, want)
		}
		if got.V6Only != (test.v6only == 1) || got.Listening || got.Domain != unix.AF_INET6 {
			t.Errorf("%s: got %+v", want, got)
		}
	}
}

func TestDescribeOthers(t *testing.T) {
	netlink := bound(t, unix.AF_NETLINK, unix.SOCK_DGRAM, nil)
	want := sdnotify.SocketInfo{Domain: unix.AF_NETLINK, Type: unix.SOCK_DGRAM}
	if got := describe(t, netlink); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := sdnotify.Describe(int(file.Fd())); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("got %v, want ENOTSOCK", err)
	}
	if _, err := sdnotify.Describe(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("got %v, want EBADF", err)
	}
}

func TestJournalStream(t *testing.T) {
	fd := bound(t, unix.AF_UNIX, unix.SOCK_STREAM, nil)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	own := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	for stream, want := range map[string]bool{
		own:                                    true,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false,
		fmt.Sprintf("%d:%d", st.Dev+1, st.Ino): false,
		own + ":1":                             false,
		fmt.Sprint(st.Dev):                     false,
		"":                                     false,
		":":                                    false,
		"-1:-1":                                false,
	} {
		if got := sdnotify.JournalStream(sdnotify.Environment{JournalStream: stream}, fd); got != want {
			t.Errorf("%q: got %t, want %t", stream, got, want)
		}
	}
	if sdnotify.JournalStream(sdnotify.Environment{JournalStream: own}, -1) {
		t.Error("a closed descriptor is not the journal")
	}
}

func describe(t *testing.T, fd int) sdnotify.SocketInfo {
	t.Helper()
	info, err := sdnotify.Describe(fd)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func portOf(t *testing.T, fd int) uint16 {
	t.Helper()
	address, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port)
	case *unix.SockaddrInet6:
		return uint16(a.Port)
	}
	t.Fatalf("%T has no port", address)
	return 0
}
