// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// guard is a running guard.sh.
type guard struct {
	cmd  *exec.Cmd
	hold *os.File // it waits for this to be closed
}

// startGuard starts the process that removes a directory and cgroups when it is
// released or the test process ends, however that ends. It inherits lock, if
// any.
func startGuard(lock *os.File, args ...string) (*guard, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("sh", append([]string{"-c", guardScript, "guard.sh"}, args...)...)
	cmd.Stdin = r
	if lock != nil {
		cmd.ExtraFiles = []*os.File{lock}
	}
	// Interrupting the test from a terminal must not interrupt the guard.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	return &guard{cmd, w}, nil
}

// release lets the guard do its work and waits for it.
func (g *guard) release() error {
	g.hold.Close()
	return g.cmd.Wait()
}

// makeCgroups makes a cgroup of that name below the test process's own, in the
// unified hierarchy and in systemd's named one where that is still mounted, and
// returns their directories.
func makeCgroups(t testing.TB, name string) []string {
	t.Helper()
	var made []string
	for hierarchy, mount := range cgroupMounts(t) {
		dir := filepath.Join(mount, ownCgroup(t, hierarchy), name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		made = append(made, dir)
	}
	// The unified one first: it has cgroup.kill.
	slices.SortFunc(made, func(a, b string) int { return kills(b) - kills(a) })
	return made
}

func kills(cgroup string) int {
	if _, err := os.Stat(filepath.Join(cgroup, "cgroup.kill")); err != nil {
		return 0
	}
	return 1
}

// cgroupMounts returns where the hierarchies that systemd-nspawn uses are
// mounted. The key is the hierarchy's field in /proc/PID/cgroup, "" for the
// unified one.
func cgroupMounts(t testing.TB) map[string]string {
	t.Helper()
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := make(map[string]string)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mount := strings.Fields(lines.Text())
		switch {
		case mount[2] == "cgroup2":
			found[""] = mount[1]
		case mount[2] == "cgroup" && strings.Contains(mount[3], "name=systemd"):
			found["name=systemd"] = mount[1]
		}
	}
	if found[""] == "" {
		missing(t, "no cgroup2 is mounted")
	}
	return found
}

// ownCgroup returns the path of the test process's cgroup in a hierarchy.
func ownCgroup(t testing.TB, hierarchy string) string {
	t.Helper()
	list, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		field := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(field) == 3 && field[1] == hierarchy {
			return field[2]
		}
	}
	t.Fatalf("no cgroup in hierarchy %q", hierarchy)
	return ""
}
