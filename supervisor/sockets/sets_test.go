// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/output/outputtest"
)

func ipSocket(name, address string) fleetfile.Socket {
	return fleetfile.Socket{Name: name, Type: fleetfile.Stream, Backlog: 16, Listen: []fleetfile.Address{
		{Text: address, IP: netip.MustParseAddrPort(address)},
	}}
}

func fds(set *Set, name string) (all []int) {
	for _, socket := range set.Of([]string{name}) {
		all = append(all, socket.FD)
	}
	return all
}

// What two files have in common is one socket, in which no connection is lost; what only
// one of them has is there as long as that one is.
func TestSetsShareWhatTheyHaveInCommon(t *testing.T) {
	before := testutil.OpenFDs()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	log, _ := outputtest.NewLog()
	file := func(all ...fleetfile.Socket) *fleetfile.File { return &fleetfile.File{Path: "f.toml", Sockets: all} }
	s, err := Open(file(
		unixSocket("both", fleetfile.Stream, path("kept"), path("old")), unixSocket("gone", fleetfile.Stream, path("gone")),
		ipSocket("ip", "127.0.0.1:0"),
	), nil, false, log, poll.Source{}, poll.Source{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	there := func(names ...string) {
		t.Helper()
		for _, name := range []string{"kept", "old", "gone", "new", "more"} {
			if _, err := os.Lstat(path(name)); errors.Is(err, fs.ErrNotExist) == slices.Contains(names, name) {
				t.Errorf("%s: %v, want there %v", name, err, names)
			}
		}
	}
	conn, err := net.Dial("unix", path("kept"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is written
	old := s.Current()

	given, err := s.Prepare(file(unixSocket("more", fleetfile.Stream, path("more"))))
	if err != nil {
		t.Fatal(err)
	}
	there("kept", "old", "gone", "more")
	s.Release(given)
	there("kept", "old", "gone")
	if s.Current() != old {
		t.Error("what is given back changes nothing")
	}

	// Another name for an address is the same address.
	next, err := s.Prepare(file(
		unixSocket("both", fleetfile.Stream, path("new"), path("kept")), unixSocket("renamed", fleetfile.Stream, path("old")),
		ipSocket("ip", "127.0.0.1:0"),
	))
	if err != nil {
		t.Fatal(err)
	}
	there("kept", "old", "gone", "new")
	if was, is := fds(old, "both"), append(fds(next, "both")[1:], fds(next, "renamed")...); !slices.Equal(was, is) {
		t.Errorf("both sets have these addresses: got %v, want %v", is, was)
	}
	s.Use(next)
	there("kept", "old", "new")
	if left := old.Of([]string{"both", "gone", "ip"}); len(left) > 0 {
		t.Errorf("the set that is not used any more has %v, whose numbers are others' by now", left)
	}
	if !Poll(s.Current().Of([]string{"both"})) {
		t.Error("the connection that waits was lost")
	}
	s.Use(next) // the same again
	there("kept", "old", "new")
	s.Close()
	there()
	_ = conn.Close()
	if after := testutil.OpenFDs(); after != before {
		t.Errorf("open descriptors: got %s, want %s", after, before)
	}
}

// A file whose sockets cannot be bound leaves those that there are.
func TestASetThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	log, _ := outputtest.NewLog()
	app := unixSocket("app", fleetfile.Stream, path("app"))
	s, err := Open(&fleetfile.File{Sockets: []fleetfile.Socket{app}}, nil, false, log, poll.Source{}, poll.Source{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := testutil.OpenFDs()
	nobody := app
	nobody.User = "no such user"
	datagram := app
	datagram.Type = fleetfile.Datagram
	for what, bad := range map[string]fleetfile.Socket{
		"user no such user does not exist": nobody,
		"this fleet listens there already": datagram,
		"no such file or directory":        unixSocket("app", fleetfile.Stream, path("none/app")),
	} {
		set, err := s.Prepare(&fleetfile.File{Path: "f.toml", Sockets: []fleetfile.Socket{unixSocket("new", fleetfile.Stream, path("new")), bad}})
		if err == nil || !strings.HasPrefix(err.Error(), "f.toml: socket.app.listen: ") || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: got %v, %v", what, set, err)
		}
		if left, _ := filepath.Glob(path("*")); !slices.Equal(left, []string{path("app")}) {
			t.Errorf("%s: left are %q", what, left)
		}
	}
	if after := testutil.OpenFDs(); after != before {
		t.Errorf("open descriptors: got %s, want %s", after, before)
	}
}

// The rights of a socket's file, and the length of its queue, change with the socket that
// there is.
func TestASocketIsAdapted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app")
	log, lines := outputtest.NewLog()
	app := unixSocket("app", fleetfile.Stream, path)
	s, err := Open(&fleetfile.File{Sockets: []fleetfile.Socket{app}}, nil, false, log, poll.Source{}, poll.Source{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	change := func(adapt func(*fleetfile.Socket)) (stat unix.Stat_t) {
		t.Helper()
		was := fds(s.Current(), "app")
		adapt(&app)
		set, err := s.Prepare(&fleetfile.File{Sockets: []fleetfile.Socket{app}})
		if err != nil {
			t.Fatal(err)
		}
		s.Use(set)
		if is := fds(s.Current(), "app"); !slices.Equal(is, was) {
			t.Errorf("another socket: got %v, want %v", is, was)
		}
		if err := unix.Lstat(path, &stat); err != nil {
			t.Fatal(err)
		}
		return stat
	}
	if st := change(func(c *fleetfile.Socket) { c.Mode = 0o600 }); st.Mode&0o777 != 0o600 {
		t.Errorf("mode: got %o", st.Mode)
	}
	if os.Geteuid() == 0 {
		if st := change(func(c *fleetfile.Socket) { c.User, c.Group = "54321", "54322" }); st.Uid != 54321 || st.Gid != 54322 {
			t.Errorf("owner: got %d:%d", st.Uid, st.Gid)
		}
	}
	// A queue of 0 has room for one connection (listen(2)).
	change(func(c *fleetfile.Socket) { c.Backlog = 0 })
	waiting := 0
	for range 8 {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd) //nolint:errcheck // nothing is written
		if unix.Connect(fd, &unix.SockaddrUnix{Name: path}) == nil {
			waiting++
		}
	}
	if waiting != 1 {
		t.Errorf("%d connections wait, want 1", waiting)
	}
	if got := lines.All(); len(got) > 0 {
		t.Errorf("log: %q", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", path); err != nil {
		t.Fatal(err)
	}
	change(func(c *fleetfile.Socket) { c.Mode = 0o640 })
	if st, err := os.Stat("/dev/null"); err != nil || st.Mode().Perm() != 0o666 || len(lines.All()) == 0 {
		t.Errorf("what stands in its place is another's: %v, log %q", st.Mode(), lines.All())
	}
}

// What systemd passed is never bound here, whatever the file says.
func TestPassedSocketsStay(t *testing.T) {
	dir := t.TempDir()
	log, lines := outputtest.NewLog()
	passed := socket(t, unix.SOCK_STREAM, filepath.Join(dir, "app"), true)
	fd, err := unix.FcntlInt(passed.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	app := unixSocket("app", fleetfile.Stream, filepath.Join(dir, "app"))
	s, err := Open(&fleetfile.File{Sockets: []fleetfile.Socket{app}}, []sdnotify.Activated{{FD: fd, Name: "app"}}, true, log, poll.Source{}, poll.Source{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, sockets := range [][]fleetfile.Socket{
		{unixSocket("app", fleetfile.Stream, filepath.Join(dir, "other"))}, {}, {app},
	} {
		set, err := s.Prepare(&fleetfile.File{Sockets: sockets})
		if err != nil {
			t.Fatal(err)
		}
		s.Use(set)
		if got := fds(set, "app"); len(sockets) > 0 && !slices.Equal(got, []int{fd}) {
			t.Errorf("%v: got %v, want %d", sockets, got, fd)
		}
	}
	if got := s.Passed(); !slices.Equal(got, []string{"app"}) {
		t.Errorf("passed are %v", got)
	}
	if n := strings.Count(strings.Join(lines.All(), ""), "systemd listens on"); n != 1 {
		t.Errorf("log: %q", lines.All())
	}
	if _, err := os.Lstat(filepath.Join(dir, "other")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it was bound here")
	}
}
