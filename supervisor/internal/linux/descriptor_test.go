// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFreeFDs(t *testing.T) {
	before, err := FreeFDs()
	if err != nil || before <= 0 {
		t.Fatalf("got %d, %v", before, err)
	}
	for range 10 {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	if after, err := FreeFDs(); err != nil || after > before-10 {
		t.Errorf("ten more are open: got %d, %v; before %d", after, err, before)
	}
}

// What may be kept, and what may be polled, by what it is.
func TestKindsOfDescriptors(t *testing.T) {
	open := func(path string) int {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	socket := func(domain, kind int) int {
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	dir := t.TempDir()
	named := filepath.Join(dir, "pipe:[1]")
	if err := unix.Mkfifo(named, 0o600); err != nil {
		t.Fatal(err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[1])
	memfd, err := Memfd("x", nil)
	if err != nil {
		t.Fatal(err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		fd               int
		remote, pollable bool
	}{
		"unix":       {socket(unix.AF_UNIX, unix.SOCK_DGRAM), false, true},
		"tcp":        {socket(unix.AF_INET, unix.SOCK_STREAM), false, true},
		"netlink":    {socket(unix.AF_NETLINK, unix.SOCK_RAW), false, false},
		"pipe":       {pipe[0], false, true},
		"named pipe": {open(named), false, false},
		"memfd":      {memfd, false, false},
		"eventfd":    {event, false, false},
		"file":       {open(filepath.Join(dir, "file")), false, false},
		"device":     {open("/dev/null"), false, false},
	} {
		if got := Remote(c.fd); got != c.remote {
			t.Errorf("%s: remote: got %t, want %t", name, got, c.remote)
		}
		if want := name == "unix" || name == "tcp" || name == "netlink"; IsSocket(c.fd) != want {
			t.Errorf("%s: is a socket: got %t, want %t", name, !want, want)
		}
		if got := Pollable(c.fd); got != c.pollable {
			t.Errorf("%s: pollable: got %t, want %t", name, got, c.pollable)
		}
		_ = unix.Close(c.fd)
	}
	if !Remote(-1) {
		t.Error("what cannot be looked at is taken for local")
	}
	if got := fileSystemOf(0); got != "" {
		t.Errorf("mount 0: got %q", got)
	}
}

// A socket is given away, and nothing that was put in its place.
func TestGiveSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give files away")
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"socket", "stranger's"} {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path(name)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(path("file"), nil, 0o600), os.Symlink("file", path("link")),
		os.Symlink("socket", path("link to a socket")), os.Chown(path("stranger's"), 4711, -1)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"socket": true, "file": false, "link": false, "link to a socket": false, "stranger's": false, "nothing": false,
	} {
		for range 2 { // the second time it is nothing new
			if err := GiveSocket(path(name), 54321); (err == nil) != want {
				t.Errorf("%s: got %v, want %t", name, err, want)
			}
		}
	}
	for name, want := range map[string]uint32{"socket": 54321, "file": 0, "stranger's": 4711} {
		var st unix.Stat_t
		if err := unix.Stat(path(name), &st); err != nil || st.Uid != want {
			t.Errorf("%s: is uid %d's, %v; want %d", name, st.Uid, err, want)
		}
	}
}
