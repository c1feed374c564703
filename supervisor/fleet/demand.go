// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import "time"

// demand is what is known of the connections that wait for a worker that is
// started on demand. Its sockets are watched while one of its slots listens and
// none is on its way; the sockets are level-triggered and shared with slots that
// accept from them, so that a connection is a demand at once only if no slot is
// there to take it. Else it is one if some connection still waits after
// settleTime.
type demand struct {
	watched bool
	looked  bool    // Look was asked for and is not answered
	lookAt  Instant // Never: watch
}

// settleTime is how long the slots that run have to take what waits.
const settleTime = 100 * time.Millisecond

func (f *Fleet) onDemand(s *slot) bool { return f.cfg.Workers[s.worker].OnDemand }

func (f *Fleet) advanceDemands(now Instant) {
	for w := range f.cfg.Workers {
		if f.cfg.Workers[w].OnDemand {
			f.advanceDemand(now, w)
		}
	}
}

// advanceDemand watches what is to be watched, and nothing else.
func (f *Fleet) advanceDemand(now Instant, worker int) {
	d := &f.demands[worker]
	if !f.wantsDemand(worker) {
		if d.watched {
			f.do(Unwatch{Worker: worker})
		}
		*d = demand{lookAt: Never}
		return
	}
	switch {
	case d.looked || d.watched:
	case now >= d.lookAt:
		d.looked, d.lookAt = true, Never
		f.do(Look{Worker: worker})
	case d.lookAt == Never:
		d.watched = true
		f.do(Watch{Worker: worker})
	}
}

// wantsDemand tells whether a connection could start a slot.
func (f *Fleet) wantsDemand(worker int) bool {
	listening := false
	for i := range f.slots {
		s := &f.slots[i]
		switch {
		case s.worker != worker:
		case s.state == StateListening:
			listening = true
		case s.state == StateStarting, s.woken:
			return false
		}
	}
	return listening && f.phase != stopping
}

// demanded takes the news that a connection waits.
func (f *Fleet) demanded(now Instant, ev Demand) {
	d := f.demandOf(ev.Worker)
	if d == nil || !d.watched && !d.looked {
		return
	}
	looked := d.looked
	d.watched, d.looked = false, false
	var listening *slot
	for i := range f.slots {
		s := &f.slots[i]
		switch {
		case s.worker != ev.Worker:
		case s.state == StateReady && !looked:
			d.lookAt = now.Add(settleTime)
			return
		case s.state == StateListening && listening == nil:
			listening = s
		}
	}
	listening.woken, listening.due = true, now
	f.setState(listening, StateWaiting, Debug, "a connection waits")
}

// notDemanded: the slots that run have taken what waited.
func (f *Fleet) notDemanded(ev NoDemand) {
	if d := f.demandOf(ev.Worker); d != nil {
		d.looked = false
	}
}

func (f *Fleet) demandOf(worker int) *demand {
	if worker < 0 || worker >= len(f.demands) || !f.cfg.Workers[worker].OnDemand {
		return nil
	}
	return &f.demands[worker]
}

// listen makes a slot wait for a connection, without a process.
func (f *Fleet) listen(s *slot) {
	s.due = Never
	f.setState(s, StateListening, Info, "a connection starts it")
}

// listenDelay is how long a slot that ended cleanly stays away from its sockets,
// so that one that ends without having accepted is not started without end.
func (f *Fleet) listenDelay(now Instant, s *slot) time.Duration {
	s.failures = 0
	return max(0, s.startedAt.Add(minStartInterval).Sub(now))
}
