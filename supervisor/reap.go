// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// reap collects every child that has ended. The pidfds of known processes tell
// which of them have; SIGCHLD tells that any child has, which is all that is
// ever heard of an orphan.
//
// What a process left behind is looked for while it is still a zombie: its pid,
// which is the number of its session, then belongs to nobody else.
func (m *master) reap(tokens []token) (events []fleet.Event) {
	dead := m.readableDeaths(tokens)
	for {
		if len(dead) == 0 {
			var ok bool
			if dead, ok = m.nextDead(&events); !ok {
				return events
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

func (m *master) readableDeaths(tokens []token) (dead []*process) {
	for _, t := range tokens {
		if p := m.procs.byID[fleet.Proc(t.id())]; t.source() == deaths && p != nil && !p.reaped {
			dead = append(dead, p)
		}
	}
	return dead
}

// nextDead finds a child that has ended, by waitid(2) with WNOWAIT. An orphan is
// reaped here and now; ok is false when there is nothing more.
func (m *master) nextDead(events *[]fleet.Event) (dead []*process, ok bool) {
	w, err := linux.PeekAny()
	if err != nil || w.PID == 0 { // ECHILD: no children at all
		return nil, false
	}
	p := m.procs.byPID[w.PID]
	if p == nil && m.request != nil {
		// It may be a worker whose introduction has not been read.
		said, _ := m.gateReadable(m.request.id) // no more than that one
		*events = append(*events, said...)
		p = m.procs.byPID[w.PID]
	}
	if p != nil {
		return []*process{p}, true
	}
	*events = append(*events, m.reapOrphan(w.PID)...)
	return nil, true
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
	closeFD(&p.pidfd)
	events := m.lastWords(p)
	ended := m.ended(p, fleet.Exit{Code: w.Code, Signal: fleet.Signal(w.Signal), Core: w.Core})
	switch {
	case len(left) > 0:
		p.left = map[int]bool{}
		m.killLeft(p, left)
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
func (m *master) reapOrphan(pid int) (events []fleet.Event) {
	if _, err := linux.ReapPID(pid); err != nil {
		m.log.Error(fmt.Sprintf("reap an orphan: %v", err), slog.Int("pid", pid))
	}
	m.log.Debug("reaped an orphan", slog.Int("pid", pid))
	for _, p := range m.procs.byID {
		if !p.left[pid] {
			continue
		}
		delete(p.left, pid)
		// Its own children are ours now.
		m.killLeft(p, m.sweep([]*process{p})[p])
		if len(p.left) == 0 {
			m.forget(p)
			events = append(events, fleet.Swept{Proc: p.id})
		}
	}
	return events
}

// killLeft kills what a process left behind. It is a child of ours, so its pid
// cannot be another's.
func (m *master) killLeft(p *process, pids []int) {
	for _, pid := range pids {
		if p.left[pid] {
			continue
		}
		p.left[pid] = true
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			m.log.Error(fmt.Sprintf("%s: kill what it left behind: %v", p.name, err), slog.Int("pid", pid))
		}
	}
}

// sweep finds what processes that have ended left behind, where they have no
// control groups. Whatever is left of a slot is by now, or descends from, a child
// of this process that it did not start; each is attributed to the slot whose
// session, invocation or title it has. One that has changed all three is not found
// before the fleet ends.
func (m *master) sweep(ended []*process) map[*process][]int {
	if !slices.ContainsFunc(ended, func(p *process) bool { return (p.invocation != "" || p.floor) && p.group == nil }) {
		return nil // only spares: no user code ran
	}
	orphans, err := linux.Children(m.pid, func(pid int) bool {
		p := m.procs.byPID[pid]
		return p != nil || pid == m.pid
	})
	if err != nil {
		m.log.Error(fmt.Sprintf("look for orphans: %v", err))
		return nil
	}
	left := map[*process][]int{}
	for _, pid := range orphans {
		stat, err := linux.ReadStat(pid)
		if err != nil || stat.State == 'Z' {
			continue // it is about to be reaped
		}
		if i := slices.IndexFunc(ended, func(p *process) bool { return p.owns(pid, stat) }); i >= 0 {
			left[ended[i]] = append(left[ended[i]], pid)
		}
	}
	return left
}

// owns tells whether an orphan came from this process. It decides only what is
// killed together with it.
func (p *process) owns(pid int, stat linux.Stat) bool {
	if p.invocation == "" && !p.floor {
		return false
	}
	if stat.Session == p.pid {
		return true
	}
	if p.floor {
		return false // workers have its environment, and sessions of their own
	}
	dir := "/proc/" + strconv.Itoa(pid)
	if env, err := os.ReadFile(dir + "/environ"); err == nil {
		want := []byte("PREFORK_INVOCATION_ID=" + p.invocation)
		if slices.ContainsFunc(bytes.Split(env, []byte{0}), func(kv []byte) bool { return bytes.Equal(kv, want) }) {
			return true
		}
	}
	cmdline, err := os.ReadFile(dir + "/cmdline")
	return err == nil && string(bytes.TrimRight(cmdline, "\x00")) == p.title
}

// stragglerGrace is how long the end of the fleet waits for what is left.
const stragglerGrace = 2 * time.Second

// endStragglers kills and reaps whatever is still a child when the fleet has
// ended, so that nothing outlives its master.
func (m *master) endStragglers() {
	deadline := m.now().Add(stragglerGrace)
	for m.now() < deadline {
		for {
			w, err := linux.PeekAny()
			if err != nil {
				return // ECHILD: nothing is left
			}
			if w.PID == 0 {
				break
			}
			_, _ = linux.ReapPID(w.PID) // it is ours, and has ended
		}
		left, err := linux.Children(m.pid, func(int) bool { return false })
		if err != nil || len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL) // a child: it ends, or has ended
		}
		m.poller.wait(m.now().Add(100*time.Millisecond), m.now())
		m.wake.clear()
	}
	m.log.Warn("some processes did not end; they are left to the service manager")
}
