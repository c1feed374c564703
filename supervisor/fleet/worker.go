// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// worker is one worker of the fleet, with its slots.
type worker struct {
	fleet  *Fleet
	id     WorkerID
	config *policy.Worker // of the fleet as it is
	slots  []*slot
	demand demand

	leaving []*slot // that were replaced or are not wanted any more, and end
	stays   bool    // it is in the fleet as it is, or in that which a change makes of it

	recycleFailures int            // in a row
	recycleAgain    policy.Instant // none of its slots is recycled before; Never: each may be
}

// demand is what is known of the connections that wait for a worker that is
// started on demand. Its sockets are watched while one of its slots listens and
// none is on its way; the sockets are level-triggered and shared with slots that
// accept from them, so that a connection is a demand at once only if no slot is
// there to take it. Else it is one if some connection still waits after
// settleTime.
type demand struct {
	watched bool
	looked  bool           // PollSockets was asked for and is not answered
	lookAt  policy.Instant // Never: watch
}

// settleTime is how long the slots that run have to take what waits.
const settleTime = 100 * time.Millisecond

// advance watches what is to be watched, and nothing else.
func (w *worker) advance(now policy.Instant) {
	d := &w.demand
	switch {
	case !w.config.OnDemand, !w.wantsDemand():
		if d.watched {
			w.fleet.do(Unwatch{Worker: w.id})
		}
		*d = demand{lookAt: policy.Never}
	case d.looked || d.watched:
		d.lookAt = policy.Never // a successor that has become ready meanwhile is not waited for
	case now >= d.lookAt:
		d.looked, d.lookAt = true, policy.Never
		w.fleet.do(PollSockets{Worker: w.id})
	case d.lookAt == policy.Never:
		d.watched = true
		w.fleet.do(Watch{Worker: w.id})
	}
}

// wantsDemand reports whether a connection could start a slot.
func (w *worker) wantsDemand() bool {
	listening := false
	for _, s := range w.slots {
		switch {
		case s.state == StateListening:
			listening = true
		case s.state == StateStarting, s.woken:
			return false
		}
	}
	return listening && w.fleet.phase != stopping
}

// demanded takes the news that a connection waits.
func (w *worker) demanded(now policy.Instant) {
	d := &w.demand
	if !d.watched && !d.looked {
		return
	}
	looked := d.looked
	d.watched, d.looked = false, false
	var listening *slot
	for _, s := range w.slots {
		switch {
		case s.state == StateReady && !looked:
			d.lookAt = now.Add(settleTime)
			return
		case s.state == StateListening && listening == nil:
			listening = s
		}
	}
	listening.enter(now, StateWaiting, now, "", Debug, "a connection waits")
	listening.woken = true
}

// notDemanded: the slots that run have taken what waited.
func (w *worker) notDemanded() { w.demand.looked = false }

// listenDelay is how long a slot that ended cleanly stays away from its sockets,
// so that one that ends without having accepted is not started without end.
func (s *slot) listenDelay(now policy.Instant) time.Duration {
	s.failures = 0
	return max(0, s.startedAt.Add(minStartInterval).Sub(now))
}

func (f *Fleet) newWorker(config *policy.Worker) *worker {
	f.last.worker++
	w := &worker{fleet: f, id: f.last.worker, config: config, stays: true, demand: demand{lookAt: policy.Never}, recycleAgain: policy.Never}
	f.workers = append(f.workers, w)
	return w
}

// arrange lists the slots anew: each worker's in their order, with those that are to
// replace them, and then those that were replaced.
func (f *Fleet) arrange() {
	f.slots = f.slots[:0:0]
	for _, w := range f.workers {
		for _, s := range w.slots {
			f.slots = append(f.slots, s)
			if s.next != nil {
				f.slots = append(f.slots, s.next)
			}
		}
		f.slots = append(f.slots, w.leaving...)
	}
}

// SlotInfo is what does not change of a slot.
type SlotInfo struct {
	ID         SlotID
	Revision   Revision
	Name       string // "web.0": at any time it belongs to one slot
	Worker     WorkerID
	WorkerName string
	Index      int // among the slots of its worker
}

// Slots lists the slots, each worker's in order, in the order of the Config.
func (f *Fleet) Slots() (all []SlotInfo) {
	for _, s := range f.slots {
		all = append(all, s.info())
	}
	return all
}

// named returns a slot by its name, nil if there is none.
func (f *Fleet) named(name string) *slot {
	for _, s := range f.slots {
		if s.name == name && s.role == current {
			return s
		}
	}
	return nil
}

// demanding returns a worker that is started on demand by its id, nil if there is none.
func (f *Fleet) demanding(id WorkerID) *worker {
	for _, w := range f.workers {
		if w.id == id && w.config.OnDemand {
			return w
		}
	}
	return nil
}

func (s *slot) info() SlotInfo {
	return SlotInfo{ID: s.id, Revision: s.revision, Name: s.name, Worker: s.worker.id, WorkerName: s.config.Name, Index: s.index}
}

// newSlot makes a slot of the fleet as it is.
func (f *Fleet) newSlot(w *worker, index int) *slot {
	f.last.slot++
	return &slot{
		fleet: f, worker: w, id: f.last.slot, index: index, name: fmt.Sprintf("%s.%d", w.config.Name, index),
		origin: origin{w.config, f.floor, f.revision}, move: move{provenAt: policy.Never},
		due: policy.Never, deadline: policy.Never, run: newRun(),
		record: record{tasks: newTasks(w.config.Tasks), lines: taskLines{left: maxTaskLines}},
	}
}

func (s *slot) policy() *policy.Policy { return &s.config.Policy }
