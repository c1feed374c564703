// SPDX-License-Identifier: AGPL-3.0-or-later

package procs

import (
	"io"
	"os"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/output/outputtest"
	"github.com/decnet/prefork/supervisor/policy"
)

const dead poll.Kind = 1

// polled returns a table without control groups, and what its sources say.
func polled(t *testing.T) (*Table, *outputtest.Lines, *poll.Poller) {
	t.Helper()
	log, said := outputtest.NewLog()
	p := polltest.New(t)
	return New(cgroup.NewPool(nil, false), log, p.Source(dead), p.Source(2)), said, p
}

// start starts a child that only the test waits for.
func start(t *testing.T, script string) int {
	t.Helper()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close() //nolint:errcheck // nothing was written
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{
		Files: []uintptr{null.Fd(), null.Fd(), 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// introduce makes a child a process of the table.
func introduce(t *testing.T, m *Table, id fleet.Proc, pid int) *Process {
	t.Helper()
	pidfd, err := Adopt(pid)
	if err != nil {
		t.Fatal(err)
	}
	p := m.Add(id)
	p.Name = "web.0"
	if err := m.Identify(p, pid, pidfd); err != nil {
		t.Fatal(err)
	}
	return p
}

// The life of a process: it is signalled by its pidfd, its end is told by its id, and
// when it has been settled nothing of it is left, in the table or open.
func TestLifeOfAProcess(t *testing.T) {
	testutil.WantNoLeak(t)
	m, said, poller := polled(t)
	p := introduce(t, m, 7, start(t, "exec sleep 1000"))
	if m.Of(7) != p || m.OfPID(p.PID) != p || m.Dead(7) != p || !p.Holds(p.PID) || p.Holds(os.Getpid()) {
		t.Error("it is not the process that it is")
	}
	if exit, ok := m.Exit(p); ok {
		t.Errorf("it lives, and has ended: %+v", exit)
	}
	m.Kill(fleet.Kill{Proc: 7, Signal: policy.SIGKILL})
	ready := poller.Wait(poll.Now().Add(testutil.Patience), poll.Now())
	if len(ready) != 1 || ready[0] != (poll.Event{Kind: dead, ID: 7}) {
		t.Fatalf("got %v", ready)
	}
	exit, ok := m.Exit(p)
	if !ok || exit.Signal != policy.SIGKILL || m.Dead(7) != nil || m.OfPID(p.PID) != nil {
		t.Errorf("got %+v, %t", exit, ok)
	}
	m.Kill(fleet.Kill{Proc: 7, Signal: policy.SIGTERM}) // its end is on its way to who asks
	if got := m.Settle(p, exit, nil); got != (fleet.Exited{Proc: 7, Exit: exit}) || m.Of(7) != nil {
		t.Errorf("got %+v", got)
	}
	m.Kill(fleet.Kill{Proc: 7, Signal: policy.SIGTERM})
	if stat, err := linux.ReadStat(p.PID); err != nil || stat.State != 'Z' || !m.Unsearched() {
		t.Errorf("before it is reaped: %+v, %v", stat, err)
	}
	m.Flush()
	if stat, err := linux.ReadStat(p.PID); err == nil {
		t.Errorf("it has been reaped, and is %+v", stat)
	}
	if m.NextEnded() != 0 || m.Unsearched() {
		t.Error("there is somebody else who has ended")
	}
	if got := said.All(); len(got) != 0 {
		t.Errorf("it said %q", got)
	}
}

// A process that nobody has heard of gets the id that it is asked by.
func TestRename(t *testing.T) {
	m, _, poller := polled(t)
	p := introduce(t, m, 1<<55, start(t, "exit 3"))
	if err := m.Rename(p, 4); err != nil || m.Of(4) != p || m.Of(1<<55) != nil || p.ID != 4 {
		t.Errorf("got %+v, %v", p, err)
	}
	if ready := poller.Wait(poll.Now().Add(testutil.Patience), poll.Now()); len(ready) != 1 || ready[0].ID != 4 {
		t.Errorf("its end: got %v", ready)
	}
	if exit, ok := m.Exit(p); !ok || exit.Code != 3 {
		t.Errorf("got %+v, %t", exit, ok)
	}
	m.Forget(p)
}

// Who is no child of this process is not adopted: its pid could be another's tomorrow.
func TestAStrangerIsNotAdopted(t *testing.T) {
	testutil.WantNoLeak(t)
	for _, pid := range []int{os.Getpid(), os.Getppid(), 1 << 22} {
		if fd, err := Adopt(pid); err == nil {
			t.Errorf("%d is adopted: %d", pid, fd)
		}
	}
}

// Without control groups a signal for all goes to the session too, once in a turn; what is
// left is counted, signalled, and gone when the last has been reaped.
func TestWhatIsLeftIsSignalled(t *testing.T) {
	m, _, poller := polled(t)
	if err := linux.SetChildSubreaper(); err != nil {
		t.Fatal(err)
	}
	p := introduce(t, m, 7, start(t, "sh -c 'trap \"\" HUP; while :; do sleep 1000; done' & wait"))
	p.Invocation = "x"
	testutil.Eventually(t, "its child", func() bool {
		pids, err := linux.Processes()
		return err == nil && slices.ContainsFunc(pids, func(pid int) bool {
			stat, err := linux.ReadStat(pid)
			return err == nil && stat.Parent == p.PID
		})
	})
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	poller.Wait(poll.Now().Add(testutil.Patience), poll.Now())
	left := m.Sweep([]*Process{p})[p]
	exit, ok := m.Exit(p)
	if !ok || len(left) == 0 {
		t.Fatalf("it left %v", left)
	}
	if got := m.Settle(p, exit, left); got.Left != len(left) || m.Of(7) != p {
		t.Errorf("got %+v, want %d left", got, len(left))
	}
	m.Kill(fleet.Kill{Proc: 7, Signal: policy.SIGKILL, All: true})
	var events []fleet.Event
	testutil.Eventually(t, "the end of all", func() bool {
		w, err := linux.PeekAny()
		if err != nil || w.PID == 0 {
			return len(events) > 0
		}
		m.ReapOrphan(w.PID)
		events = append(events, m.SweepAgain(m.NotLeft(w.PID))...)
		m.Kill(fleet.Kill{Proc: 7, Signal: policy.SIGKILL, All: true})
		return len(events) > 0
	})
	if len(events) != 1 || events[0] != (fleet.Swept{Proc: 7}) || m.Of(7) != nil {
		t.Errorf("got %v", events)
	}
	if left := m.ReapAll(); len(left) != 0 {
		t.Errorf("children that are left: %v", left)
	}
}

// A process without a control group cannot be frozen, and says so.
func TestFreezeWithoutAGroup(t *testing.T) {
	m, _, _ := polled(t)
	m.Add(7)
	if got := m.Freeze(fleet.Freeze{Proc: 7, Frozen: true}); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	if got := m.Freeze(fleet.Freeze{Proc: 8, Frozen: true}); got != nil {
		t.Errorf("of nobody: got %v", got)
	}
}

// A signal that is owed to a session reaches who is in it and no process of the table,
// which has its own.
func TestSessionsAreSignalledWhenTheTurnEnds(t *testing.T) {
	m, _, poller := polled(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // only read
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", "sleep 1000 & echo started; wait"}, &syscall.ProcAttr{
		Files: []uintptr{r.Fd(), w.Fd(), 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	line := make([]byte, 32)
	if n, err := r.Read(line); n == 0 || err != nil {
		t.Fatal(err)
	}
	p := introduce(t, m, 7, pid)
	m.Kill(fleet.Kill{Proc: 7, Signal: policy.SIGTERM, All: true})
	m.Flush()
	poller.Wait(poll.Now().Add(testutil.Patience), poll.Now())
	if exit, ok := m.Exit(p); !ok || exit.Signal != policy.SIGTERM {
		t.Errorf("got %+v, %t", exit, ok)
	}
	m.Forget(p)
	if n, err := r.Read(line); n != 0 || err != io.EOF { // it blocks until the last who holds it has ended
		t.Errorf("got %q, %v", line[:n], err)
	}
}
