// SPDX-License-Identifier: AGPL-3.0-or-later

// Package procs has the processes of a fleet: their pidfds, by which alone they are
// signalled and waited for, their control groups, and what they leave behind.
//
//	Add ──> Identify or Adopt ──> Exit ──> Settle ──> Forget
//	         pidfd is polled      its       what is left in its group, or without one
//	                              status    in its session, is signalled until it is gone
//
// It is a zombie until the end of the turn in which its status was taken (Reap).
//
// Of a process whose pidfd is not held, nothing but its death is ever heard: an orphan
// is reaped, and attributed to who left it.
package procs

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/output"
)

// Table is the table of all processes. Only the loop calls its methods.
type Table struct {
	log     *output.Log
	groups  *cgroup.Pool
	deaths  poll.Source // pidfds, by fleet.Proc
	emptied poll.Source // control groups of processes that have ended, by fleet.Proc

	byID  map[fleet.Proc]*Process
	byPID map[int]*Process // that have a pidfd

	zombies    []int // pidfds of processes that have ended and are to be reaped
	unsearched bool

	pid     int                   // of this process
	glances glances               // at what processes have left behind
	owed    map[int][]unix.Signal // by session: to be sent when the turn ends
}

// New makes an empty table. Its sources report by fleet.Proc that a process has ended
// ([Table.Dead]), and that a control group is empty ([Table.Emptied]).
func New(groups *cgroup.Pool, log *output.Log, deaths, emptied poll.Source) *Table {
	return &Table{
		log: log, groups: groups, deaths: deaths, emptied: emptied,
		byID: map[fleet.Proc]*Process{}, byPID: map[int]*Process{},
		pid: os.Getpid(), glances: newGlances(), owed: map[int][]unix.Signal{},
	}
}

// Add makes a process that has only been asked for.
func (t *Table) Add(id fleet.Proc) *Process {
	p := &Process{ID: id, pidfd: -1, Birth: Birth{Gate: -1, Command: -1, Tasks: -1}}
	t.byID[id] = p
	return p
}

// Groups is where the control groups of processes come from.
func (t *Table) Groups() *cgroup.Pool { return t.groups }

// Stopping is for a fleet that stops.
func (t *Table) Stopping() { t.groups.Ending() }

// Of returns a process by its id, nil if there is none any more.
func (t *Table) Of(id fleet.Proc) *Process { return t.byID[id] }

// Identify takes the pid and the pidfd of a child of this process.
func (t *Table) Identify(p *Process, pid, pidfd int) error {
	p.PID, p.pidfd = pid, pidfd
	t.byPID[pid] = p
	return t.deaths.Add(pidfd, uint64(p.ID))
}

// Adopt opens the pidfd of a process that introduced itself, and makes sure that it is a
// child of this one: only then can its pid not be used by another.
func Adopt(pid int) (pidfd int, err error) {
	pidfd, err = linux.PidfdOpen(pid)
	if err != nil {
		return -1, err
	}
	if _, err := linux.PeekPidfd(pidfd); err != nil {
		linux.CloseFD(&pidfd) // not ours
		return -1, err
	}
	return pidfd, nil
}

// Rename gives a process that nobody has heard of another id.
func (t *Table) Rename(p *Process, id fleet.Proc) error {
	if err := t.deaths.Rename(p.pidfd, uint64(id)); err != nil {
		return err
	}
	delete(t.byID, p.ID)
	p.ID = id
	t.byID[id] = p
	return nil
}

// Forget ends a process that has been reaped and has left nothing, or that never was. Its
// group is retired.
func (t *Table) Forget(p *Process) {
	delete(t.byID, p.ID)
	if t.byPID[p.PID] == p {
		delete(t.byPID, p.PID)
	}
	linux.CloseFD(&p.pidfd)
	t.groups.Retire(p.Group)
	p.Group = nil
}
