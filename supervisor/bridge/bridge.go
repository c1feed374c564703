// SPDX-License-Identifier: AGPL-3.0-or-later

// Package bridge is between the loop and who asks it from goroutines of their own:
// clients of the control socket (package control) and of the metrics socket (package
// metrics).
//
//	client's goroutine                       the loop
//	Look, Sample ── waits ──> wake ──> Asked: fleet.Inspect ──> Show: all who look, at once
//	Operate ────── waits ──> wake ──> Asked: fleet.Operate ──> Answer: each for itself
//	Reload: reads ─ waits ─> wake ──> Asked: Proposal ──> Answer: its number
//	Outcome                  (does not hear of it)        Outcome: what has become of it
//	History, Measure, MayChange              (does not hear of it)
//
// The loop waits for no client. A client waits for a while only: a loop that does not
// answer is stuck, or stopped, and it is told so.
package bridge

import (
	"net"
	"os"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/metrics"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/policy"
)

// Config is what a bridge needs to know.
type Config struct {
	File    *fleetfile.File // with which the fleet was started
	Log     *output.Log
	Managed bool         // systemd runs the fleet
	Tree    *cgroup.Tree // nil: there are no control groups
	Wake    *poll.Wake   // of the loop, when somebody has asked
}

// Bridge is the loop's end. Its methods do not block, except [Bridge.Close].
type Bridge struct {
	clients *clients
	log     *output.Log
	hangup  hangup
	control *control.Server // nil before it listens
	metrics *metrics.Server // nil if nobody is to see them
}

// Snapshot is what the loop shows of the fleet. It is never changed.
type Snapshot struct {
	Fleet  *control.Status
	Spawns fleet.Histogram
}

// New makes a bridge that nobody is on yet. Its owner closes it.
func New(c Config) *Bridge {
	pid := os.Getpid()
	return &Bridge{log: c.Log, clients: &clients{
		file: c.File, master: pid, managed: c.Managed, reading: make(chan struct{}, 1),
		queue:   queue{wake: c.Wake, heard: map[uint64]*operation{}},
		history: history{lines: map[string][]line{}},
		gauge:   gauge{master: pid, tree: c.Tree, busy: make(chan struct{}, 1)},
		tidier:  newTidier(),
	}}
}

// Listen offers the fleet on a control socket (package control).
func (b *Bridge) Listen(path string) (err error) {
	b.control, err = control.Listen(path, b.clients)
	return err
}

// JoinBus offers it under a name on the system bus, too. What hinders that is reported,
// from another goroutine.
func (b *Bridge) JoinBus(name string, report func(error)) { b.control.JoinBus(name, report) }

// ServeMetrics answers monitoring on a listener, which is its own then.
func (b *Bridge) ServeMetrics(listener net.Listener) {
	b.metrics = metrics.Serve(listener, monitors{b.clients})
}

// Close ends the clients, of whom some may wait for an answer: they are told that the
// fleet has ended. It waits until nothing is served any more, a second at most.
func (b *Bridge) Close() {
	b.clients.tidier.stop()
	b.clients.queue.end()
	if b.control != nil {
		b.control.Close()
	}
	if b.metrics != nil {
		b.metrics.Close()
	}
}

// Asked is what clients have asked for.
func (b *Bridge) Asked() []fleet.Event { return b.clients.queue.take() }

// Show answers all who look.
func (b *Bridge) Show(s *Snapshot) { b.clients.queue.show(s) }

// Answer answers who wanted something to be done.
func (b *Bridge) Answer(a fleet.Answer) { b.clients.queue.answer(a) }

// Reject answers who wanted something that cannot even be proposed.
func (b *Bridge) Reject(id uint64, err error) { b.clients.queue.reject(id, err) }

// Changed says that a snapshot would differ from the last. What the change has needed is
// given back before long.
func (b *Bridge) Changed() {
	b.clients.tidier.within(afterAChange)
	if b.control != nil {
		b.control.Changed()
	}
}

// Remember keeps a line about a slot.
func (b *Bridge) Remember(now policy.Instant, slot, text string) {
	b.clients.history.add(now, slot, text)
}

// Idle says that the fleet is ready: what its start has needed may be given back.
func (b *Bridge) Idle() { b.clients.Idle() }
