// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/output/outputtest"
)

// forbidIPv6 makes this thread one of a machine whose kernel has no IPv6.
func forbidIPv6() error {
	runtime.LockOSThread() // it ends with its goroutine, as no other may have it
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	const number, argument = 0, 16 // offsets in struct seccomp_data, the second of the lower half
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	unless := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip}
	}
	answer := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
	}
	filter := []unix.SockFilter{
		load(number), unless(unix.SYS_SOCKET, 3), load(argument), unless(unix.AF_INET6, 1),
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)), answer(unix.SECCOMP_RET_ALLOW),
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// withoutIPv6 runs f where there is no IPv6.
func withoutIPv6(t *testing.T, f func()) {
	t.Helper()
	failed := make(chan error)
	go func() {
		defer close(failed)
		if err := forbidIPv6(); err != nil {
			failed <- err
			return
		}
		f()
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// A port alone is IPv4 where there is no IPv6. What asks for IPv6 is an error that
// names the key.
func TestAddressesWithoutIPv6(t *testing.T) {
	for _, c := range []struct{ file, want, fault string }{
		{`[socket.http]
listen = "18089"`, "0.0.0.0:18089", ""},
		{`[socket.http]
listen = "18089"
type = "datagram"`, "0.0.0.0:18089", ""},
		{`[socket.http]
listen = ["127.0.0.1:18089", "@prefork-test-no-ipv6"]`, "127.0.0.1:18089 @prefork-test-no-ipv6", ""},
		{`[socket.http]
listen = "[::]:18089"`, "", "f.toml: socket.http.listen: [::]:18089: there is no IPv6 here"},
		{`[socket.http]
listen = "[::1]:18089"`, "", "f.toml: socket.http.listen: [::1]:18089: there is no IPv6 here"},
		{`[socket.http]
listen = ["127.0.0.1:18089", "18089"]`, "", "f.toml: socket.http.listen: 18089: there is no IPv6 here"},
	} {
		file, err := fleetfile.Parse("f", "f.toml", []byte(c.file), fleetfile.Host{})
		if err != nil {
			t.Fatal(err)
		}
		log, _ := outputtest.NewLog()
		var ls *Sockets
		withoutIPv6(t, func() { ls, err = Open(file, nil, false, log, poll.Source{}, poll.Source{}) })
		var got []string
		if err == nil {
			for _, l := range ls.Current().Of([]string{"http"}) {
				info, err := sdnotify.Describe(l.FD)
				if got = append(got, info.Address); err != nil {
					t.Error(err)
				}
			}
			ls.Close()
		}
		if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.HasPrefix(err.Error(), c.fault)) {
			t.Errorf("%s:\ngot %v, want %s", c.file, err, c.fault)
		}
		if !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%s:\ngot %q, want %s", c.file, got, c.want)
		}
	}
}

func TestMetricsWithoutIPv6(t *testing.T) {
	for text, fault := range map[string]string{
		"18089":      "",
		"[::]:18089": "metrics.listen: [::]:18089: there is no IPv6 here",
	} {
		file, err := fleetfile.Parse("f", "f.toml", []byte(fmt.Sprintf("[metrics]\nlisten = %q\n", text)), fleetfile.Host{})
		if err != nil {
			t.Fatal(err)
		}
		var listener net.Listener
		withoutIPv6(t, func() { listener, err = ListenMetrics(file.Metrics.Listen) })
		if fault == "" && err != nil || fault != "" && (err == nil || !strings.HasPrefix(err.Error(), fault)) {
			t.Errorf("%s: got %v, want %q", text, err, fault)
		}
		if err == nil {
			_ = listener.Close()
		}
	}
}

// What systemd makes of a port where there is no IPv6 is what the file says.
func TestSystemdListensOnIPv4ForAPort(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "passed")
	defer file.Close()
	if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	info, err := sdnotify.Describe(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(info.Address).Port()
	for text, warns := range map[string]bool{
		fmt.Sprint(port): false, fmt.Sprintf("0.0.0.0:%d", port): false, fmt.Sprintf("[::]:%d", port): true,
	} {
		fleet, err := fleetfile.Parse("f", "f.toml", []byte(fmt.Sprintf("[socket.s]\nlisten = %q\n", text)), fleetfile.Host{})
		if err != nil {
			t.Fatal(err)
		}
		log, said := outputtest.NewLog()
		if _, err := checkPassed(log, fleet, &fleet.Sockets[0], []Socket{{FD: fd, Name: "s"}}); err != nil {
			t.Error(err)
		}
		if len(said.All()) > 0 != warns {
			t.Errorf("%s: %q", text, said.All())
		}
	}
}
