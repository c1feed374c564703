// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/zygote"
)

// asked is a worker at the other end of its gate, before a floor was asked for it.
type asked struct {
	p      *procs.Process
	theirs int // its end of the gate
}

// Fork asks a floor for one worker at its gate, together with those of the calls before
// that were to wait for another.
func (l *Launcher) Fork(act fleet.Fork) (events []fleet.Event) {
	p := l.procs.Add(act.Proc)
	if err := l.prepareFork(p); err != nil {
		events = l.failed(p, err)
	}
	if act.More {
		return events
	}
	return append(events, l.sendForks(act.Floor)...)
}

func (l *Launcher) prepareFork(p *procs.Process) error {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	p.Birth.Gate = ours
	if p.Group, err = l.groups.Take(); err != nil {
		linux.CloseFD(&theirs)
		return err
	}
	l.together = append(l.together, asked{p, theirs})
	return nil
}

// sendForks asks for all that were prepared.
func (l *Launcher) sendForks(id fleet.Proc) (events []fleet.Event) {
	all := l.together
	l.together = nil
	if len(all) == 0 {
		return nil
	}
	var ids []uint64
	var gates, groups []int
	for i := range all {
		defer linux.CloseFD(&all[i].theirs)
		ids, gates = append(ids, uint64(all[i].p.ID)), append(gates, all[i].theirs)
		if all[i].p.Group != nil {
			groups = append(groups, all[i].p.Group.Procs())
		}
	}
	floor := l.procs.Of(id)
	err := errors.New("the floor has ended")
	if floor != nil && floor.Birth.Command >= 0 {
		if err = zygote.Fork(floor.Birth.Command, ids, gates, groups); err != nil {
			err = fmt.Errorf("ask the floor: %w", err)
		}
	}
	for _, a := range all {
		if err == nil {
			a.p.Generation, a.p.Stacks = floor.Generation, floor.Stacks
			err = l.gates.Add(a.p.Birth.Gate, uint64(a.p.ID))
		}
		if err != nil {
			events = append(events, l.failed(a.p, err)...)
			continue
		}
		l.requests[id] = append(l.requests[id], a.p)
	}
	return events
}

// introduced checks a hello: it must answer a request that is outstanding,
// and its sender must be a child of this process.
func (l *Launcher) introduced(p *procs.Process, hello gate.Hello) []fleet.Event {
	if hello.ID != uint64(p.ID) || !l.answered(p) {
		l.log.Warn("hello for an unknown request; ignored", slog.Int("pid", hello.PID))
		return nil
	}
	pidfd, err := procs.Adopt(hello.PID)
	if err != nil {
		l.forget(p)
		return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: fmt.Sprintf("adopt pid %d: %v", hello.PID, err)}}
	}
	p.Name, p.Birth.UID = "spare", hello.UID
	if err := l.procs.Identify(p, hello.PID, pidfd); err != nil {
		return l.failed(p, err)
	}
	// Before it had a session of its own it may have been taken for something that
	// its floor left behind.
	return append(l.procs.SweepAgain(l.procs.NotLeft(p.PID)), fleet.Introduced{Proc: p.ID, PID: p.PID})
}

// answered forgets a request; ok is false if there was none.
func (l *Launcher) answered(p *procs.Process) (ok bool) {
	for floor, all := range l.requests {
		i := slices.Index(all, p)
		if i < 0 {
			continue
		}
		if l.requests[floor] = slices.Delete(all, i, i+1); len(all) == 1 {
			delete(l.requests, floor)
		}
		return true
	}
	return false
}

func (l *Launcher) stillborn(p *procs.Process, why string) []fleet.Event {
	l.answered(p)
	l.forget(p)
	return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: why}}
}
