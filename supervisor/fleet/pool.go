// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
)

// spare is a process that waits at its gate and can become any entry slot.
type spare struct {
	proc       Proc
	pid        int
	generation int
	since      Instant
}

// pool turns slots that want a process into requests to the floor, one at a
// time. Either no slot is queued or there is no spare. due is set while a new
// spare must wait because the last one did not live.
type pool struct {
	request  Proc    // outstanding; 0 if none
	deadline Instant // of the request; of the killed spares once the fleet stops
	spares   []spare
	queue    []SlotID // slots that are starting and wait for a process
	due      Instant
	failures int
}

func (p *pool) empty() bool { return p.request == 0 && len(p.spares) == 0 }

// answered forgets the request: it has an answer, or will not get one.
func (p *pool) answered() { p.request, p.deadline = 0, Never }

// canFork tells whether a slot that is due can get a process soon.
func (f *Fleet) canFork() bool {
	return f.floor.state == floorUp || len(f.pool.spares) > 0
}

// serveQueue lets spares become the slots that wait longest.
func (f *Fleet) serveQueue(now Instant) {
	p := &f.pool
	for len(p.queue) > 0 && len(p.spares) > 0 {
		id, s := p.queue[0], p.spares[0]
		p.queue = slices.Delete(p.queue, 0, 1)
		p.spares = slices.Delete(p.spares, 0, 1)
		p.failures = 0 // this one lived
		f.tell(now, &f.slots[id], s.proc, s.pid, s.generation)
	}
}

// advancePool makes the next request: for a slot that waits, else for a spare,
// but a spare only while no slot is on its way, to keep out of its way.
func (f *Fleet) advancePool(now Instant) {
	p := &f.pool
	if now >= p.due {
		p.due = Never
	}
	if now >= p.deadline {
		f.poolTimeout(now)
	}
	if f.phase == stopping || f.floor.state != floorUp || p.request != 0 {
		return
	}
	short := len(p.spares) < f.cfg.Spares && p.due == Never
	if len(p.queue) > 0 || short && !f.anyOnItsWay() {
		p.request, p.deadline = f.newProc(), now.Add(forkTimeout)
		f.do(Fork{Proc: p.request, Floor: f.floor.proc})
	}
}

// poolTimeout replaces a floor that has not answered. In a fleet that stops, it
// lets go of spares that do not end.
func (f *Fleet) poolTimeout(now Instant) {
	p := &f.pool
	if f.phase == stopping {
		f.blame(fmt.Sprintf("%s not ended %s after SIGKILL", times(len(p.spares), "spare"), Span(killGrace)))
		p.spares, p.deadline = nil, Never
		return
	}
	f.abandonRequest()
	if f.floor.state == floorUp {
		f.endFloor(now, fmt.Sprintf("did not fork within %s", Span(forkTimeout)))
	}
}

func (f *Fleet) abandonRequest() {
	if p := &f.pool; p.request != 0 {
		f.do(Abandon{Proc: p.request})
		p.answered()
	}
}

func (f *Fleet) anyOnItsWay() bool {
	for i := range f.slots {
		if f.slots[i].state == StateStarting && f.slots[i].told && !f.slots[i].runs {
			return true
		}
	}
	return false
}

func (f *Fleet) introduced(now Instant, ev Introduced) {
	p := &f.pool
	if ev.Proc == p.request && ev.Proc != 0 {
		p.answered()
		p.spares = append(p.spares, spare{proc: ev.Proc, pid: ev.PID, generation: f.floor.generation, since: now})
		f.serveQueue(now)
		return
	}
	s := f.owned(ev.Proc)
	switch {
	case s == nil || s.told || s.sweeping:
	case s.state == StateKilling:
		s.pid = ev.PID
		f.signal(ev.Proc, SIGKILL, true)
	case s.state == StateStarting:
		f.tell(now, s, ev.Proc, ev.PID, 0)
	}
}

// spawnFailed: there is no process, or (after Go) one that cannot become the
// slot and must end.
func (f *Fleet) spawnFailed(now Instant, ev SpawnFailed) {
	s := f.owned(ev.Proc)
	switch {
	case ev.Proc == 0:
	case ev.Proc == f.floor.proc:
		f.floorExited(now, ev.Why)
	case ev.Proc == f.pool.request:
		f.forkFailed(now, ev.Why)
	case s == nil || s.sweeping:
	case s.told || s.pid != 0:
		s.result, s.refusal = Resources, ev.Why
		if s.state != StateKilling {
			f.kill(now, s, ev.Why)
		}
	default:
		f.spawnless(now, s, ev.Why)
	}
}

// spawnless settles a slot that was to get a process and will not.
func (f *Fleet) spawnless(now Instant, s *slot, why string) {
	s.result, s.refusal = Resources, why
	f.conclude(now, s, why)
}

// forkFailed: the slot that has waited longest pays with a backoff; if none
// waits, the next spare does. The fault of a floor that ends is nobody's.
func (f *Fleet) forkFailed(now Instant, why string) {
	p := &f.pool
	p.answered()
	switch {
	case f.floor.state != floorUp:
	case len(p.queue) == 0:
		f.spareFailed(now, why)
	default:
		s := &f.slots[p.queue[0]]
		p.queue = slices.Delete(p.queue, 0, 1)
		f.spawnless(now, s, why)
	}
}

// spareFailed makes the next spare wait. Spares that end together are one
// failure.
func (f *Fleet) spareFailed(now Instant, why string) {
	p := &f.pool
	if p.due == Never {
		p.failures++
		p.due = now.Add(backoff(floorBackoff, floorBackoffMax, p.failures))
	}
	f.reportKind(KindSpareFailed, Warning, fmt.Sprintf("spare: %s; the next one in %s", why, Span(p.due.Sub(now))))
}

// exited takes the end of any process of the fleet.
func (f *Fleet) exited(now Instant, ev Exited) {
	s := f.owned(ev.Proc)
	switch {
	case ev.Proc == 0:
	case ev.Proc == f.floor.proc:
		f.floorEnded(now, ev)
	case ev.Proc == f.pool.request:
		f.forkFailed(now, howItEnded(ev.Exit))
	case s != nil:
		f.slotExited(now, s, ev)
	default:
		f.spareExited(now, ev)
	}
}

// spareExited drops a spare. It has run no user code, so it left nothing behind.
func (f *Fleet) spareExited(now Instant, ev Exited) {
	p := &f.pool
	i := slices.IndexFunc(p.spares, func(s spare) bool { return s.proc == ev.Proc })
	if i < 0 {
		return
	}
	if now.Sub(p.spares[i].since) >= floorBackoffMax {
		p.failures = 0 // it lived
	}
	p.spares = slices.Delete(p.spares, i, i+1)
	switch {
	case f.phase != stopping:
		f.spareFailed(now, howItEnded(ev.Exit))
	case len(p.spares) == 0:
		p.deadline = Never
	}
}

// stopPool kills the spares: no user code runs in them. A worker that is being
// forked finds its gate closed.
func (f *Fleet) stopPool(now Instant) {
	p := &f.pool
	f.abandonRequest()
	p.queue, p.due = nil, Never
	for _, s := range p.spares {
		f.signal(s.proc, SIGKILL, true)
		p.deadline = now.Add(killGrace)
	}
}
