// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ceiling is how long any fact may take to come true. It is generous, since the
// machine may be busy: no test measures time by it.
const ceiling = 2 * time.Minute

// Command returns a command that will run inside the machine, as root, with a
// plain environment. It is not in any unit's cgroup.
func (m *Machine) Command(args ...string) *exec.Cmd {
	enter := []string{
		"--target", strconv.Itoa(m.PID), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--wdns=/",
		"env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8", "HOME=/root", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0",
	}
	return exec.Command("nsenter", append(enter, args...)...)
}

// Try runs a command inside the machine and returns its output, standard error
// included, and its exit status: -1 if it could not be run or died of a signal.
func (m *Machine) Try(args ...string) (out string, code int) {
	b, err := m.Command(args...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return string(b), 0
	case errors.As(err, &exit):
		return string(b), exit.ExitCode()
	default:
		return err.Error(), -1
	}
}

// Run is Try that ends the test if the command fails.
func (m *Machine) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, code := m.Try(args...)
	if code != 0 {
		t.Fatalf("%s: %s: exit status %d:\n%s", m.Suite, strings.Join(args, " "), code, out)
	}
	return out
}

// WriteFile writes a file inside the machine, readable by all, and makes the
// directories above it. The path is absolute and has no symbolic link that is.
func (m *Machine) WriteFile(t testing.TB, path, content string) {
	t.Helper()
	root := m.root(t)
	defer root.Close()
	path = strings.TrimPrefix(path, "/")
	if err := root.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := root.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ReadFile returns the content of a file inside the machine, "" if there is no
// such file.
func (m *Machine) ReadFile(t testing.TB, path string) string {
	t.Helper()
	root := m.root(t)
	defer root.Close()
	content, err := root.ReadFile(strings.TrimPrefix(path, "/"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(content)
}

// root opens the machine's root directory. Names below it cannot lead out of
// it: an absolute symbolic link would mean a file of the test's own machine.
func (m *Machine) root(t testing.TB) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(filepath.Join("/proc", strconv.Itoa(m.PID), "root"))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Journal returns what a unit and its processes have logged, the messages only.
func (m *Machine) Journal(t testing.TB, unit string) string {
	t.Helper()
	m.Run(t, "journalctl", "--sync")
	return m.Run(t, "journalctl", "--unit", unit, "--no-pager", "--output=cat")
}

// WaitFor asks again and again until the answer is true, and ends the test if
// it does not become so.
func (m *Machine) WaitFor(t testing.TB, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(ceiling); !fact(); time.Sleep(50 * time.Millisecond) {
		select {
		case <-m.exited:
			console, _ := os.ReadFile(filepath.Join(m.dir, "console"))
			t.Fatalf("%s: no %s: the machine has ended. Its console:\n%s", m.Suite, what, console)
		default:
		}
		if time.Now().After(deadline) {
			processes, _ := m.Try("ps", "-eLo", "pid,tid,stat,wchan:24,etimes,args") // what hangs, and where
			t.Fatalf("%s: no %s within %v; what runs:\n%s", m.Suite, what, ceiling, processes)
		}
	}
}
