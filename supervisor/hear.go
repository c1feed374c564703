// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// mostHeard bounds the datagrams of one slot that are read in a turn.
const mostHeard = 100

// hear reads what the processes of a slot say. Several datagrams become one
// event where their order does not matter.
func (m *master) hear(s *slot) (events []fleet.Event) {
	now := m.now()
	var last *fleet.Notified
	for range mostHeard {
		if !s.budget.take(now) {
			m.mute(s, now)
			break
		}
		d, err := s.notify.Receive(&m.heardInto)
		if err != nil {
			s.budget.giveBack()
			break // EAGAIN: that was all
		}
		said, ok := m.heard(s, &d)
		switch {
		case !ok:
		case last != nil && merge(last, said):
		default:
			if last != nil {
				events = append(events, *last)
			}
			last = &said
		}
	}
	if last != nil {
		events = append(events, *last)
	}
	return events
}

// heard checks one datagram and takes its descriptors. ok is false if there is
// nothing in it for the state machine.
func (m *master) heard(s *slot, d *sdnotify.Datagram) (said fleet.Notified, ok bool) {
	why := d.Refused
	if why == nil {
		why = m.refuses(s, d)
	}
	if why != nil {
		d.Close()
		m.dropped++
		if s.dropped++; s.dropped == 1 {
			m.log.Warn(fmt.Sprintf("%s: a notification is ignored: %v; more of them are only counted", s.name, why), slog.Int("pid", d.PID))
		}
		return said, false
	}
	closeFD(&d.PIDFD)
	msg := &d.Message
	switch {
	case msg.Barrier:
		m.barriers = append(m.barriers, d.FDs...)
		d.FDs = nil
	case msg.StoreRemove:
		m.unstore(s, msg.FDName)
	case msg.Store:
		m.store(s, d)
	}
	d.Close()
	said = notified(s.process.id, msg)
	return said, said != fleet.Notified{Proc: s.process.id}
}

// refuses checks the sender of a datagram against the slot.
func (m *master) refuses(s *slot, d *sdnotify.Datagram) error {
	p := s.process
	switch {
	case p == nil:
		return fmt.Errorf("from pid %d: the slot has no process", d.PID)
	case d.PID == p.pid: // held by us until it is reaped: nobody else can have it
		return nil
	case s.config.NotifyAccess != fleetfile.NotifyAll:
		return fmt.Errorf("from pid %d, which is not the main process: notify_access = \"all\" lets every process of the slot notify", d.PID)
	case !p.holds(d.PID) || !alive(d):
		return fmt.Errorf("from pid %d, which is not a process of the slot", d.PID)
	}
	return nil
}

// holds tells whether a process belongs to the slot that this one is the main
// process of: by its control group, without one by its session.
func (p *process) holds(pid int) bool {
	if p.group != nil {
		return p.group.Contains(pid)
	}
	stat, err := linux.ReadStat(pid)
	return err == nil && stat.Session == p.pid
}

// alive tells whether the sender still had its pid when that was looked up.
// Without SO_PASSPIDFD (Linux 6.5) there is no telling.
func alive(d *sdnotify.Datagram) bool {
	return d.PIDFD < 0 || linux.PidfdSendSignal(d.PIDFD, 0) == nil
}

// notified is what the state machine needs of a message.
func notified(proc fleet.Proc, msg *sdnotify.Message) fleet.Notified {
	n := fleet.Notified{
		Proc: proc, Ready: msg.Ready, Reloading: msg.Reloading, Stopping: msg.Stopping,
		Watchdog: msg.Watchdog, Trigger: msg.Trigger, Interval: msg.WatchdogInterval, Extend: msg.Extend,
		HasStatus: msg.HasStatus, Status: msg.Status,
	}
	switch {
	case msg.Errno != 0:
		if n.Errno = unix.ErrnoName(unix.Errno(msg.Errno)); n.Errno == "" {
			n.Errno = fmt.Sprintf("errno %d", msg.Errno)
		}
	case msg.BusError != "":
		n.Errno = gate.OneLine(msg.BusError, gate.MaxText)
	case msg.ExitStatus != 0:
		n.Errno = fmt.Sprintf("exit status %d", msg.ExitStatus)
	}
	return n
}

// merge adds b to a, if a then says what both said one after the other.
func merge(a *fleet.Notified, b fleet.Notified) bool {
	changes := func(n *fleet.Notified) bool { return n.Ready || n.Reloading || n.Stopping || n.Trigger }
	if changes(a) && changes(&b) && (a.Ready != b.Ready || a.Reloading != b.Reloading || a.Stopping != b.Stopping || a.Trigger != b.Trigger) {
		return false
	}
	a.Ready, a.Reloading = a.Ready || b.Ready, a.Reloading || b.Reloading
	a.Stopping, a.Trigger = a.Stopping || b.Stopping, a.Trigger || b.Trigger
	a.Watchdog = a.Watchdog || b.Watchdog
	a.Extend = max(a.Extend, b.Extend)
	if b.Interval > 0 {
		a.Interval = b.Interval
	}
	if b.HasStatus {
		a.HasStatus, a.Status = true, b.Status
	}
	if b.Errno != "" {
		a.Errno = b.Errno
	}
	return true
}

// budget bounds the datagrams of one slot: what is beyond it waits in the
// kernel, where the slot alone feels it.
type budget struct {
	left float64
	at   fleet.Instant // of left
}

const (
	budgetMost   = 256.0
	budgetPerSec = 1000.0
	budgetPause  = 100 * time.Millisecond // refills a part that is worth a turn
)

func fullBudget() budget { return budget{left: budgetMost} }

func (b *budget) take(now fleet.Instant) bool {
	if b.at != 0 {
		b.left = min(budgetMost, b.left+now.Sub(b.at).Seconds()*budgetPerSec)
	}
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func (b *budget) giveBack() { b.left++ }

// mute leaves a slot's socket alone for a moment.
func (m *master) mute(s *slot, now fleet.Instant) {
	_ = m.poller.remove(s.notify.FD()) // it is in there
	m.muted = append(m.muted, s)
	if len(m.muted) == 1 {
		m.unmuteAt = now.Add(budgetPause)
	}
}

// unmute listens again to those that talked too much.
func (m *master) unmute(now fleet.Instant) {
	if now < m.unmuteAt {
		return
	}
	for _, s := range m.muted {
		_ = m.poller.add(s.notify.FD(), newToken(notices, uint64(s.id))) // it was in there
	}
	m.muted, m.unmuteAt = nil, fleet.Never
}

// hearLast reads what a process said before it ended: its pid is nobody else's
// yet, and what its successor will say is not mixed with it.
func (m *master) hearLast(p *process) []fleet.Event {
	s := p.slot
	if s == nil || s.process != p {
		return nil
	}
	var events []fleet.Event
	if s.notify != nil {
		events = m.hear(s)
	}
	if s.dropped > 1 {
		m.log.Warn(fmt.Sprintf("%s: %d notifications were ignored", s.name, s.dropped), slog.Int("pid", p.pid))
	}
	s.process, s.dropped = nil, 0
	return events
}
