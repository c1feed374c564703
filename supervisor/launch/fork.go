// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/zygote"
)

// Fork asks a floor for one worker at its gate.
func (l *Launcher) Fork(act fleet.Fork) []fleet.Event {
	p := l.procs.Add(act.Proc)
	if err := l.sendFork(p, l.procs.Of(act.Floor)); err != nil {
		return l.failed(p, err)
	}
	l.requests[act.Floor] = p
	return nil
}

func (l *Launcher) sendFork(p, floor *procs.Process) error {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	p.Birth.Gate = ours
	defer linux.CloseFD(&theirs)
	if floor == nil || floor.Birth.Command < 0 {
		return errors.New("the floor has ended")
	}
	procs := -1
	if p.Group, err = l.groups.Take(); err != nil {
		return err
	}
	if p.Group != nil {
		procs = p.Group.Procs()
	}
	if err := zygote.Fork(floor.Birth.Command, uint64(p.ID), theirs, procs); err != nil {
		return fmt.Errorf("ask the floor: %w", err)
	}
	p.Generation = floor.Generation
	return l.gates.Add(p.Birth.Gate, uint64(p.ID))
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
	maps.DeleteFunc(l.requests, func(_ fleet.Proc, asked *procs.Process) bool {
		ok = ok || asked == p
		return asked == p
	})
	return ok
}

func (l *Launcher) stillborn(p *procs.Process, why string) []fleet.Event {
	l.answered(p)
	l.forget(p)
	return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: why}}
}
