// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/output/outputtest"
)

func unixSocket(name string, kind fleetfile.SocketType, paths ...string) fleetfile.Socket {
	s := fleetfile.Socket{Name: name, Type: kind, Backlog: 16, Mode: 0o660}
	for _, path := range paths {
		s.Listen = append(s.Listen, fleetfile.Address{Text: path, Unix: path})
	}
	return s
}

// socket makes a socket of this type that is bound to a path, and listens.
func socket(t *testing.T, kind int, path string, listening bool) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { _ = file.Close() })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if listening {
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func TestRemoveStaleRemovesOnlyWhatNobodyUses(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		_ = socket(t, kind, path(fmt.Sprint("stale", kind)), kind != unix.SOCK_DGRAM).Close()
		socket(t, kind, path(fmt.Sprint("live", kind)), kind != unix.SOCK_DGRAM)
	}
	if err := os.WriteFile(path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path("stale1"), path("link")); err != nil {
		t.Fatal(err)
	}
	full := socket(t, unix.SOCK_STREAM, path("full"), true)
	for range 4 { // nobody accepts: the queue of one and a half is full
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		_ = unix.Connect(fd, &unix.SockaddrUnix{Name: full.Name()}) // EAGAIN in the end
	}
	before := testutil.OpenFDs()
	for _, c := range []struct {
		name  string
		kind  int
		gone  bool // afterwards
		inUse bool
		ok    bool
	}{
		{"none", unix.SOCK_STREAM, true, false, true},
		{"file", unix.SOCK_STREAM, false, false, false},
		{"link", unix.SOCK_STREAM, false, false, false},
		{"full", unix.SOCK_STREAM, false, true, false},
		{"live1", unix.SOCK_STREAM, false, true, false},
		{"live2", unix.SOCK_DGRAM, false, true, false},
		{"live5", unix.SOCK_SEQPACKET, false, true, false},
		{"live2", unix.SOCK_STREAM, false, true, false},
		{"live1", unix.SOCK_DGRAM, false, true, false},
		{"stale1", unix.SOCK_STREAM, true, false, true},
		{"stale2", unix.SOCK_DGRAM, true, false, true},
		{"stale5", unix.SOCK_SEQPACKET, true, false, true},
	} {
		err := removeStale(path(c.name), c.kind)
		if (err == nil) != c.ok || errors.Is(err, unix.EADDRINUSE) != c.inUse {
			t.Errorf("%s as type %d: got %v", c.name, c.kind, err)
		}
		if _, err := os.Lstat(path(c.name)); errors.Is(err, os.ErrNotExist) != c.gone {
			t.Errorf("%s as type %d: afterwards: %v", c.name, c.kind, err)
		}
	}
	if after := testutil.OpenFDs(); after != before {
		t.Errorf("open descriptors: got %s, want %s", after, before)
	}
}

