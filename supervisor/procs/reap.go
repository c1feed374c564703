// SPDX-License-Identifier: AGPL-3.0-or-later

package procs

import (
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/policy"
)

// Dead returns the process of that id if its end may not have been seen yet.
func (t *Table) Dead(id fleet.Proc) *Process {
	if p := t.byID[id]; p != nil && !p.ended {
		return p
	}
	return nil
}

// OfPID returns a process that lives, or has not been reaped; nil for a stranger.
func (t *Table) OfPID(pid int) *Process { return t.byPID[pid] }

// Exit takes the exit status of a process, which stays a zombie until [Table.Reap]. ok is
// false while it lives: the kernel spoke too early, and will again.
func (t *Table) Exit(p *Process) (exit policy.Exit, ok bool) {
	w, err := linux.PeekPidfd(p.pidfd)
	if err != nil {
		t.log.Error(fmt.Sprintf("%s: its exit status: %v", p.Name, err), slog.Int("pid", p.PID))
	} else if w.PID == 0 {
		return exit, false
	}
	p.ended, t.unsearched = true, true
	t.zombies = append(t.zombies, p.pidfd)
	p.pidfd = -1
	if t.byPID[p.PID] == p {
		delete(t.byPID, p.PID)
	}
	return policy.Exit{Code: w.Code, Signal: policy.Signal(w.Signal), Core: w.Core}, true
}

// Reap reaps the processes whose exit status has been taken. The kernel takes its time
// for that; a successor does not have to wait for it.
func (t *Table) Reap() {
	for _, pidfd := range t.zombies {
		_, _ = linux.ReapPidfd(pidfd) // Exit has seen what it says
		linux.CloseFD(&pidfd)
	}
	t.zombies = t.zombies[:0]
}

// Settle tells the state machine of the end of a process: what it used, and how much of
// it is left, in its group or as Sweep has found it. Where nothing is left it is
// forgotten.
func (t *Table) Settle(p *Process, exit policy.Exit, left []int) fleet.Exited {
	ended := t.ended(p, exit)
	switch {
	case len(left) > 0:
		t.addLeft(p, left)
		ended.Left = len(left)
	case ended.Left == 0:
		t.Forget(p)
	}
	return ended
}

// ended tells what a process has used and how much of it is left in its group,
// of whose end it will be heard.
func (t *Table) ended(p *Process, exit policy.Exit) (ev fleet.Exited) {
	ev = fleet.Exited{Proc: p.ID, Exit: exit}
	if p.Group == nil {
		return ev
	}
	used := p.Group.Usage()
	ev.OOM = used.OOMKills > 0
	ev.Usage = fleet.Usage{MemoryPeak: used.MemoryPeak, CPU: used.CPU}
	if populated, err := p.Group.Populated(); err == nil && !populated {
		return ev
	}
	pids, _ := p.Group.Processes() // none: only zombies are left
	if ev.Left = len(pids); ev.Left == 0 {
		return ev
	}
	if err := t.emptied.AddFor(p.Group.Watch(), uint64(p.ID), unix.EPOLLPRI); err != nil {
		t.log.Error(fmt.Sprintf("%s: watch its cgroup: %v; what is left in it is killed", p.Name, err))
		ev.Left = 0 // the group is given back, and whoever is in there then gets SIGKILL
	}
	return ev
}

// Emptied tells when nothing is left in the group of a process that has
// ended.
func (t *Table) Emptied(id fleet.Proc) []fleet.Event {
	p := t.byID[id]
	if p == nil || p.Group == nil || !p.ended {
		return nil
	}
	if populated, err := p.Group.Populated(); err == nil && populated {
		return nil
	}
	_ = t.emptied.Remove(p.Group.Watch()) // the poller has it: this cannot fail
	t.Forget(p)
	return []fleet.Event{fleet.Swept{Proc: p.ID}}
}

// NextEnded is the pid of any child that has ended and has not been reaped; 0: there is
// none.
func (t *Table) NextEnded() int {
	t.unsearched = false
	w, err := linux.PeekAny()
	if err != nil { // ECHILD: no children at all
		return 0
	}
	return w.PID
}

// Unsearched reports whether a process has ended and [Table.NextEnded] was not asked for
// others since. SIGCHLD, which they share, may have been heard.
func (t *Table) Unsearched() bool { return t.unsearched }

// ReapOrphan reaps a child that nobody asked for: a descendant of a worker whose
// parent has ended, or the worker of a request that was abandoned.
func (t *Table) ReapOrphan(pid int) {
	if _, err := linux.ReapPID(pid); err != nil {
		t.log.Error(fmt.Sprintf("reap an orphan: %v", err), slog.Int("pid", pid))
	}
	t.log.Debug("reaped an orphan", slog.Int("pid", pid))
}

// ReapAll reaps every child that has ended, and lists the others.
func (t *Table) ReapAll() []int {
	for {
		pid := t.NextEnded()
		if pid == 0 {
			break
		}
		_, _ = linux.ReapPID(pid) // it is ours, and has ended
	}
	left, _ := linux.Children(t.pid, func(int) bool { return false })
	return left
}
