// SPDX-License-Identifier: AGPL-3.0-or-later

package procs

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/output/outputtest"
)

func newTable() *Table {
	log, _ := outputtest.NewLog()
	return New(cgroup.NewPool(nil, false), log, poll.Source{}, poll.Source{})
}

// A worker that its floor was about to introduce when it ended is still in the
// floor's session, and looks like a helper. Once it is known it is none: nothing of
// it is signalled any more, and the floor does not wait for it.
func TestIntroducedWorkerIsNotLeftBehind(t *testing.T) {
	m := newTable()
	floor := m.Add(1)
	floor.Floor, floor.PID, floor.ended = true, 1<<30, true
	m.addLeft(floor, []int{1<<30 + 1, 1<<30 + 2})
	if events := m.SweepAgain(m.NotLeft(1<<30 + 1)); len(events) != 0 {
		t.Errorf("one is left: %v", events)
	}
	if events := m.SweepAgain(m.NotLeft(1<<30 + 1)); len(events) != 0 {
		t.Errorf("said twice: %v", events)
	}
	if events := m.SweepAgain(m.NotLeft(1<<30 + 2)); !slices.Equal(events, []fleet.Event{fleet.Swept{Proc: 1}}) || m.Of(1) != nil {
		t.Errorf("nothing is left: %v", events)
	}
}

// A floor owns what is in its session; a slot also what has its invocation. A spare
// has run no user code.
func TestWhoOwnsAnOrphan(t *testing.T) {
	m := newTable()
	orphan := exec.Command("sleep", "1000")
	orphan.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	orphan.Env = []string{"PATH=" + os.Getenv("PATH"), "PREFORK_INVOCATION_ID=abc"}
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	pid := orphan.Process.Pid
	defer func() {
		_ = orphan.Process.Kill() // it may have ended
		_ = orphan.Wait()
	}()
	for _, c := range []struct {
		name string
		p    Process
		want bool
	}{
		{"a floor, by the session", Process{Floor: true, PID: pid}, true},
		{"a floor, by the environment only", Process{Floor: true, PID: pid + 1, Invocation: "abc"}, false},
		{"a slot, by the session", Process{PID: pid, Invocation: "x"}, true},
		{"a slot, by the environment", Process{PID: pid + 1, Invocation: "abc"}, true},
		{"another slot", Process{PID: pid + 1, Invocation: "ab"}, false},
		{"a spare", Process{PID: pid}, false},
	} {
		left := m.Sweep([]*Process{&c.p})[&c.p]
		if slices.Contains(left, pid) != c.want {
			t.Errorf("%s: it left %v, want %d in it: %t", c.name, left, pid, c.want)
		}
	}
}

// What cannot be read does not keep the loop from anything, however often it is tried,
// and from nothing else when it can.
func TestGlancesDoNotLast(t *testing.T) {
	stuck := filepath.Join(t.TempDir(), "pipe") // to open it blocks
	if err := unix.Mkfifo(stuck, 0o600); err != nil {
		t.Fatal(err)
	}
	g, done := newGlances(), make(chan struct{})
	go func() {
		defer close(done)
		for range 10 * maxGlances {
			if text := g.read(stuck, time.Millisecond); text != nil {
				t.Errorf("read %q", text)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(testutil.Patience):
		t.Error("the loop is stuck")
	}
	if text := g.read("/proc/self/cmdline", testutil.Patience); text != nil || len(g) != maxGlances {
		t.Errorf("read %q, %d are being read, want nothing and %d", text, len(g), maxGlances)
	}
	w, err := os.OpenFile(stuck, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	testutil.Eventually(t, "the end of what was stuck", func() bool { return len(g) == 0 })
	if text := g.read("/proc/self/cmdline", testutil.Patience); len(text) == 0 {
		t.Error("nothing is read any more")
	}
}
