// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/text"
	"github.com/decnet/prefork/supervisor/procs"
)

// mostHeard bounds the datagrams of one slot that are read in a turn.
const mostHeard = 100

// hear reads what the processes of a slot say. Several datagrams become one
// event where their order does not matter.
func (m *master) hear(s *slot) (events []fleet.Event) {
	now := m.now()
	var last *fleet.Notified
	for range mostHeard {
		if s.burdened {
			break // the next one is not the loop's to read
		}
		if !s.budget.take(now) {
			m.mute(s, now.Add(budgetPause))
			break
		}
		d, err := s.notify.Look(&m.heardInto)
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

// heard checks a datagram that was looked at, and takes it. Descriptors are taken
// only to be stored; to drop any others, a barrier's too, is left to who may block.
// ok is false if there is nothing in it for the state machine.
func (m *master) heard(s *slot, d *sdnotify.Datagram) (said fleet.Notified, ok bool) {
	why := d.Refused
	if why == nil {
		why = m.refuses(s, d)
	}
	known := why != nil || d.PID == s.process.PID || d.Carries && d.Message.Barrier
	switch {
	case why == nil && m.stores(s, d), !known && !d.Carries:
		why = m.take(s, d)
	case !d.Carries:
		_ = s.notify.Skip() // it is there
	default:
		if !known {
			why = fmt.Errorf("from pid %d: descriptors that are not to be stored come from the main process alone", d.PID)
		}
		m.burden(s)
	}
	if why != nil {
		m.dropped++
		if s.dropped++; s.dropped == 1 {
			m.log.Warn(fmt.Sprintf("%s: a notification is ignored: %v; more of them are only counted", s.name, why), slog.Int("pid", d.PID))
		}
		return said, false
	}
	msg := &d.Message
	switch {
	case msg.Barrier:
	case msg.StoreRemove:
		m.unstore(s, msg.FDName)
	case msg.Store:
		m.store(s, d)
	}
	said = notified(s.process.ID, msg)
	return said, said != fleet.Notified{Proc: s.process.ID}
}

// stores tells whether the descriptors of a datagram are to be stored, and can be.
// Where this process's table is full, the kernel would drop them.
func (m *master) stores(s *slot, d *sdnotify.Datagram) bool {
	if msg := &d.Message; !d.Carries || !msg.Store || msg.Barrier || msg.StoreRemove {
		return false
	}
	if s.store.most == 0 {
		m.noRoom(s)
		return false
	}
	free, err := linux.FreeFDs()
	if err == nil && free >= gate.MaxFDs+spareFDs {
		return true
	}
	if !s.store.full {
		s.store.full = true
		m.log.Warn(fmt.Sprintf("%s: no room for a descriptor that it wants to store: raise LimitNOFILE= of the unit", s.name))
	}
	return false
}

// spareFDs is how many others may open meanwhile: clients, for example.
const spareFDs = 64

// take receives a datagram with its descriptors, which are the datagram's then if
// there is nothing wrong with it, and makes sure of its sender.
func (m *master) take(s *slot, d *sdnotify.Datagram) error {
	taken, err := s.notify.Receive(&m.heardInto)
	if err != nil {
		return err // it was there
	}
	*d = taken
	if err = d.Refused; err == nil {
		err = m.refuses(s, d)
	}
	linux.CloseFD(&d.PIDFD) // the kernel made it
	if err != nil || !d.Message.Store || d.Message.StoreRemove {
		s.errands.Close(d.FDs...)
		d.FDs = nil
	}
	return err
}

// burden has the next datagram of a slot, which carries descriptors, skipped where
// that may block; the slot is not heard until it is. A barrier is answered by it
// (sd_notify_barrier(3)): what was said before has been done then.
func (m *master) burden(s *slot) {
	s.burdened = true
	m.burdens = append(m.burdens, s)
	m.mute(s, 0)
}

// skipBurdens is for the end of a turn.
func (m *master) skipBurdens() {
	for _, s := range m.burdens {
		s.errands.Do(func() { _ = s.notify.Skip() }) // it is there
	}
	m.burdens = m.burdens[:0]
}

// refuses checks the sender of a datagram against the slot.
func (m *master) refuses(s *slot, d *sdnotify.Datagram) error {
	p := s.process
	switch {
	case p == nil:
		return fmt.Errorf("from pid %d: the slot has no process", d.PID)
	case d.PID == p.PID: // held by us until it is reaped: nobody else can have it
		return nil
	case s.config.NotifyAccess != fleetfile.NotifyAll:
		return fmt.Errorf("from pid %d, which is not the main process: notify_access = \"all\" lets every process of the slot notify", d.PID)
	case !p.Holds(d.PID) || !alive(d):
		return fmt.Errorf("from pid %d, which is not a process of the slot", d.PID)
	}
	return nil
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
		n.Errno = text.OneLine(msg.BusError, gate.MaxText)
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

// maxHeld is how many descriptors of one slot may wait to be closed before it is not
// heard any more.
const maxHeld = 64

// mute leaves a slot's socket alone until then, and until enough of what it sent has
// been dropped.
func (m *master) mute(s *slot, until fleet.Instant) {
	s.quiet = max(s.quiet, until)
	if !slices.Contains(m.muted, s) {
		_ = m.poller.Source(notices).Remove(s.notify.FD()) // it is in there
		m.muted = append(m.muted, s)
	}
	m.unmuteAt = min(m.unmuteAt, s.quiet)
}

// unmute listens again to those for whom the time has come.
func (m *master) unmute(now fleet.Instant) {
	m.unmuteAt = fleet.Never
	m.muted = slices.DeleteFunc(m.muted, func(s *slot) bool {
		switch {
		case now < s.quiet:
			m.unmuteAt = min(m.unmuteAt, s.quiet)
			return false
		case s.burdened && !s.errands.Idle(), s.errands.Holds() > maxHeld:
			return false // it wakes the loop
		}
		s.burdened, s.quiet = false, 0
		_ = m.poller.Source(notices).Add(s.notify.FD(), uint64(s.id)) // it was in there
		return true
	})
}

// slotOf is the slot that a process is; nil before it has its orders.
func (m *master) slotOf(p *procs.Process) *slot {
	for _, s := range m.slots {
		if s.process == p {
			return s
		}
	}
	return nil
}

// hearLast reads what a process said before it ended: its pid is nobody else's
// yet, and what its successor will say is not mixed with it.
func (m *master) hearLast(p *procs.Process) []fleet.Event {
	s := m.slotOf(p)
	if s == nil {
		return nil
	}
	var events []fleet.Event
	if s.notify != nil {
		events = m.hear(s)
	}
	if s.dropped > 1 {
		m.log.Warn(fmt.Sprintf("%s: %d notifications were ignored", s.name, s.dropped), slog.Int("pid", p.PID))
	}
	s.process, s.dropped = nil, 0
	return events
}
