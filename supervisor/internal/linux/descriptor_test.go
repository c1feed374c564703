// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
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
