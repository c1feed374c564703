// SPDX-License-Identifier: AGPL-3.0-or-later

package procs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// Process is one process of the fleet, from the request for it until nothing of it is
// left. A descriptor that is not open is -1. What is exported is written by whoever gives
// birth to it, before it becomes a slot.
type Process struct {
	ID    fleet.Proc
	PID   int // 0 before it is known, and for a floor that could not be started
	Birth Birth

	Name       string // of its slot, "floor" or "spare"
	Title      string // of its slot; forked descendants keep it
	Invocation string // PREFORK_INVOCATION_ID; executed descendants keep it
	Generation int    // of the floor that it is, or was forked from
	Floor      bool   // it is, or will be, a floor

	// Stacks is the signal at which workers of its floor, or it itself if it is one, write
	// their stacks; 0: there is none.
	Stacks unix.Signal

	Group *cgroup.Group // its own, from Take to Retire; nil where there are none

	pidfd int
	ended bool
	left  left
}

// Birth is what is known and open until a process has become what it was told, or ends.
type Birth struct {
	Gate     int  // until it leaves the gate
	Command  int  // a floor's socket
	Tasks    int  // where a worker with tasks is told what to do with them
	Assigned bool // it was told what to become
	Count    int  // of the slots of its worker, as it was told
	Refused  bool // it has said that it cannot, or has never read it
	UID      int  // when it introduced itself: the floor's
}

// left is what a process without a control group left behind.
type left struct {
	pids map[int]bool // not yet reaped
	sent unix.Signal  // to those; 0 before the first
}

// Signal sends a signal to a process. That it has ended is no error: its end is
// on its way to the loop.
func (p *Process) Signal(sig unix.Signal) error {
	if p.pidfd < 0 || p.ended {
		return nil
	}
	if err := linux.PidfdSendSignal(p.pidfd, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// WriteStacks has a worker write the stacks of its threads to its own log. It does not
// send the signal to a process that does not catch it, and would die: that has executed
// another program since, or has taken the handler away. Nor is it sent again to one that
// has not yet taken the last one.
func (p *Process) WriteStacks() (ok bool) {
	if p.Stacks == 0 || p.ended {
		return false
	}
	bit := uint64(1) << (p.Stacks - 1)
	signals, err := linux.ReadSignals(p.PID)
	if err != nil || signals.Caught&bit == 0 || signals.Pending&bit != 0 {
		return false
	}
	return p.Signal(p.Stacks) == nil
}

// signalGroup signals all that is in its control group.
func (p *Process) signalGroup(sig unix.Signal) error {
	switch {
	case sig == unix.SIGKILL:
		return p.Group.Kill()
	case p.ended:
		return p.Group.Signal(sig, 0)
	default:
		return p.Group.Signal(sig, p.PID) // that one has it
	}
}

// Holds reports whether a process belongs to the slot that this one is the main
// process of: by its control group, without one by its session.
func (p *Process) Holds(pid int) bool {
	if p.Group != nil {
		return p.Group.Contains(pid)
	}
	stat, err := linux.ReadStat(pid)
	return err == nil && stat.Session == p.PID
}

// Unfit says why it could not obey orders, or nothing: it does not run, or has SIGKILL
// on its way.
func (p *Process) Unfit() string {
	stat, err := linux.ReadStat(p.PID)
	switch {
	case err != nil:
		return "" // it is hidden (hidepid=, proc(5)): until it is reaped, it is there
	case stat.Exiting || stat.Killed || stat.State == 'Z':
		return fmt.Sprintf("pid %d ends", p.PID)
	case stat.State == 'T' || stat.State == 't':
		return fmt.Sprintf("pid %d is stopped", p.PID)
	}
	return ""
}
