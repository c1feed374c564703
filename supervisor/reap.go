// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
)

// reap collects every child that has ended. The pidfds of known processes tell
// which of them have; SIGCHLD tells that any child has, which is all that is
// ever heard of an orphan.
//
// What a process left behind is looked for while it is still a zombie: its pid,
// which is the number of its session, then belongs to nobody else.
func (m *master) reap(ready []poll.Event) (events []fleet.Event) {
	dead := m.readableDeaths(ready)
	var bereaved []*process // of something that they left behind
	for {
		if len(dead) == 0 {
			orphan, ok := 0, false
			if dead, orphan, ok = m.nextDead(&events); !ok {
				return append(events, m.sweepAgain(bereaved)...)
			}
			for _, p := range m.notLeft(orphan) {
				if !slices.Contains(bereaved, p) {
					bereaved = append(bereaved, p)
				}
			}
			continue
		}
		left := m.sweep(dead)
		for _, p := range dead {
			events = append(events, m.reapProcess(p, left[p])...)
		}
		dead = nil
	}
}

func (m *master) readableDeaths(ready []poll.Event) (dead []*process) {
	for _, r := range ready {
		if p := m.procs.byID[fleet.Proc(r.ID)]; r.Kind == deaths && p != nil && !p.reaped {
			dead = append(dead, p)
		}
	}
	return dead
}

// nextDead finds a child that has ended, by waitid(2) with WNOWAIT. An orphan is
// reaped here and now; ok is false when there is nothing more.
func (m *master) nextDead(events *[]fleet.Event) (dead []*process, orphan int, ok bool) {
	w, err := linux.PeekAny()
	if err != nil || w.PID == 0 { // ECHILD: no children at all
		return nil, 0, false
	}
	p := m.procs.byPID[w.PID]
	if p == nil && m.request != nil {
		// It may be a worker whose introduction has not been read.
		said, _ := m.gateReadable(m.request.id) // no more than that one
		*events = append(*events, said...)
		p = m.procs.byPID[w.PID]
	}
	if p != nil {
		return []*process{p}, 0, true
	}
	m.reapOrphan(w.PID)
	return nil, w.PID, true
}

func (m *master) reapProcess(p *process, left []int) []fleet.Event {
	w, err := linux.ReapPidfd(p.pidfd)
	if err != nil {
		m.log.Error(fmt.Sprintf("%s: reap: %v", p.name, err), slog.Int("pid", p.pid))
	} else if w.PID == 0 {
		return nil // it lives: the kernel spoke too early, and will again
	}
	p.reaped = true
	if m.procs.byPID[p.pid] == p {
		delete(m.procs.byPID, p.pid)
	}
	linux.CloseFD(&p.pidfd)
	events := m.lastWords(p)
	ended := m.ended(p, fleet.Exit{Code: w.Code, Signal: fleet.Signal(w.Signal), Core: w.Core})
	switch {
	case len(left) > 0:
		m.addLeft(p, left)
		ended.Left = len(left)
	case ended.Left == 0:
		m.forget(p)
	}
	return append(events, ended)
}

// mostLastWords bounds what is read: a copy that the process made of itself may
// still hold its socket, and talk without end.
const mostLastWords = 64

// lastWords reads all that a process said before it ended: why it was not able
// to become a slot, or what is wrong with the floor.
func (m *master) lastWords(p *process) (events []fleet.Event) {
	for _, readable := range []func(fleet.Proc) ([]fleet.Event, bool){m.gateReadable, m.commandReadable} {
		more := true
		for n := 0; more && n < mostLastWords; n++ {
			var said []fleet.Event
			said, more = readable(p.id)
			for _, ev := range said {
				switch ev.(type) {
				case fleet.Refused, fleet.FloorBroken, fleet.FloorProgress:
					events = append(events, ev)
				}
			}
		}
	}
	if m.request == p {
		m.request = nil
	}
	return append(events, m.hearLast(p)...)
}

// reapOrphan reaps a child that nobody asked for: a descendant of a worker whose
// parent has ended, or the worker of a request that was abandoned.
func (m *master) reapOrphan(pid int) {
	if _, err := linux.ReapPID(pid); err != nil {
		m.log.Error(fmt.Sprintf("reap an orphan: %v", err), slog.Int("pid", pid))
	}
	m.log.Debug("reaped an orphan", slog.Int("pid", pid))
}
