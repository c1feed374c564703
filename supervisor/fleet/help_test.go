// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

const (
	sec = time.Second
	ms  = time.Millisecond
)

// defaults is the policy of a worker that says nothing about it.
func defaults() policy.Policy {
	return policy.Policy{
		Restart: policy.RestartOnFailure, RestartSec: sec, RestartMaxDelay: 30 * sec, RestartReset: -1,
		TimeoutStart: 90 * sec, TimeoutStop: 15 * sec, KillSignal: policy.SIGTERM,
	}
}

func execWorker(name string, count int) policy.Worker {
	return policy.Worker{Name: name, Count: count, Policy: defaults()}
}

func entryWorker(name string, count int) policy.Worker {
	return policy.Worker{Name: name, Count: count, Entry: true, Policy: defaults()}
}

func fleetOf(workers ...policy.Worker) policy.Config {
	return policy.Config{Workers: workers, TimeoutStart: 300 * sec, Host: policy.Host{Freezer: true, Seed: 1}}
}

// player drives a fleet, one event after the other, and checks after each that
// the fleet keeps its invariants. got holds the actions of the last step.
type player struct {
	t   testing.TB
	f   *Fleet
	now policy.Instant
	got []Action

	writes bool // processes write their stacks themselves: there is no answer
}

// play starts the fleet of cfg at a time that is not 0.
func play(t testing.TB, cfg policy.Config) *player {
	t.Helper()
	p := &player{t: t, f: New(cfg), now: policy.Instant(1000 * sec)}
	p.send(Tick{})
	return p
}

// send gives the fleet events, at the time that it is.
func (p *player) send(evs ...Event) {
	p.t.Helper()
	p.got = nil
	for _, ev := range evs {
		acts := p.f.Decide(p.now, ev)
		p.got = append(p.got, acts...)
		if err := check(p.f, p.now); err != nil {
			p.t.Fatalf("after %T%+v: %v", ev, ev, err)
		}
		for _, a := range all[TakeStacks](acts) {
			if !p.writes {
				p.got = append(p.got, p.f.Decide(p.now, StacksTaken(a))...)
			}
		}
	}
}

// send is a step that gives a fleet an event.
func send(mk func(p *player) Event) func(*player) {
	return func(p *player) { p.send(mk(p)) }
}

// wait lets time pass, with a tick at each deadline, as the loop does.
func (p *player) wait(d time.Duration) {
	p.t.Helper()
	var all []Action
	end := p.now.Add(d)
	for p.f.Deadline() <= end {
		p.now = p.f.Deadline()
		p.send(Tick{})
		all = append(all, p.got...)
	}
	p.now = end
	p.send(Tick{})
	p.got = append(all, p.got...)
}

// untilDue ticks 1 ns before the next deadline, which must do nothing, and then
// at the deadline. It returns how long that was.
func (p *player) untilDue() time.Duration {
	p.t.Helper()
	due, start := p.f.Deadline(), p.now
	if due == policy.Never {
		p.t.Fatal("nothing is due")
	}
	if due-1 > p.now {
		p.now = due - 1
		p.send(Tick{})
		p.wantNothing()
	}
	p.now = due
	p.send(Tick{})
	return due.Sub(start)
}

func (p *player) slot(name string) *slot {
	p.t.Helper()
	for _, s := range p.f.slots {
		if s.name == name {
			return s
		}
	}
	p.t.Fatalf("no slot %s", name)
	return nil
}

// loaded brings the floor up.
func (p *player) loaded() {
	p.t.Helper()
	p.send(FloorLoaded{Proc: p.f.floor.proc})
}

// forked answers every request to the floor until there is none.
func (p *player) forked() {
	p.t.Helper()
	p.forkedBy(p.f.floor)
}

func (p *player) forkedBy(l *floor) {
	p.t.Helper()
	var all []Action
	for l.pool.request() != 0 {
		p.send(Introduced{l.pool.request(), 100 + int(l.pool.request())})
		all = append(all, p.got...)
	}
	p.got = all
}

// run brings a slot that is starting to ready.
func (p *player) run(name string) {
	p.t.Helper()
	s := p.slot(name)
	if !s.assigned && s.proc != 0 {
		p.send(Introduced{s.proc, 100 + int(s.proc)})
	}
	p.send(Running{s.proc})
	p.wantState(name, StateReady)
}

// up brings the whole fleet up.
func (p *player) up() {
	p.t.Helper()
	if p.f.floor.state == floorLoading {
		p.loaded()
	}
	for i := range p.f.slots {
		p.forked()
		if p.f.slots[i].state != StateReady {
			p.run(p.f.slots[i].name)
		}
	}
	p.forked()
}

