// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/procs"
)

// reap learns which processes have ended. The pidfds of known processes tell which of
// them have. What comes of that is done first, a successor above all; only then are
// they reaped, when the turn ends, and is looked for who else has ended.
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
	if len(dead) == 0 {
		return m.search()
	}
	return m.ended(dead)
}

// search finds every other child that has ended. SIGCHLD tells that any child has,
// which is all that is ever heard of an orphan.
func (m *master) search() (events []fleet.Event) {
	var bereaved []*procs.Process // of something that they left behind
	for {
		pid := m.procs.NextEnded()
		if pid == 0 {
			return append(events, m.procs.SweepAgain(bereaved)...)
		}
		if dead := m.known(pid, &events); dead != nil {
			events = append(events, m.ended(dead)...)
			m.procs.Reap() // or it is found again
			continue
		}
		m.procs.ReapOrphan(pid)
		for _, p := range m.procs.NotLeft(pid) {
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

// ended is the way of processes that have ended: what they left behind, and of each its
// status and its last words.
func (m *master) ended(dead []*procs.Process) (events []fleet.Event) {
	left := m.procs.Sweep(dead)
	for _, p := range dead {
		exit, ok := m.procs.Exit(p)
		if !ok {
			continue
		}
		events = append(append(events, m.launch.Drain(p)...), m.slots.Drain(p)...)
		events = append(events, m.procs.Settle(p, exit, left[p]))
	}
	return events
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