func TestCheckPassed(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	first, second := socket(t, unix.SOCK_STREAM, one, true), socket(t, unix.SOCK_STREAM, two, true)
	datagram := socket(t, unix.SOCK_DGRAM, filepath.Join(dir, "dgram"), false)
	deaf := socket(t, unix.SOCK_STREAM, filepath.Join(dir, "deaf"), false)
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, c := range []struct {
		name   string
		socket fleetfile.Socket
		passed []*os.File
		ok     bool
		warns  bool
	}{
		{"as in the file", unixSocket("http", fleetfile.Stream, one, two), []*os.File{first, second}, true, false},
		{"in another order", unixSocket("http", fleetfile.Stream, one, two), []*os.File{second, first}, true, false},
		{"at another address", unixSocket("http", fleetfile.Stream, one), []*os.File{second}, true, true},
		{"fewer", unixSocket("http", fleetfile.Stream, one, two), []*os.File{second}, true, true},
		{"more", unixSocket("http", fleetfile.Stream, one), []*os.File{first, second}, true, true},
		{"a datagram socket", unixSocket("http", fleetfile.Datagram, datagram.Name()), []*os.File{datagram}, true, false},
		{"of another type", unixSocket("http", fleetfile.Stream, datagram.Name()), []*os.File{datagram}, false, false},
		{"one of them of another type", unixSocket("http", fleetfile.Stream, one), []*os.File{first, datagram}, false, false},
		{"not listening", unixSocket("http", fleetfile.Stream, deaf.Name()), []*os.File{deaf}, false, false},
		{"no socket", unixSocket("http", fleetfile.Stream, one), []*os.File{file}, false, false},
	} {
		log, said := outputtest.NewLog()
		var passed []Socket
		for _, file := range c.passed {
			passed = append(passed, Socket{FD: int(file.Fd()), Name: "http"})
		}
		_, err := checkPassed(log, &fleetfile.File{Name: "f"}, &c.socket, passed)
		if (err == nil) != c.ok || len(said.All()) > 0 != c.warns {
			t.Errorf("%s: got %v and %q", c.name, err, said.All())
		}
		if err != nil && !strings.HasPrefix(err.Error(), "socket http, from systemd: ") {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

// socketsChild is given two sockets, of which the fleet declares one.
func socketsChild() {
	log := output.NewLog(sdnotify.Environment{}, false)
	pid := fmt.Sprint(os.Getpid())
	file := &fleetfile.File{Name: "f", Path: "f.toml", Sockets: []fleetfile.Socket{
		unixSocket("bound", fleetfile.Stream, os.Getenv("BOUND")), unixSocket("http", fleetfile.Stream, os.Getenv("PASSED")),
	}}
	passed, err := sdnotify.Listeners(sdnotify.Environment{
		PID: os.Getpid(), ListenPID: pid, ListenFDs: "2", ListenFDNames: "http:extra",
	})
	fmt.Println(err)
	ls, err := Open(file, passed, true, log, poll.Source{}, poll.Source{})
	fmt.Println(err)
	for _, l := range ls.Current().Of([]string{"http", "bound", "extra"}) {
		info, err := sdnotify.Describe(l.FD)
		fmt.Println(l.Name, info.Address, info.Listening, l.FD == 3, err)
	}
	info, _ := sdnotify.Describe(4) // it is closed, or something else by now
	fmt.Println("4 is the unknown one:", info.Address == os.Getenv("EXTRA"))
	ls.Close()
	_, err = os.Lstat(os.Getenv("BOUND"))
	fmt.Println(errors.Is(err, os.ErrNotExist))
	_, err = os.Lstat(os.Getenv("PASSED"))
	fmt.Println(err)
}

func TestListenersAreTakenFromSystemdOrBound(t *testing.T) {
	dir := t.TempDir()
	passed, extra, bound := filepath.Join(dir, "passed"), filepath.Join(dir, "extra"), filepath.Join(dir, "bound")
	cmd := testutil.Child(t, "sockets")
	cmd.Env = append(cmd.Env, "PASSED="+passed, "BOUND="+bound, "EXTRA="+extra)
	cmd.ExtraFiles = []*os.File{socket(t, unix.SOCK_STREAM, passed, true), socket(t, unix.SOCK_STREAM, extra, true)}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	want := "<nil>\n<nil>\nhttp " + passed + " true true <nil>\nbound " + bound + " true false <nil>\n4 is the unknown one: false\ntrue\n<nil>\n"
	if string(output) != want || err != nil {
		t.Errorf("%v: got:\n%swant:\n%s", err, output, want)
	}
	for _, part := range []string{`"extra", which f.toml does not declare; closed`, "socket bound: systemd did not pass it"} {
		if !strings.Contains(stderr.String(), part) {
			t.Errorf("the log has no %q:\n%s", part, stderr.String())
		}
	}
}

func TestSocketFilesHaveTheRightsOfTheFile(t *testing.T) {
	old := unix.Umask(0o777)
	defer unix.Umask(old)
	path := filepath.Join(t.TempDir(), "app.sock")
	s := unixSocket("app", fleetfile.Stream, path)
	s.Mode = 0o640
	if os.Geteuid() == 0 {
		s.User, s.Group = "54321", "54322"
	}
	log, _ := outputtest.NewLog()
	unix.Umask(old)
	ls, err := Open(&fleetfile.File{Sockets: []fleetfile.Socket{s}}, nil, false, log, poll.Source{}, poll.Source{})
	if err != nil {
		t.Fatal(err)
	}
	defer ls.Close()
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		t.Fatal(err)
	}
	if stat.Mode&0o7777 != 0o640 {
		t.Errorf("mode: got %o, want 640", stat.Mode&0o7777)
	}
	if os.Geteuid() == 0 && (stat.Uid != 54321 || stat.Gid != 54322) {
		t.Errorf("owner: got %d:%d", stat.Uid, stat.Gid)
	}
	if now := unix.Umask(old); now != old {
		t.Errorf("the umask was left at %o, want %o", now, old)
	}
}

// If one socket cannot be made, none is left behind.
func TestListenersAreAllOrNone(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	nobody := unixSocket("nobody", fleetfile.Stream, path("owned"))
	nobody.User = "no such user"
	before := testutil.OpenFDs()
	for _, bad := range []fleetfile.Socket{
		unixSocket("bad", fleetfile.Stream, path("good2"), path("file")),
		unixSocket("deep", fleetfile.Stream, path("none/app.sock")),
		nobody,
		{Name: "ip", Type: fleetfile.Stream, Listen: []fleetfile.Address{{Text: "192.0.2.1:1", IP: netip.MustParseAddrPort("192.0.2.1:1")}}},
	} {
		log, _ := outputtest.NewLog()
		file := &fleetfile.File{Path: "f.toml", Sockets: []fleetfile.Socket{unixSocket("good", fleetfile.Stream, path("good")), bad}}
		if _, err := Open(file, nil, false, log, poll.Source{}, poll.Source{}); err == nil || !strings.HasPrefix(err.Error(), "f.toml: socket."+bad.Name+".listen: ") {
			t.Errorf("%s: got %v", bad.Name, err)
		}
		left, err := filepath.Glob(path("*"))
		if want := []string{path("file")}; !slices.Equal(left, want) || err != nil {
			t.Errorf("%s: left are %q and %v, want %q", bad.Name, left, err, want)
		}
	}
	if after := testutil.OpenFDs(); after != before {
		t.Errorf("open descriptors: got %s, want %s", after, before)
	}
}

// The kernel's word on what was bound, for each kind of address.
func TestListenersBindWhatTheFileSays(t *testing.T) {
	abstract := fmt.Sprintf("@prefork-test-%d", os.Getpid())
	for _, c := range []struct {
		kind    fleetfile.SocketType
		address fleetfile.Address
		v6Only  bool
	}{
		{fleetfile.Stream, fleetfile.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")}, false},
		{fleetfile.Datagram, fleetfile.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")}, false},
		{fleetfile.Stream, fleetfile.Address{IP: netip.MustParseAddrPort("[::]:0")}, false},
		{fleetfile.Stream, fleetfile.Address{IP: netip.MustParseAddrPort("[::]:0"), V6Only: true}, true},
		{fleetfile.Seqpacket, fleetfile.Address{Unix: abstract}, false},
	} {
		s := &fleetfile.Socket{Name: "x", Type: c.kind, Backlog: 7, Listen: []fleetfile.Address{c.address}}
		fd, err := bindOne(s, c.address)
		if err != nil {
			t.Errorf("%s: %v", canonical(c.address), err)
			continue
		}
		info, err := sdnotify.Describe(fd)
		if err != nil || info.Type != sockTypes[c.kind] || info.Listening != (c.kind != fleetfile.Datagram) || info.V6Only != c.v6Only {
			t.Errorf("%s: got %+v and %v", canonical(c.address), info, err)
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("%s: flags %o and %v: it must block, as systemd's do", canonical(c.address), flags, err)
		}
		linux.CloseFD(&fd)
	}
}
