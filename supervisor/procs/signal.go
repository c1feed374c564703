// SPDX-License-Identifier: AGPL-3.0-or-later

package procs

import (
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// Kill sends a signal to a process, and to what came from it if that is wanted.
func (t *Table) Kill(act fleet.Kill) {
	p := t.byID[act.Proc]
	if p == nil {
		return // it ended in this turn
	}
	sig := unix.Signal(act.Signal)
	err := p.Signal(sig)
	switch {
	case !act.All:
	case p.Group != nil:
		err = errors.Join(err, p.signalGroup(sig))
	case p.ended:
		t.signalLeft(p, sig)
	case sig != unix.SIGKILL && p.PID != 0: // what SIGKILL leaves behind is found when it ends
		t.owed[p.PID] = append(t.owed[p.PID], sig)
	}
	if err != nil {
		t.log.Error(fmt.Sprintf("%s: %s: %v", p.Name, act.Signal, err), slog.Int("pid", p.PID))
	}
}

// Freeze stops or thaws the control group of a process.
func (t *Table) Freeze(act fleet.Freeze) []fleet.Event {
	p := t.byID[act.Proc]
	switch {
	case p == nil:
		return nil // it ended in this turn
	case p.Group == nil:
		return []fleet.Event{fleet.FreezeFailed{Proc: act.Proc, Why: "it has no control group"}}
	}
	if err := p.Group.Freeze(act.Frozen); err != nil {
		return []fleet.Event{fleet.FreezeFailed{Proc: act.Proc, Why: err.Error()}}
	}
	return nil
}

// signalLeft signals what a process without a control group left behind. All of
// them are children of this process: their pids cannot be another's.
func (t *Table) signalLeft(p *Process, sig unix.Signal) {
	if sig != unix.SIGCONT {
		p.left.sent = sig
	}
	for pid := range p.left.pids {
		t.signalOne(p, pid, sig)
	}
}

func (t *Table) signalOne(p *Process, pid int, sig unix.Signal) {
	if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		t.log.Error(fmt.Sprintf("%s: %s to what it left behind: %v", p.Name, unix.SignalName(sig), err), slog.Int("pid", pid))
	}
}

// Flush ends a turn: who has ended is reaped, what processes without control groups have
// been sent is sent to what runs in their sessions, and control groups that are empty are
// given back.
func (t *Table) Flush() {
	t.Reap()
	t.signalSessions()
	if err := t.groups.Flush(); err != nil {
		t.log.Error(err.Error())
	}
}

// signalSessions reads all of /proc, but once in a turn.
func (t *Table) signalSessions() {
	if len(t.owed) == 0 {
		return
	}
	defer clear(t.owed)
	pids, err := linux.Processes()
	if err != nil {
		t.log.Error(fmt.Sprintf("look for the processes of a session: %v", err))
	}
	for _, pid := range pids {
		if t.byPID[pid] != nil {
			continue // it has its own
		}
		if stat, err := linux.ReadStat(pid); err != nil || t.owed[stat.Session] == nil {
			continue
		}
		pidfd, err := linux.PidfdOpen(pid)
		if err != nil {
			continue // it has ended
		}
		if stat, err := linux.ReadStat(pid); err == nil {
			for _, sig := range t.owed[stat.Session] {
				_ = linux.PidfdSendSignal(pidfd, sig) // it has ended, or changed its user: its parent's end will show it
			}
		}
		_ = unix.Close(pidfd) // it was only to be signalled
	}
}
