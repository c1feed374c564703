// SPDX-License-Identifier: AGPL-3.0-or-later

package rundir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/rundir"
)

func TestRuntimeDir(t *testing.T) {
	base := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", base)
	file := &fleetfile.File{Name: "web", Path: filepath.Join(base, "web.toml")}
	d, err := rundir.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rundir.Open(&fleetfile.File{Name: "web", Path: "/elsewhere/web.toml"})
	if err != nil || other.Path == d.Path {
		t.Errorf("another file of that name: %v, %v", other, err)
	}
	other.Close()
	if _, err := rundir.Open(file); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("a second master: %v", err)
	}
	if info, err := os.Stat(d.Notify); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the notify sockets: %v, %v", info, err)
	}
	d.Close()
	if _, err := os.Stat(d.Path); err == nil {
		t.Errorf("%s is left", d.Path)
	}
	given := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", given+":/other")
	if d, err = rundir.Open(file); err != nil || d.Path != given {
		t.Fatalf("got %v, %v", d, err)
	}
	d.Close()
	if left, err := os.ReadDir(given); err != nil || len(left) != 0 {
		t.Errorf("systemd's directory: %v, %v", left, err)
	}
}

// One file is one fleet, by whatever path and link it is named; and who serves its
// control socket must be of it.
func TestControlOfFile(t *testing.T) {
	asUser(t)
	base := t.TempDir()
	path, link := filepath.Join(base, "web.toml"), filepath.Join(base, "other.toml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("web.toml", link); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", base)
	t.Setenv("RUNTIME_DIRECTORY", "")
	d, err := rundir.Open(&fleetfile.File{Name: "web", Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	t.Chdir(base)
	for _, name := range []string{path, link, "web.toml", "./other.toml"} {
		all, err := rundir.ControlsOfFile(name)
		if err != nil || len(all) != 1 || all[0].Socket != d.Control() {
			t.Errorf("%s: got %v and %v, want %s", name, all, err, d.Control())
			continue
		}
		at := all[0]
		if !at.Serves("web", path) || at.Serves("web", "/elsewhere/web.toml") {
			t.Errorf("%s: who may serve it", name)
		}
	}
}

// A link in the path comes to lead elsewhere, as that of a ConfigMap or to a release does:
// the fleet is found by that path nevertheless, runs once, and is listed once.
func TestAPathWhoseLinkMoves(t *testing.T) {
	asUser(t)
	base := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", base)
	t.Setenv("RUNTIME_DIRECTORY", "")
	path := filepath.Join(base, "fleet.toml")
	for _, dir := range []string{"..1", "..2"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, dir, "fleet.toml"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lead := func(to string) {
		t.Helper()
		_ = os.Remove(filepath.Join(base, "..data"))
		if err := os.Symlink(to, filepath.Join(base, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	lead("..1")
	if err := os.Symlink("..data/fleet.toml", path); err != nil {
		t.Fatal(err)
	}
	file := &fleetfile.File{Name: "fleet", Path: path}
	d, err := rundir.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.Control(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		all, err := rundir.ControlsOfFile(path)
		if err != nil || len(all) == 0 || all[0].Socket != d.Control() || !all[0].Serves("fleet", path) {
			t.Errorf("got %v and %v, want %s first", all, err, d.Control())
		}
		found := 0
		for _, at := range rundir.Controls() {
			if filepath.Base(filepath.Dir(at.Socket)) == filepath.Base(d.Path) || strings.HasPrefix(at.Socket, base) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("it is listed %d times", found)
		}
		if second, err := rundir.Open(file); err == nil || !strings.Contains(err.Error(), "runs already") {
			t.Errorf("a second master: %v, %v", second, err)
		}
		lead("..2")
	}
	_ = os.Remove(d.Control())
	d.Close()
	left, err := filepath.Glob(filepath.Join(base, "prefork", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left are %q", left)
	}
	if again, err := rundir.Open(file); err != nil {
		t.Error(err)
	} else {
		again.Close()
	}
}

// Where no place is known or its path would be too long for an address, there is none
// that a command could find; the master makes another.
func TestThereMayBeNoPlace(t *testing.T) {
	asUser(t)
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("TMPDIR", t.TempDir())
	for _, base := range []string{"", "/" + strings.Repeat("x", 100)} {
		t.Setenv("XDG_RUNTIME_DIR", base)
		if all, err := rundir.ControlsOfFile("web.toml"); len(all) > 0 || err != nil {
			t.Errorf("%q: got %v and %v", base, all, err)
		}
		d, err := rundir.Open(&fleetfile.File{Name: "web", Path: "/etc/web.toml"})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(d.Path, os.Getenv("TMPDIR")) {
			t.Errorf("%q: got %s", base, d.Path)
		}
		d.Close()
	}
}

// All that are found are those of units, which are named after their directory, and of
// this user.
func TestControls(t *testing.T) {
	asUser(t)
	base := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", base)
	t.Setenv("RUNTIME_DIRECTORY", "")
	d, err := rundir.Open(&fleetfile.File{Name: "web", Path: "/etc/web.toml"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := os.WriteFile(d.Control(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(d.Control()) }()
	found := 0
	for _, at := range rundir.Controls() {
		if at.Socket == d.Control() {
			found++
			if !at.Serves("web", "/etc/web.toml") || at.Serves(filepath.Base(d.Path), "/etc/other.toml") {
				t.Error("who may serve it")
			}
		}
	}
	if found != 1 {
		t.Errorf("it is found %d times", found)
	}
	unit := rundir.ControlOfUnit("edge")
	if unit.Socket != "/run/prefork/edge/control" || !unit.Serves("edge", "/any") || unit.Serves("web", "/any") {
		t.Errorf("of a unit: got %+v", unit)
	}
}

// asUser makes the test one of an ordinary user: root's place is that of all units.
func asUser(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := syscall.Setreuid(-1, 65534); err != nil { // all threads, unlike unix's
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Setreuid(-1, 0) })
}

// A socket is served for as long as somebody listens, whether it has a file or not.
func TestServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	if !rundir.Served(path) || rundir.Served(path+"l") || rundir.Served("control") {
		t.Error("it is served, and others are not")
	}
	if err := os.Remove(path); err != nil || !rundir.Served(path) {
		t.Errorf("without its file: %v", err)
	}
	if err := unix.Close(fd); err != nil || rundir.Served(path) {
		t.Errorf("when it is closed: %v", err)
	}
}
