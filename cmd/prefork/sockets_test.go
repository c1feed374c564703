// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAddressInUse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // a test's
	r := start(t, fmt.Sprintf("[socket.s]\nlisten = %q\n[worker.a]\nexec = [\"true\"]\nsockets = [\"s\"]\n", listener.Addr()))
	if code := r.wait(); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	if want := fmt.Sprintf("ERRNO=%d", unix.EADDRINUSE); !slices.Contains(r.notifications(), want) {
		t.Errorf("%s was not sent: %v", want, r.notifications())
	}
	if !strings.Contains(r.logged(), listener.Addr().String()) {
		t.Error("the log does not name the address")
	}
}

// All kinds of addresses are bound, served and, if they are files, removed.
func TestListenersAreBound(t *testing.T) {
	port := func() int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // a test's
		return l.Addr().(*net.TCPAddr).Port
	}
	a, b := port(), port()
	r := prepare(t, fmt.Sprintf(`
[floor]
path = ["DIR"]
preload = ["app"]
[socket.tcp]
listen = ["127.0.0.1:%d", "[::1]:%d", "[::]:%d", "0.0.0.0:%d"]
[socket.unix]
listen = ["DIR/u.sock", "@prefork-test-%d"]
mode = "0600"
[socket.udp]
listen = "127.0.0.1:%d"
type = "datagram"
[worker.w]
entry = "app:look"
sockets = ["tcp", "unix", "udp"]
`, a, a, b, b, os.Getpid(), a))
	// A stale file of a run that was killed is no obstacle.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.path("u.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	r.start()
	n := r.waitNotes(1)[0]
	if got := n.Environ["LISTEN_FDNAMES"]; got != "tcp:tcp:tcp:tcp:unix:unix:udp" {
		t.Errorf("LISTEN_FDNAMES is %s", got)
	}
	for _, address := range [][2]string{
		{"tcp", fmt.Sprintf("127.0.0.1:%d", a)},
		{"tcp", fmt.Sprintf("[::1]:%d", a)},
		{"tcp", fmt.Sprintf("127.0.0.1:%d", b)},
		{"tcp", fmt.Sprintf("[::1]:%d", b)},
		{"unix", r.path("u.sock")},
		{"unix", fmt.Sprintf("@prefork-test-%d", os.Getpid())},
	} {
		conn, err := net.Dial(address[0], address[1])
		if err != nil {
			t.Errorf("%s: %v", address[1], err)
			continue
		}
		_ = conn.Close()
	}
	if info, err := os.Stat(r.path("u.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket file: %v %v, want mode 0600", info, err)
	}
	r.signal(unix.SIGTERM)
	r.wait()
	if _, err := os.Stat(r.path("u.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket file is left: %v", err)
	}
}

// What systemd passes and what the file says need not agree.
func TestPassedSockets(t *testing.T) {
	stream := func(t *testing.T) *os.File {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	datagram := func(t *testing.T) *os.File {
		l, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	const worker = "[worker.w]\nexec = [\"sleep\", \"987680\"]\n"
	for name, c := range map[string]struct {
		file  string
		names string
		pass  func(*testing.T) *os.File
		ready bool
		log   string
	}{
		"another address":  {"[socket.s]\nlisten = \"127.0.0.1:1\"\n" + worker, "s", stream, true, "127.0.0.1:1"},
		"not declared":     {worker, "other", stream, true, "other"},
		"wrong type":       {"[socket.s]\nlisten = \"127.0.0.1:1\"\n" + worker, "s", datagram, false, "socket.s.type"},
		"wrong name count": {worker, "a:b", stream, false, "LISTEN_FDNAMES"},
	} {
		t.Run(name, func(t *testing.T) {
			r := prepare(t, c.file)
			r.cmd.ExtraFiles = []*os.File{c.pass(t)}
			r.cmd.Path, r.cmd.Args = "/bin/sh", []string{"sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=" + c.names + " exec \"$0\" \"$@\"", self(t), "run", r.path("fleet.toml")}
			r.start()
			if c.ready {
				r.waitReady()
			} else if code := r.wait(); code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
			if !strings.Contains(r.logged(), c.log) {
				t.Errorf("the log does not mention %s", c.log)
			}
		})
	}
}
