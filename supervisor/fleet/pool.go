// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// spare is a process that waits at its gate and can become any entry slot.
type spare struct {
	proc       Proc
	pid        int
	generation int
	since      policy.Instant
}

// pool turns slots that want a process into requests to the floor: as many at a time as
// it forks, and the next when all of them are answered. Either no slot is queued or there
// is no spare. due is set while a new spare must wait because the last one did not live.
type pool struct {
	floor    *floor
	requests []Proc         // outstanding
	deadline policy.Instant // of the next answer; of the killed spares once the fleet stops
	spares   []spare
	killed   []Proc  // that were spares, too many
	queue    []*slot // that are starting and wait for a process
	due      policy.Instant
	failures int
}

func (p *pool) empty() bool { return len(p.requests) == 0 && len(p.spares) == 0 && len(p.killed) == 0 }

// patience is how long the next answer may take.
func (p *pool) patience() time.Duration {
	return forkTimeout + time.Duration(len(p.requests)-1)*oneMoreFork
}

// answered forgets a request.
func (p *pool) answered(now policy.Instant, id Proc) {
	p.requests = slices.DeleteFunc(p.requests, func(r Proc) bool { return r == id })
	p.deadline = policy.Never
	if len(p.requests) > 0 {
		p.deadline = now.Add(p.patience())
	}
}

// wanted is how many spares there are to be.
func (p *pool) wanted() int {
	if f := p.floor.fleet; f.tries(p.floor) {
		return f.change.cfg.Spares
	}
	return p.floor.fleet.cfg.Spares
}

// trim kills spares that are too many. Nothing can become a slot of them from then on.
func (p *pool) trim() {
	for len(p.spares) > p.wanted() {
		p.floor.fleet.signal(p.spares[0].proc, policy.SIGKILL, true)
		p.killed = append(p.killed, p.spares[0].proc)
		p.spares = slices.Delete(p.spares, 0, 1)
	}
}

// canFork reports whether a slot that is due can get a process soon.
func (p *pool) canFork() bool { return p.floor.state == floorUp || len(p.spares) > 0 }

// serve lets spares become the slots that wait longest.
func (p *pool) serve(now policy.Instant) {
	for len(p.queue) > 0 && len(p.spares) > 0 {
		s, process := p.queue[0], p.spares[0]
		p.queue = slices.Delete(p.queue, 0, 1)
		p.spares = slices.Delete(p.spares, 0, 1)
		p.failures = 0 // this one lived
		s.assign(now, process.proc, process.pid, process.generation)
	}
}

// mostUnfit is how many processes a slot passes over before it waits as after a failure.
const mostUnfit = 3

// passOver gives a slot the next process: the one that was to become it is not fit.
func (s *slot) passOver(now policy.Instant, why string) {
	if s.state != StateStarting || !s.assigned || s.running || !s.config.Entry {
		return
	}
	p, unfit := &s.floor.pool, s.proc
	if s.floor.ending() {
		s.spawnFailed(now, why) // there is no next one
		return
	}
	s.fleet.do(Report{Level: Warning, Kind: KindSpareFailed, PID: s.pid, Generation: s.generation, Text: "spare: " + why + "; passed over, sent SIGKILL"})
	s.release()
	p.killed = append(p.killed, unfit)
	s.fleet.signal(unfit, policy.SIGKILL, true)
	if s.unfit++; s.unfit > mostUnfit {
		s.spawnFailed(now, "spare: "+why)
		return
	}
	s.deadline = policy.Never // the floor has a deadline of its own
	p.queue = slices.Insert(p.queue, 0, s)
	p.serve(now)
}

// advance makes the next requests: for slots that wait, else for a spare, but a spare
// only while no slot is on its way, to keep out of its way.
func (p *pool) advance(now policy.Instant) {
	if now >= p.due {
		p.due = policy.Never
	}
	if now >= p.deadline {
		p.timeout(now)
	}
	f := p.floor.fleet
	if p.floor.ending() || p.floor.state != floorUp || len(p.requests) > 0 {
		return
	}
	n := min(len(p.queue), p.floor.forks)
	short := len(p.spares) < p.wanted() && p.due == policy.Never
	if n == 0 && (short || f.agenda.probe.waits(p.floor)) && !f.anyOnItsWay() {
		n = 1
	}
	for ; n > 0; n-- {
		id := f.newProc()
		p.requests = append(p.requests, id)
		p.deadline = now.Add(p.patience())
		f.do(Fork{Proc: id, Floor: p.floor.proc, More: n > 1})
	}
}

