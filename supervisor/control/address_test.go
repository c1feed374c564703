// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"unicode"

	"golang.org/x/sys/unix"
)

// A client that is led to another fleet than it wants says so, and asks nothing of
// that one but which it is.
func TestAnotherFleetIsNotOperated(t *testing.T) {
	var looks atomic.Int32
	b := &backend{look: func() (*Status, error) {
		looks.Add(1)
		return lookAtDemo()
	}}
	other := serveBackend(t, b)
	dir := t.TempDir()
	edge := func(path string) Address {
		return Address{Socket: path, Fleet: "fleet edge", Serves: func(name, file string) bool {
			return name == "edge" && file == "/etc/prefork/edge.toml"
		}}
	}
	path := func(name string) string { return filepath.Join(dir, name, "control") }
	for _, name := range []string{"link", "hard", "file", "none"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(other, path("link")), os.Link(other, path("hard")), os.WriteFile(path("file"), nil, 0o600),
		os.Symlink(filepath.Dir(other), filepath.Join(dir, "linked"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"link":   "is a symbolic link",
		"file":   "is not what belongs there",
		"linked": "is a symbolic link",
		"hard":   `is served by the master of another fleet, "demo" of "/etc/prefork/demo.toml", and not by the master of fleet edge`,
	} {
		_, err := Dial(within(t, ceiling), edge(path(name)))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Nothing was asked of it") {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: %v means that there is no master", name, err)
		}
	}
	if _, err := Dial(within(t, ceiling), edge(path("none"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: got %v", err)
	}
	if len(b.done) != 0 || looks.Load() != 2 {
		t.Errorf("it was asked for %q, and looked at %d times, want 2: its name and its file", b.done, looks.Load())
	}
	right := edge(other)
	right.Serves = func(name, file string) bool { return name == demo.Name && file == demo.File }
	if _, err := lookThere(within(t, ceiling), right); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

// What answers in the master's place cannot steer the terminal of who asks, nor put a
// word into a command or a shell's completions.
func TestWhatAMasterSaysIsPrintable(t *testing.T) {
	const steers = "\x1b]0;x\a\r\u009b2J\u202e"
	said := SlotStatus{
		Name: "web.0", Worker: "web", State: "ready" + steers, Reason: steers, Result: steers, StatusText: steers, ControlGroup: steers,
		FreezerState: steers, Restarts: map[string]uint64{},
	}
	b := &backend{look: func() (*Status, error) {
		return &Status{Name: "demo" + steers, File: steers, ActiveState: steers, StatusText: steers, Slots: []SlotStatus{said}}, nil
	}}
	path := serveBackend(t, b)
	f, err := lookThere(within(t, ceiling), anyAt(path))
	if err != nil {
		t.Fatal(err)
	}
	happened, err := dial(t, path).History(within(t, ceiling), "web.0")
	if text := fmt.Sprint(*f, happened); err != nil || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := dial(t, path).History(within(t, ceiling), steers); err == nil || strings.ContainsFunc(err.Error(), unicode.IsControl) {
		t.Errorf("an error: got %q", err)
	}
	for _, name := range []string{"web.$(reboot)", "$(reboot).0", "web.0\n", "web", "web.", "-f.0", "api.0", steers + ".0"} {
		said.Name, said.Worker = name, strings.Split(name, ".")[0]
		if name == "api.0" {
			said.Worker = "web"
		}
		if f, err := lookThere(within(t, ceiling), anyAt(path)); err == nil || !strings.Contains(err.Error(), "the master says nonsense") {
			t.Errorf("slot %q: got %+v, %v", name, f, err)
		}
	}
}

// Who serves a socket must be root, the client, or who owns the directory.
func TestAStrangersSocketIsNotTalkedTo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may be others")
	}
	for _, c := range []struct {
		owner, server int
		want          bool
	}{{0, 0, true}, {4711, 0, true}, {4711, 4711, true}, {0, 4711, false}, {4711, 4712, false}} {
		dir := t.TempDir()
		path := filepath.Join(dir, "control")
		l := listenAs(t, path, c.server)
		if err := os.Chown(dir, c.owner, -1); err != nil {
			t.Fatal(err)
		}
		conn, err := anyAt(path).connect(within(t, ceiling))
		if (err == nil) != c.want || !c.want && !strings.Contains(err.Error(), "is served by uid") {
			t.Errorf("%+v: got %v", c, err)
		}
		if err == nil {
			_ = conn.Close()
		}
		_ = l.Close()
	}
}

// listenAs has a thread of another user listen: the kernel remembers who did
// (SO_PEERCRED, unix(7)).
func listenAs(t *testing.T, path string, uid int) net.Listener {
	t.Helper()
	type result struct {
		l   net.Listener
		err error
	}
	got := make(chan result)
	go func() {
		runtime.LockOSThread() // and ends with its thread
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			err = errno
		}
		if err == nil {
			err = unix.Listen(fd, 8)
		}
		file := os.NewFile(uintptr(fd), path)
		defer file.Close()
		l, e := net.FileListener(file)
		got <- result{l, errors.Join(err, e)}
	}()
	r := <-got
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.l
}
