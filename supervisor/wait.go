// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/bridge"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/policy"
)

// What a descriptor that has become ready belongs to, in the order in which it is
// looked at: messages of processes come before their ends, so that a worker that dies
// at once has then said who it is.
const (
	wakeups     poll.Kind = iota // a signal came, or who was busy takes lines again
	deaths                       // the pidfd of a process
	gates                        // the gate of a process
	commands                     // the socket of a floor
	outputs                      // the output of a worker
	notices                      // the notify socket of a slot
	storedFDs                    // a descriptor that a slot has stored
	connections                  // a socket of a worker that is started on demand
	arrivals                     // any socket, the first time after a while
	groupEvents                  // the control group of a process that has ended
)

func (m *master) now() policy.Instant { return poll.Now() }

// wait turns what has happened into events.
func (m *master) wait(until policy.Instant) (events []fleet.Event) {
	if m.procs.Unsearched() {
		if events = m.search(); len(events) > 0 {
			until = 0 // they do not wait
		}
	}
	now := m.now()
	until = min(until, m.manager.RetryAt(), m.slots.UnmuteAt(), m.sockets.LookAt(), m.errands.Due(), m.log.RetryJournal(now), m.outputs.HeldUntil())
	ready := m.poller.Wait(until, now)
	m.errands.Prod(m.now())
	m.slots.Unmute(m.now())
	if m.outputs.HeldUntil() <= m.now() {
		m.outputs.Resume()
	}
	for _, r := range ready {
		events = append(events, m.handle(r)...)
	}
	events = append(events, m.sockets.Look(m.now())...)
	return append(events, m.reap(ready)...)
}

// handle reads what has come, except that a process has ended. What it leaves is there
// the next time.
func (m *master) handle(ready poll.Event) []fleet.Event {
	switch ready.Kind {
	case wakeups:
		return m.woken()
	case gates:
		return m.launch.ReadGate(fleet.Proc(ready.ID))
	case commands:
		return m.launch.ReadFloor(fleet.Proc(ready.ID))
	case outputs:
		m.outputs.Readable(ready.ID)
	case notices:
		return m.slots.Read(fleet.SlotID(ready.ID))
	case storedFDs:
		m.slots.HungUp(ready.ID)
	case connections:
		return m.sockets.Waits(int(ready.ID))
	case arrivals:
		m.sockets.Arrived(m.now())
	case groupEvents:
		return m.procs.Emptied(fleet.Proc(ready.ID))
	}
	return nil
}

func (m *master) woken() []fleet.Event {
	m.outputs.Resume()
	if m.signals.Beaten() {
		m.manager.Ping()
	}
	events := slices.Concat(m.launch.Resume(), m.takeSignals(), m.gauge.take(), m.stacksTaken())
	for _, ev := range m.bridge.Asked() {
		if p, ok := ev.(bridge.Proposal); ok {
			events = append(events, m.propose(p)...)
		} else {
			events = append(events, ev)
		}
	}
	return events
}

func (m *master) takeSignals() (events []fleet.Event) {
	for {
		sig, ok := m.signals.Next()
		if !ok {
			return events
		}
		events = append(events, m.signalled(sig)...)
	}
}

func (m *master) signalled(sig unix.Signal) []fleet.Event {
	name := unix.SignalName(sig)
	switch sig {
	case unix.SIGTERM, unix.SIGINT:
		m.stops++
		return []fleet.Event{fleet.StopRequested{Why: name}}
	case unix.SIGHUP:
		if m.signals.Terminal {
			m.stops++
			return []fleet.Event{fleet.StopRequested{Why: name + ": the terminal is gone"}}
		}
		m.bridge.Hangup()
		return nil
	}
	m.log.Notice(name + " is ignored: it has no meaning for a running fleet")
	return nil
}
