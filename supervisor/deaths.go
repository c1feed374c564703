// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/procs"
)

// reap collects every child that has ended. The pidfds of known processes tell
// which of them have; SIGCHLD tells that any child has, which is all that is
// ever heard of an orphan.
//
// What a process left behind is looked for while it is still a zombie: its pid,
// which is the number of its session, then belongs to nobody else.
func (m *master) reap(ready []poll.Event) (events []fleet.Event) {
	var dead []*procs.Process
	for _, r := range ready {
		if p := m.procs.Dead(fleet.Proc(r.ID)); r.Kind == deaths && p != nil {
			dead = append(dead, p)
		}
	}
	var bereaved []*procs.Process // of something that they left behind
	for {
		left := m.procs.Sweep(dead)
		for _, p := range dead {
			events = append(events, m.ended(p, left[p])...)
		}
		w, err := linux.PeekAny()
		if err != nil || w.PID == 0 { // ECHILD: no children at all
			return append(events, m.procs.SweepAgain(bereaved)...)
		}
		if dead = m.known(w.PID, &events); dead != nil {
			continue
		}
		m.procs.ReapOrphan(w.PID)
		for _, p := range m.procs.NotLeft(w.PID) {
			if !slices.Contains(bereaved, p) {
				bereaved = append(bereaved, p)
			}
		}
	}
}

// known is the process with a pid that has ended; nil for an orphan.
func (m *master) known(pid int, events *[]fleet.Event) []*procs.Process {
	p := m.procs.OfPID(pid)
	if p == nil {
		// It may be a worker whose introduction has not been read.
		*events = append(*events, m.launch.ReadRequests()...)
		p = m.procs.OfPID(pid)
	}
	if p == nil {
		return nil
	}
	return []*procs.Process{p}
}

// ended is the way of a process that has ended: its status, its last words, and what it
// left behind.
func (m *master) ended(p *procs.Process, left []int) []fleet.Event {
	exit, ok := m.procs.Reap(p)
	if !ok {
		return nil
	}
	events := append(m.launch.Drain(p), m.slots.Drain(p)...)
	return append(events, m.procs.Settle(p, exit, left))
}

// The end of the fleet waits this long for what nobody has found before: until
// SIGKILL, and after it.
const (
	stragglerGrace  = 5 * time.Second
	stragglerKilled = 2 * time.Second
)

// endStragglers ends and reaps whatever is still a child when the fleet has
// ended, so that nothing outlives its master. It is as gentle as the end of a slot,
// and a second signal makes it as short.
func (m *master) endStragglers() {
	now := m.now()
	killAt, asked := now.Add(stragglerGrace), map[int]bool{}
	for giveUp := killAt.Add(stragglerKilled); now < giveUp; now = m.now() {
		left := m.procs.ReapAll()
		if len(left) == 0 {
			return
		}
		if m.stops > 1 {
			killAt = min(killAt, now)
		}
		patient := false
		for _, pid := range left {
			switch {
			case now >= killAt || m.procs.OfPID(pid) != nil: // one that did not end from SIGKILL
				_ = unix.Kill(pid, unix.SIGKILL) // a child of ours: ESRCH only if it has ended
			case !asked[pid]:
				asked[pid], patient = true, true
				_ = unix.Kill(pid, unix.SIGTERM) // the same
				_ = unix.Kill(pid, unix.SIGCONT)
			default:
				patient = true
			}
		}
		if !patient {
			killAt = min(killAt, now)
			giveUp = min(giveUp, killAt.Add(stragglerKilled))
		}
		m.poller.Wait(now.Add(100*time.Millisecond), now)
		m.takeSignals()
	}
	m.log.Warn("some processes did not end; they are left to the service manager")
}