func (p *player) exit(name string, e policy.Exit) {
	p.t.Helper()
	p.send(Exited{Proc: p.slot(name).proc, Exit: e})
}

func (p *player) wantState(name string, want State) {
	p.t.Helper()
	if s := p.slot(name); s.state != want {
		p.t.Fatalf("%s is %s (%s), want %s", name, s.state, s.why, want)
	}
}

func (p *player) wantResult(name string, want policy.Result) {
	p.t.Helper()
	if s := p.slot(name); s.result != want {
		p.t.Fatalf("the result of %s is %q, want %q", name, s.result, want)
	}
}

// wantNothing allows a new status text, which counts down.
func (p *player) wantNothing() {
	p.t.Helper()
	for _, a := range p.got {
		if _, ok := a.(Status); !ok {
			p.t.Fatalf("got %T%+v, want nothing", a, a)
		}
	}
}

func (p *player) wantQuit(code int) {
	p.t.Helper()
	if !p.f.Ended() || len(p.got) == 0 {
		p.t.Fatalf("the fleet has not ended; got %s", transcribe(p.got))
	}
	if q, ok := p.got[len(p.got)-1].(Quit); !ok || q.Code != code {
		p.t.Fatalf("got %T%+v last, want Quit %d", p.got[len(p.got)-1], p.got[len(p.got)-1], code)
	}
}

// all returns the actions of one type.
func all[A Action](acts []Action) []A {
	var found []A
	for _, a := range acts {
		if a, ok := a.(A); ok {
			found = append(found, a)
		}
	}
	return found
}

// want checks that the actions of the last step include these, in this order.
func (p *player) want(wanted ...Action) {
	p.t.Helper()
	rest := wanted
	for _, a := range p.got {
		if len(rest) > 0 && a == rest[0] {
			rest = rest[1:]
		}
	}
	if len(rest) > 0 {
		p.t.Fatalf("no %T%+v in order; got:\n%s", rest[0], rest[0], transcribe(p.got))
	}
}

// none checks that the last step had no action of type A.
func none[A Action](p *player) {
	p.t.Helper()
	if found := all[A](p.got); len(found) > 0 {
		p.t.Fatalf("got %T%+v", found[0], found[0])
	}
}

func (p *player) wantStatus(part string) {
	p.t.Helper()
	if !strings.Contains(p.f.status, part) {
		p.t.Fatalf("status %q, want %q in it", p.f.status, part)
	}
}

// check looks for what must hold between any two events.
func check(f *Fleet, now policy.Instant) error {
	if d := f.Deadline(); d <= now {
		return fmt.Errorf("deadline %d, want later than now %d", d, now)
	}
	if f.phase == ended {
		return nil
	}
	if (f.phase == draining) != (f.agenda.drainedAt != policy.Never) {
		return fmt.Errorf("phase %d, it drains until %d", f.phase, f.agenda.drainedAt)
	}
	if _, vital := f.vitalEnd(); vital != "" && f.phase != stopping {
		return fmt.Errorf("the fleet goes on though %s", vital)
	}
	for _, s := range f.slots {
		if err := checkSlot(f, s, now); err != nil {
			return fmt.Errorf("%s (%s): %w", s.name, s.state, err)
		}
	}
	for proc, s := range f.owners {
		if s.proc != proc {
			return fmt.Errorf("process %d is owned by %s, which has %d", proc, s.name, s.proc)
		}
	}
	for _, w := range f.workers {
		if err := checkPlaces(w); err != nil {
			return err
		}
	}
	return checkPool(f, now)
}

// checkPlaces: a slot has a current process and at most one successor; what else there is
// of its name ends.
func checkPlaces(w *worker) error {
	onTheWay := 0
	for i, s := range w.slots {
		switch n := s.next; {
		case s.index != i || s.role != current || s.former != nil:
			return fmt.Errorf("%s has place %d and role %d", s.name, i, s.role)
		case n != nil && (n.role != successor || n.former != s || n.next != nil || n.name != s.name || !n.moving || w.fleet.change == nil):
			return fmt.Errorf("%s has a successor that is none: %+v", s.name, n.move)
		case s.moving && w.fleet.change == nil:
			return fmt.Errorf("%s is moved by nothing", s.name)
		}
		if s.onItsWay() && !s.fresh {
			onTheWay++
		}
	}
	processes := map[int]int{} // of a name
	all := slices.Concat(w.leaving, w.slots)
	for _, s := range w.slots {
		if s.next != nil {
			all = append(all, s.next)
		}
	}
	for _, s := range all {
		// Nobody waits for one that is stuck, and when it ends, late, it may leave something.
		if s.proc != 0 && !s.stuck() && (s.role != leaving || !s.sweeping) {
			// To stop is to ask those again that did not end from SIGKILL.
			if processes[s.index]++; processes[s.index] > 2 && w.fleet.phase != stopping {
				return fmt.Errorf("%s has a third process", s.name)
			}
		}
	}
	for _, s := range w.leaving {
		if s.role != leaving || s.next != nil || s.moving || s.state != StateStopping && s.state != StateKilling {
			return fmt.Errorf("%s leaves: %s, %+v", s.name, s.state, s.move)
		}
	}
	if most := max(1, w.config.Roll.MaxUnavailable); onTheWay > most {
		return fmt.Errorf("%d slots of %s are on their way, more than %d", onTheWay, w.config.Name, most)
	}
	return nil
}