// timeout replaces a floor that has not answered. In a fleet that stops, it
// lets go of spares that do not end.
func (p *pool) timeout(now policy.Instant) {
	if p.floor.ending() {
		why := fmt.Sprintf("%s not ended %s after SIGKILL", times(len(p.spares)+len(p.killed), "spare"), policy.Span(killGrace))
		p.deadline = policy.Never
		if p.floor.fleet.phase != stopping {
			p.floor.fleet.report(Err, why)
			return
		}
		p.floor.fleet.blame(why)
		p.spares, p.killed = nil, nil
		return
	}
	why := fmt.Sprintf("did not fork within %s", policy.Span(p.patience()))
	p.abandon()
	if p.floor.state == floorUp {
		p.floor.end(now, why)
	}
}

// abandon gives up all requests.
func (p *pool) abandon() {
	for _, id := range p.requests {
		p.floor.fleet.do(Abandon{Proc: id})
		p.deadline = policy.Never
	}
	p.requests = nil
}

// introduced takes the process that was asked for.
func (p *pool) introduced(now policy.Instant, ev Introduced) {
	p.answered(now, ev.Proc)
	if probe := &p.floor.fleet.agenda.probe; len(p.queue) == 0 && probe.waits(p.floor) {
		probe.begin(p.floor.fleet, ev)
		return
	}
	p.spares = append(p.spares, spare{proc: ev.Proc, pid: ev.PID, generation: p.floor.number, since: now})
	p.serve(now)
	p.trim() // a slot may not wait any more
}

// forkFailed: the slot that has waited longest pays with a backoff; if none
// waits, the next spare does. The fault of a floor that ends is nobody's.
func (p *pool) forkFailed(now policy.Instant, id Proc, why string) {
	p.answered(now, id)
	switch {
	case p.floor.state != floorUp:
	case len(p.queue) == 0 && p.floor.fleet.agenda.probe.waits(p.floor):
		p.floor.fleet.agenda.probe.end(p.floor.fleet, why)
	case len(p.queue) == 0:
		p.spareFailed(now, why)
	default:
		s := p.queue[0]
		p.queue = slices.Delete(p.queue, 0, 1)
		s.spawnFailed(now, why)
	}
}

// spareFailed makes the next spare wait. Spares that end together are one
// failure.
func (p *pool) spareFailed(now policy.Instant, why string) {
	if p.due == policy.Never {
		p.failures++
		p.due = now.Add(policy.Backoff(floorBackoff, maxFloorBackoff, p.failures))
	}
	p.floor.fleet.reportKind(KindSpareFailed, Warning, fmt.Sprintf("spare: %s; the next one in %s", why, policy.Span(p.due.Sub(now))))
}

// exited drops a spare. It has run no user code, so it left nothing behind.
func (p *pool) exited(now policy.Instant, ev Exited) {
	i := slices.IndexFunc(p.spares, func(s spare) bool { return s.proc == ev.Proc })
	if i < 0 {
		p.killed = slices.DeleteFunc(p.killed, func(id Proc) bool { return id == ev.Proc })
		if p.floor.ending() && p.empty() {
			p.deadline = policy.Never
		}
		return
	}
	if now.Sub(p.spares[i].since) >= maxFloorBackoff {
		p.failures = 0 // it lived
	}
	p.spares = slices.Delete(p.spares, i, i+1)
	switch {
	case !p.floor.ending():
		p.spareFailed(now, howItEnded(ev.Exit))
	case p.empty():
		p.deadline = policy.Never
	}
}

