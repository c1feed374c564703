// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

var (
	//go:embed guard.sh
	guardScript string
	//go:embed start.sh
	startScript string
)

// Machine is a running container with systemd as its PID 1. Its methods block
// until they are done. They may be called from several goroutines, but those
// that take a testing.TB only from the goroutine of the test.
type Machine struct {
	Suite          string // the Debian release
	PID            int    // its PID 1, as the test process sees it
	SystemdVersion int    // as systemctl --version says
	PythonVersion  string // as python3 --version says

	dir     string // removed by the guard
	nspawn  *exec.Cmd
	exited  chan struct{} // closed when nspawn has been reaped
	manager *dbus.Conn    // nil until the first question
}

// slots bounds how many machines run at once: the machine kind that runs the
// tests has two processors.
var slots = make(chan struct{}, 2)

var serial atomic.Int32

// Boot starts a machine of that suite and returns when it is up. Each setup is
// called with the directory that is laid over the root filesystem. The machine
// ends with the test. Boot skips or fails the test where no machine can be run,
// and waits while too many are running.
func Boot(t testing.TB, suite string, setup ...func(t testing.TB, root string)) *Machine {
	t.Helper()
	require(t)
	slots <- struct{}{}
	t.Cleanup(func() { <-slots })

	lower, lock := rootFilesystem(t, suite)
	defer lock.Close() // the guard has it too
	name := fmt.Sprintf("prefork-%s-%d-%d", suite, os.Getpid(), serial.Add(1))
	m := &Machine{Suite: suite, exited: make(chan struct{})}
	var err error
	if m.dir, err = os.MkdirTemp("", name+"-"); err != nil {
		t.Fatal(err)
	}
	cgroups := makeCgroups(t, name)
	guard, err := startGuard(lock, append([]string{m.dir}, cgroups...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := guard.release(); err != nil {
			t.Errorf("%s: guard of %s: %v", suite, m.dir, err)
		}
	})

	upper := filepath.Join(m.dir, "upper")
	if err := os.Mkdir(upper, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range setup {
		f(t, upper)
	}
	m.start(t, append([]string{m.dir, lower, name}, cgroups...))
	m.awaitBoot(t)
	// What the maintainer scripts of a package do.
	m.Run(t, "systemd-sysusers")
	m.Run(t, "journalctl", "--update-catalog")
	m.record(t)
	return m
}

// start runs systemd-nspawn and registers the machine's end.
func (m *Machine) start(t testing.TB, args []string) {
	t.Helper()
	console, err := os.Create(filepath.Join(m.dir, "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	args = append([]string{"--mount", "sh", "-c", startScript, "start.sh"}, args...)
	m.nspawn = exec.Command("unshare", args...)
	m.nspawn.Stdout, m.nspawn.Stderr = console, console
	m.nspawn.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := m.nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = m.nspawn.Wait() // how it ended is on its console
		close(m.exited)
	}()
	t.Cleanup(func() { m.stop(t) })
}

// stop powers the machine off, or kills it if that takes too long. A failed
// test shows its journal first.
func (m *Machine) stop(t testing.TB) {
	if t.Failed() {
		journal, _ := m.Try("journalctl", "--boot", "--no-pager", "--lines=300", "--output=short-precise")
		t.Logf("%s: end of the journal:\n%s", m.Suite, journal)
	}
	if m.manager != nil {
		m.manager.Close()
	}
	m.Try("systemctl", "poweroff")
	select {
	case <-m.exited:
		return
	case <-time.After(20 * time.Second):
	}
	t.Logf("%s: did not power off in time, killing it", m.Suite)
	_ = m.nspawn.Process.Kill() // it may have ended just now
	<-m.exited
}

// awaitBoot waits until systemd has finished booting.
func (m *Machine) awaitBoot(t testing.TB) {
	t.Helper()
	m.WaitFor(t, "PID 1", func() bool {
		m.PID = m.findInit()
		return m.PID != 0
	})
	// An error means that systemd does not listen yet, or that some unit
	// failed: degraded is good enough.
	m.WaitFor(t, "finished boot", func() bool {
		out, _ := m.Try("systemctl", "is-system-running", "--wait")
		state := strings.TrimSpace(out)
		return state == "running" || state == "degraded"
	})
}

// findInit returns the pid of the machine's PID 1, or 0 if there is none yet.
func (m *Machine) findInit() int {
	self := strconv.Itoa(m.nspawn.Process.Pid)
	list, err := os.ReadFile(filepath.Join("/proc", self, "task", self, "children"))
	if err != nil {
		return 0
	}
	for pid := range strings.FieldsSeq(string(list)) {
		status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
		if err == nil && isInit(string(status)) {
			n, _ := strconv.Atoi(pid) // the kernel wrote it
			return n
		}
	}
	return 0
}

// isInit says whether a /proc/PID/status is that of a systemd that is PID 1 of
// a namespace of its own. Before execve(2) it still has the name of its parent.
func isInit(status string) bool {
	var init, systemd bool
	for line := range strings.Lines(status) {
		f := strings.Fields(line)
		switch {
		case len(f) == 3 && f[0] == "NSpid:":
			init = f[2] == "1"
		case len(f) == 2 && f[0] == "Name:":
			systemd = f[1] == "systemd"
		}
	}
	return init && systemd
}

// usual says which systemd each suite is known to have. It is compared with
// what is found for the record only: suites move on.
var usual = map[string]int{"bookworm": 252, "trixie": 257, "forky": 262, Bench: 262}

// record notes in the test's log what the machine runs.
func (m *Machine) record(t testing.TB) {
	t.Helper()
	version := m.Run(t, "systemctl", "--version")
	if _, err := fmt.Sscanf(version, "systemd %d", &m.SystemdVersion); err != nil {
		t.Fatalf("%s: version of systemd in %q: %v", m.Suite, version, err)
	}
	m.PythonVersion = strings.TrimPrefix(strings.TrimSpace(m.Run(t, "python3", "--version")), "Python ")
	first, _, _ := strings.Cut(version, "\n")
	t.Logf("%s: %s, Python %s", m.Suite, first, m.PythonVersion)
	if m.SystemdVersion != usual[m.Suite] {
		t.Logf("%s: had systemd %d before, has %d now", m.Suite, usual[m.Suite], m.SystemdVersion)
	}
}
