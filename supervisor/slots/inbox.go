// SPDX-License-Identifier: AGPL-3.0-or-later

package slots

import (
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/errands"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/text"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/procs"
)

// inbox is where the processes of a slot notify.
type inbox struct {
	server   *sdnotify.Server // of its NOTIFY_SOCKET; nil if it has none
	errands  *errands.Owner   // drops what was sent
	budget   budget           // of datagrams
	quiet    policy.Instant   // it is not heard before
	burdened bool             // its next datagram is skipped where that may block
	dropped  int              // datagrams, in the life of its process
}

// maxHeard bounds the datagrams of one slot that are read in a turn.
const maxHeard = 100

// Read reads what the processes of a slot say. Several datagrams become one
// event where their order does not matter.
func (t *Table) Read(id fleet.SlotID) []fleet.Event { return t.read(t.Of(id)) }

func (t *Table) read(s *Slot) (events []fleet.Event) {
	now := poll.Now()
	var last *fleet.Notified
	for range maxHeard {
		if s.inbox.burdened {
			break // the next one is not the loop's to read
		}
		if !s.inbox.budget.take(now) {
			t.mute(s, now.Add(budgetPause))
			break
		}
		d, err := s.inbox.server.Look(&t.received)
		if err != nil {
			s.inbox.budget.giveBack()
			break // EAGAIN: that was all
		}
		said, ok := t.accept(s, &d)
		if ev := s.saysOfTasks(&d); ev != nil {
			events = append(events, ev)
		}
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

// accept checks a datagram that was looked at, and takes it. Descriptors are taken
// only to be stored; to drop any others, a barrier's too, is left to who may block.
// ok is false if there is nothing in it for the state machine.
func (t *Table) accept(s *Slot, d *sdnotify.Datagram) (said fleet.Notified, ok bool) {
	why := d.Refused
	if why == nil {
		why = t.refuses(s, d)
	}
	known := why != nil || d.PID == s.process.PID || d.Carries && d.Message.Barrier
	switch {
	case why == nil && t.stores(s, d), !known && !d.Carries:
		why = t.take(s, d)
	case !d.Carries:
		_ = s.inbox.server.Skip() // it was looked at: it is the next
	default:
		if !known {
			why = fmt.Errorf("from pid %d: descriptors that are not to be stored come from the main process alone", d.PID)
		}
		t.burden(s)
	}
	if why != nil {
		t.dropped++
		if s.inbox.dropped++; s.inbox.dropped == 1 {
			t.log.Warn(fmt.Sprintf("%s: a notification is ignored: %v; more of them are only counted", s.Name, why), slog.Int("pid", d.PID))
		}
		return said, false
	}
	msg := &d.Message
	switch {
	case msg.Barrier:
	case msg.StoreRemove:
		t.unstore(s, msg.FDName)
	case msg.Store:
		t.store(s, d)
	}
	said = notified(s.process.ID, msg)
	return said, said != fleet.Notified{Proc: s.process.ID}
}

// stores reports whether the descriptors of a datagram are to be stored, and can be.
// Where this process's table is full, the kernel would drop them.
func (t *Table) stores(s *Slot, d *sdnotify.Datagram) bool {
	if msg := &d.Message; !d.Carries || !msg.Store || msg.Barrier || msg.StoreRemove {
		return false
	}
	if s.store.max == 0 {
		t.noRoom(s)
		return false
	}
	free, err := linux.FreeFDs()
	if err == nil && free >= gate.MaxFDs+spareFDs {
		return true
	}
	if !s.store.full {
		s.store.full = true
		t.log.Warn(fmt.Sprintf("%s: no room for a descriptor that it wants to store: raise LimitNOFILE= of the unit", s.Name))
	}
	return false
}

// spareFDs is how many others may open meanwhile: clients, for example.
const spareFDs = 64

// take receives a datagram with its descriptors, which are the datagram's then if
// there is nothing wrong with it, and makes sure of its sender.
func (t *Table) take(s *Slot, d *sdnotify.Datagram) error {
	taken, err := s.inbox.server.Receive(&t.received)
	if err != nil {
		return err // it was there
	}
	*d = taken
	if err = d.Refused; err == nil {
		err = t.refuses(s, d)
	}
	linux.CloseFD(&d.PIDFD) // the kernel made it
	if err != nil || !d.Message.Store || d.Message.StoreRemove {
		s.inbox.errands.Close(d.FDs...)
		d.FDs = nil
	}
	return err
}

// burden has the next datagram of a slot, which carries descriptors, skipped where
// that may block; the slot is not heard until it is. A barrier is answered by it
// (sd_notify_barrier(3)): what was said before has been done then.
func (t *Table) burden(s *Slot) {
	s.inbox.burdened = true
	t.burdened = append(t.burdened, s)
	t.mute(s, 0)
}

// Flush is for the end of a turn: who waits for what it said to be done is told.
func (t *Table) Flush() {
	for _, s := range t.burdened {
		s.inbox.errands.Do(func() { _ = s.inbox.server.Skip() }) // it was looked at: it is the next
	}
	t.burdened = t.burdened[:0]
}

// refuses checks the sender of a datagram against the slot.
func (t *Table) refuses(s *Slot, d *sdnotify.Datagram) error {
	p := s.process
	switch {
	case p == nil:
		return fmt.Errorf("from pid %d: the slot has no process", d.PID)
	case d.PID == p.PID: // held by us until it is reaped: nobody else can have it
		return nil
	case s.Config.NotifyAccess != fleetfile.NotifyAll:
		return fmt.Errorf("from pid %d, which is not the main process: notify_access = \"all\" lets every process of the slot notify", d.PID)
	case !p.Holds(d.PID) || !alive(d):
		return fmt.Errorf("from pid %d, which is not a process of the slot", d.PID)
	}
	return nil
}

// alive reports whether the sender still had its pid when that was looked up.
// Without SO_PASSPIDFD (Linux 6.5) there is no telling.
func alive(d *sdnotify.Datagram) bool {
	return d.PIDFD < 0 || linux.PidfdSendSignal(d.PIDFD, 0) == nil
}

// notified is what the state machine needs of a message.
func notified(proc fleet.Proc, msg *sdnotify.Message) fleet.Notified {
	n := fleet.Notified{
		Proc: proc, Ready: msg.Ready, Reloading: msg.Reloading, Stopping: msg.Stopping,
		Watchdog: msg.Watchdog, Trigger: msg.Trigger, Interval: msg.WatchdogInterval, Extend: msg.Extend,
		HasStatus: msg.HasStatus, Status: msg.Status, Recycle: policy.RecycleReason(msg.Recycle),
	}
	n.Lag, n.HasLag = loopLag(msg)
	n.Cause = text.OneLine(private(msg, "X_PREFORK_CAUSE"), maxCause)
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

// maxCause is the size in bytes of what a slot may say of its end: it is for a line of the
// status, among others.
const maxCause = 200

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
	if b.Recycle != "" {
		a.Recycle = b.Recycle
	}
	if b.HasStatus {
		a.HasStatus, a.Status = true, b.Status
	}
	if b.Errno != "" {
		a.Errno = b.Errno
	}
	if b.Cause != "" {
		a.Cause = b.Cause
	}
	if b.HasLag {
		a.HasLag, a.Lag = true, b.Lag
	}
	return true
}

// Dropped is how many notifications of all slots were ignored.
func (t *Table) Dropped() uint64 { return t.dropped }

// of is the slot that a process is; nil before it has its orders.
func (t *Table) of(p *procs.Process) *Slot {
	for _, s := range t.slots {
		if s.process == p {
			return s
		}
	}
	return nil
}

// Drain reads what a process said before it ended, and takes it from its slot: its pid
// is nobody else's yet, and what its successor will say is not mixed with it.
func (t *Table) Drain(p *procs.Process) []fleet.Event {
	s := t.of(p)
	if s == nil {
		return nil
	}
	var events []fleet.Event
	if s.inbox.server != nil {
		events = t.read(s)
	}
	if s.inbox.dropped > 1 {
		t.log.Warn(fmt.Sprintf("%s: %d notifications were ignored", s.Name, s.inbox.dropped), slog.Int("pid", p.PID))
	}
	s.process, s.inbox.dropped = nil, 0
	return events
}
