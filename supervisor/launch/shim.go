// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/slots"
)

// startShim starts this program again as the shim: a child that waits at its
// gate.
func (l *Launcher) startShim(p *procs.Process) error {
	group := -1
	if p.Group != nil {
		group = p.Group.Procs()
	}
	shim, err := gate.StartShim(l.devNull, group)
	if err != nil {
		return err
	}
	p.Birth.Gate = shim.Gate
	if err := l.procs.Identify(p, shim.PID, shim.PIDFD); err != nil {
		return err
	}
	return l.gates.Add(p.Birth.Gate, uint64(p.ID))
}

// StartShim starts the shim for a slot that has a program.
func (l *Launcher) StartShim(id fleet.Proc, s *slots.Slot) []fleet.Event {
	p := l.takeShim(id)
	if p == nil {
		p = l.procs.Add(id)
		if err := l.newShim(p); err != nil {
			return l.failed(p, err)
		}
	}
	p.Name = s.Name
	return []fleet.Event{fleet.Introduced{Proc: p.ID, PID: p.PID}}
}

func (l *Launcher) newShim(p *procs.Process) (err error) {
	if p.Group, err = l.groups.Take(); err != nil {
		return err
	}
	return l.startShim(p)
}

// A fleet with programs keeps one shim at its gate that no slot has asked for: a
// program that is started again waits neither for this one to load nor for a
// control group to be entered. It has run no user code and can become any slot.

// preparedIDs are above those of the state machine, which hears of a prepared
// shim only when a slot asks for one.
const preparedIDs = fleet.Proc(1) << 55

// hasPrograms reports whether some worker is a program.
func hasPrograms(file *fleetfile.File) bool {
	return slices.ContainsFunc(file.Workers, func(w fleetfile.Worker) bool { return len(w.Exec) > 0 && w.Count > 0 })
}

// prepareShim starts the next one, between turns. One that ended unused is not
// replaced before a slot could start: whatever ended it would end the next.
func (l *Launcher) prepareShim() {
	if !l.wantsPrepared || l.prepared != 0 {
		return
	}
	l.lastPrepared++
	p := l.procs.Add(preparedIDs + l.lastPrepared)
	p.Name = "spare shim"
	if err := l.newShim(p); err != nil {
		l.failed(p, err) // who needs one will start its own
		l.wantsPrepared = false
		return
	}
	l.prepared = p.ID
}

// takeShim gives the prepared shim, if there is one, its place in the table.
func (l *Launcher) takeShim(id fleet.Proc) *procs.Process {
	p := l.procs.Of(l.prepared)
	l.prepared, l.wantsPrepared = 0, hasPrograms(l.book.revisions.Current().File)
	if p == nil {
		return nil
	}
	if l.gates.Rename(p.Birth.Gate, uint64(id)) != nil || l.procs.Rename(p, id) != nil {
		_ = p.Signal(unix.SIGKILL) // it is of no use; its end follows
		return nil
	}
	return p
}

// dropShim ends the prepared shim of a fleet that stops.
func (l *Launcher) dropShim() {
	l.wantsPrepared = false
	if p := l.procs.Of(l.prepared); p != nil {
		linux.CloseFD(&p.Birth.Gate)
		l.prepared = 0
	}
}
