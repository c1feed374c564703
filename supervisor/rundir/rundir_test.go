// SPDX-License-Identifier: AGPL-3.0-or-later

package rundir_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
		at, ok, err := rundir.ControlOfFile(name)
		if err != nil || !ok || at.Socket != d.Control() {
			t.Errorf("%s: got %s, %t and %v, want %s", name, at.Socket, ok, err, d.Control())
			continue
		}
		if !at.Serves("web", path) || at.Serves("web", "/elsewhere/web.toml") {
			t.Errorf("%s: who may serve it", name)
		}
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
		if at, ok, err := rundir.ControlOfFile("web.toml"); ok || err != nil {
			t.Errorf("%q: got %s, %t and %v", base, at.Socket, ok, err)
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