func checkSlot(f *Fleet, s *slot, now policy.Instant) error {
	_, owned := f.owners[s.proc]
	queued := slices.Contains(s.floor.pool.queue, s)
	live := s.state.live()
	switch {
	case (s.proc != 0) != owned:
		return fmt.Errorf("process %d, owned %t", s.proc, owned)
	case live != (s.proc != 0 || queued):
		return fmt.Errorf("process %d, queued %t", s.proc, queued)
	case queued && (s.state != StateStarting || s.proc != 0):
		return fmt.Errorf("queued with process %d", s.proc)
	case s.due != policy.Never && s.state != StateWaiting:
		return fmt.Errorf("due")
	case s.deadline != policy.Never && (!live || s.state == StateReady && !s.reloading || queued):
		return fmt.Errorf("has a deadline")
	case s.beatDue != policy.Never && s.state != StateReady, s.reloading && s.state != StateReady:
		return fmt.Errorf("a keep-alive or the end of a reload is due")
	case s.woken && s.state != StateWaiting:
		return fmt.Errorf("woken")
	case s.state == StateListening && !s.config.OnDemand:
		return fmt.Errorf("listens, though it is not started on demand")
	case s.state != StateReady && (s.reason != "" && s.state != StateStarting || min(s.recycleAt, s.wantedSince, s.measureAt) != policy.Never || s.measuring):
		return fmt.Errorf("is to be recycled or measured")
	case s.blocked && (s.state != StateWaiting || s.floor.pool.canFork()):
		return fmt.Errorf("blocked")
	case s.awaits != nil && (s.state != StateWaiting || s.due != policy.Never || s.waitsFor() == nil):
		return fmt.Errorf("waits for %v", s.awaits)
	case s.state == StateReady && (!s.wasReady || !s.assigned || s.sweeping):
		return fmt.Errorf("not told, or gone")
	case s.frozen && (!s.assigned || s.state != StateStarting && s.state != StateReady):
		return fmt.Errorf("frozen")
	case s.sweeping && s.state != StateKilling && s.state != StateStopping:
		return fmt.Errorf("sweeping")
	case s.sweeping && s.state == StateStopping && s.deadline.Sub(now) > leftGrace:
		return fmt.Errorf("what it left behind has %s", s.deadline.Sub(now))
	case s.killed && s.state != StateKilling:
		return fmt.Errorf("killed")
	}
	return nil
}

// request is the first one that is outstanding; 0 if none is.
func (p *pool) request() Proc {
	if len(p.requests) == 0 {
		return 0
	}
	return p.requests[0]
}

func checkPool(f *Fleet, now policy.Instant) error {
	p, l := &f.floor.pool, f.floor
	switch {
	case len(p.queue) > 0 && len(p.spares) > 0:
		return fmt.Errorf("slots wait in front of spares")
	case len(p.queue) > 0 && l.state == floorUp && len(p.requests) == 0:
		return fmt.Errorf("slots wait, but nothing is requested")
	case len(p.spares) > p.wanted():
		return fmt.Errorf("%d spares", len(p.spares))
	case len(p.requests) > 0 && (p.deadline == policy.Never || f.phase == stopping):
		return fmt.Errorf("request without an end")
	case (l.proc != 0) != (l.state == floorLoading || l.state == floorUp || l.state == floorEnding):
		return fmt.Errorf("floor state %d with process %d", l.state, l.proc)
	case l.sweeping && (l.state != floorEnding || !l.killed && l.deadline.Sub(now) > leftGrace):
		return fmt.Errorf("what the floor left behind has %s", l.deadline.Sub(now))
	case l.state == floorWaiting && l.due == policy.Never:
		return fmt.Errorf("floor is never loaded again")
	case f.agenda.isReady != (f.phase == serving || f.phase == draining) && f.phase != stopping:
		return fmt.Errorf("phase %d, ready %t", f.phase, f.agenda.isReady)
	}
	return nil
}
