// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// process is one process of the fleet, from the request for it until nothing of
// it is left. A descriptor that is not open is -1.
type process struct {
	id    fleet.Proc
	uid   int // when it introduced itself: the floor's
	pid   int // 0 before it is known, and for a floor that could not be started
	pidfd int

	gate    int // until it leaves the gate
	command int // a floor's socket

	generation int    // of the floor that it is, or was forked from
	told       bool   // it was told what to become
	floor      bool   // it is, or will be, a floor
	name       string // of its slot, or "floor"
	title      string // of its slot; forked descendants keep it
	invocation string // PREFORK_INVOCATION_ID; executed descendants keep it

	slot  *slot         // that it is; nil before it has its orders
	group *cgroup.Group // its own; nil where there are none

	reaped bool
	left   map[int]bool // without a group: pids of what it left behind, not yet reaped
	sent   unix.Signal  // to those; 0 before the first
}

// processes is the table of all processes. Spawned and not introduced is in
// byID only.
type processes struct {
	byID  map[fleet.Proc]*process
	byPID map[int]*process
}

func newProcesses() *processes {
	return &processes{byID: map[fleet.Proc]*process{}, byPID: map[int]*process{}}
}

func (t *processes) add(id fleet.Proc) *process {
	p := &process{id: id, pidfd: -1, gate: -1, command: -1}
	t.byID[id] = p
	return p
}

// identify takes the pidfd of a process that is known to be a child: it alone
// is used for signals and for the wait.
func (t *processes) identify(p *process, pid, pidfd int) {
	p.pid, p.pidfd = pid, pidfd
	t.byPID[pid] = p
}

// forget ends a process that has been reaped, or that never was.
func (t *processes) forget(p *process) {
	delete(t.byID, p.id)
	if t.byPID[p.pid] == p {
		delete(t.byPID, p.pid)
	}
	linux.CloseFD(&p.pidfd)
	linux.CloseFD(&p.gate)
	linux.CloseFD(&p.command)
}

// adopt opens the pidfd of a process that introduced itself, and makes sure
// that it is a child of this one: only then can its pid not be used by another.
func adopt(pid int) (pidfd int, err error) {
	pidfd, err = linux.PidfdOpen(pid)
	if err != nil {
		return -1, err
	}
	if _, err := linux.PeekPidfd(pidfd); err != nil {
		_ = unix.Close(pidfd) // not ours
		return -1, err
	}
	return pidfd, nil
}

// signal sends a signal to a process. That it has ended is no error: its end is
// on its way to the loop.
func (p *process) signal(sig unix.Signal) error {
	if p.pidfd < 0 || p.reaped {
		return nil
	}
	if err := linux.PidfdSendSignal(p.pidfd, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}