// stop kills the spares: no user code runs in them. A worker that is being
// forked finds its gate closed.
func (p *pool) stop(now policy.Instant) {
	p.abandon()
	p.queue, p.due = nil, policy.Never
	for _, s := range p.spares {
		p.floor.fleet.signal(s.proc, policy.SIGKILL, true)
	}
	if !p.empty() {
		p.deadline = now.Add(killGrace)
	}
}

// probe is a process that a floor forks, as it forks a spare, to list its objects for
// somebody who asks. It is no slot and no spare, runs no user code, and there is one at
// most. One that does not end in time is killed.
type probe struct {
	floor    *floor // nil: there is none
	proc     Proc   // 0: it is not forked yet
	pid      int
	asker    uint64         // who is to be answered; 0: was
	killed   bool           // SIGKILL was sent
	deadline policy.Instant // Never if there is none
}

var noProbe = probe{deadline: policy.Never}

// examine has the floor of a generation fork a probe.
func (f *Fleet) examine(now policy.Instant, ev Examine) {
	i := slices.IndexFunc(f.floors, func(l *floor) bool { return l.number == ev.Generation && l.state == floorUp })
	refusal := ""
	switch {
	case f.phase == stopping:
		refusal = "the fleet stops"
	case i < 0:
		refusal = fmt.Sprintf("there is no floor of generation %d", ev.Generation)
	case f.agenda.probe.floor != nil:
		refusal = "a floor is being examined already"
	}
	if refusal != "" {
		f.do(Answer{ID: ev.ID, Refusal: refusal})
		return
	}
	f.agenda.probe = probe{floor: f.floors[i], asker: ev.ID, deadline: now.Add(probeTimeout)}
	f.floors[i].report("", Info, "floor: its objects are listed for "+ev.Who)
}

// is reports whether it is that process.
func (b *probe) is(p Proc) bool { return b.proc == p && p != 0 }

// waits reports whether a floor is to fork it.
func (b *probe) waits(l *floor) bool { return b.floor == l && b.proc == 0 }

// begin takes the process that was forked.
func (b *probe) begin(f *Fleet, ev Introduced) {
	b.proc, b.pid = ev.Proc, ev.PID
	f.do(Probe{Proc: b.proc})
}

// runs: it has its orders, and waits for who has asked.
func (b *probe) runs(f *Fleet, p Proc) {
	if b.is(p) && b.asker != 0 {
		f.do(Answer{ID: b.asker, PID: b.pid})
		b.asker = 0
	}
}

func (b *probe) cannotBecome(f *Fleet, ev CannotBecome) {
	if b.is(ev.Proc) {
		b.refuse(f, ev.Text) // its end follows
	}
}

func (b *probe) refuse(f *Fleet, why string) {
	if b.asker != 0 {
		f.do(Answer{ID: b.asker, Refusal: "the floor's objects cannot be listed: " + why})
		b.asker = 0
	}
}

// end forgets it: it has ended, or will not be. It has run no user code, so it left
// nothing behind.
func (b *probe) end(f *Fleet, why string) {
	b.refuse(f, why)
	*b = noProbe
}

// kill ends it before its time.
func (b *probe) kill(now policy.Instant, f *Fleet, why string) {
	switch {
	case b.floor == nil:
	case b.proc == 0:
		b.end(f, why)
	case !b.killed:
		b.refuse(f, why)
		b.killed, b.deadline = true, now.Add(killGrace)
		f.signal(b.proc, policy.SIGKILL, true)
	}
}

// advance ends it when its time is over, or its floor is.
func (b *probe) advance(now policy.Instant, f *Fleet) {
	switch {
	case b.floor == nil:
	case b.proc == 0 && b.floor.state != floorUp:
		b.end(f, "the floor has ended")
	case now < b.deadline:
	case b.killed:
		f.blame(fmt.Sprintf("probe %d of the floor has not ended %s after SIGKILL", b.pid, policy.Span(killGrace)))
		b.end(f, "")
	default:
		why := fmt.Sprintf("not done within %s", policy.Span(probeTimeout))
		f.report(Warning, fmt.Sprintf("probe %d of the floor: %s; sent SIGKILL", b.pid, why))
		b.kill(now, f, why)
	}
}
