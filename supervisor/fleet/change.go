// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
)

// A change makes of the fleet as it is the fleet that somebody proposes, without a moment
// in which it serves less. It moves slots from one revision to the other, one after the
// other, and until the last of them is proven everything that the old revision needs
// lives on: going back is the same in the other direction.
//
//	Propose ──> loading ──> proving ──> rolling ──> commit: done
//	            the new     a canary    the rest
//	            floor       of each        │
//	                        worker ────────┴──> returning ──> failed
//
// What is not in its plan is not touched. One change is under way at a time, and one
// waits, the newest.

// Revision numbers what a fleet was told to be: 1 is the file with which it was started.
type Revision int

// ChangeID identifies a change for as long as the fleet lives. None is used twice.
type ChangeID uint64

// ChangeKind is what somebody wants.
type ChangeKind string

// The kinds of changes.
const (
	ChangeReload  ChangeKind = "reload"  // what the file says now
	ChangeRestart ChangeKind = "restart" // all of it anew, or some slots
)

// The kinds of reports about a change.
const (
	KindChangeBegins Kind = "change-begins"
	KindChangeDone   Kind = "change-done"
	KindChangeFailed Kind = "change-failed"
	KindSlotReplaced Kind = "slot-replaced" // by its successor
)

// Results of a change, in the words of its Outcome.
const (
	ChangeDone       = "done"
	ChangeFailed     = "failed"
	ChangeCancelled  = "cancelled"
	ChangeSuperseded = "superseded"
)

type changePhase int

const (
	phaseLoading   changePhase = iota // the new floor
	phaseProving                      // a canary of each worker
	phaseRolling                      // the rest
	phaseReturning                    // what was moved goes back
)

// change is one that is under way.
type change struct {
	fleet    *Fleet
	id       ChangeID
	kind     ChangeKind
	who      string
	revision Revision
	cfg      Config
	plan     Plan
	floor    *floor // from which the entries of its revision are forked
	phase    changePhase
	todo     []*slot   // that are to be moved, in the direction of the phase
	untried  []*worker // of which no canary is on its way
	moved    int
	of       int // slots in all

	result, why string // of one that returns
}

// propose takes what somebody wants, or refuses it. A change that has not begun to roll
// makes room for the newer one.
func (f *Fleet) propose(now Instant, ev Propose) {
	if why := f.refuses(&ev); why != "" {
		f.do(Answer{ID: ev.ID, Refusal: why})
		f.do(Discard{Revision: ev.Revision})
		return
	}
	if id := f.joins(&ev); id != 0 {
		f.do(Answer{ID: ev.ID, Change: id})
		f.do(Discard{Revision: ev.Revision})
		return
	}
	f.last.change++
	f.do(Answer{ID: ev.ID, Change: f.last.change})
	if ev.Reloads && f.agenda.isReady { // else the end of the start is what is waited for
		f.reloading = true
		f.do(Reloading{})
	}
	next := &proposal{Propose: ev, change: f.last.change}
	newer := fmt.Sprintf("%s %d by %s is newer", ev.Kind, next.change, ev.Who)
	if p := f.pending; p != nil {
		f.outcome(p.change, p.Kind, ChangeSuperseded, newer)
		f.do(Discard{Revision: p.Revision})
	}
	f.pending = next
	if c := f.change; c != nil && c.phase < phaseRolling {
		c.fail(now, ChangeSuperseded, newer)
	}
}

// proposal is a change that waits until it can begin.
type proposal struct {
	Propose
	change ChangeID
}

// refuses says why a change is not to be.
func (f *Fleet) refuses(ev *Propose) string {
	if f.phase == stopping {
		return "the fleet stops"
	}
	for _, name := range ev.Slots {
		if f.named(name) == nil {
			return "there is no slot " + name
		}
	}
	plan := f.planOf(ev)
	for _, w := range plan.Workers {
		for _, s := range f.slots {
			if w.Step == Roll && s.frozen && s.worker.config.Name == w.Name && ev.wants(s) {
				return fmt.Sprintf("%s is frozen, and would be replaced: prefork thaw it first", s.name)
			}
		}
	}
	return ""
}

// wants reports whether a slot is among those that are to be replaced.
func (ev *Propose) wants(s *slot) bool {
	return len(ev.Slots) == 0 || slices.Contains(ev.Slots, s.name)
}

// joins is the change that does already what is proposed, 0 if none does.
func (f *Fleet) joins(ev *Propose) ChangeID {
	if ev.Kind != ChangeReload || f.pending != nil || f.change == nil || f.change.kind != ChangeReload || f.change.phase == phaseReturning {
		return 0
	}
	if plan := Difference(f.change.cfg, *ev.Config); !plan.Empty() {
		return 0
	}
	return f.change.id
}

// planOf is what a proposal would do now.
func (f *Fleet) planOf(ev *Propose) Plan {
	if ev.Config == nil {
		plan := Again(f.cfg, ev.Fresh)
		for i := range plan.Workers {
			wanted := func(s *slot) bool { return ev.wants(s) }
			if w := f.workerNamed(plan.Workers[i].Name); !slices.ContainsFunc(w.slots, wanted) {
				plan.Workers[i].Step = Keep
			}
		}
		return plan
	}
	return Difference(f.cfg, *ev.Config)
}

// changes goes on with the change that is under way, and begins the one that waits.
func (f *Fleet) changes(now Instant) {
	if f.change != nil {
		f.change.advance(now)
	}
	if f.change == nil && f.pending != nil && f.phase == serving {
		p := f.pending
		f.pending = nil
		f.beginChange(now, p)
	}
	if f.reloading && f.change == nil && f.pending == nil {
		f.reloading = false
		f.do(Ready{})
	}
}

func (f *Fleet) beginChange(now Instant, p *proposal) {
	c := &change{
		fleet: f, id: p.change, kind: p.Kind, who: p.Who, revision: p.Revision,
		cfg: f.cfg, plan: f.planOf(&p.Propose), floor: f.floor,
	}
	if p.Config != nil {
		c.cfg = *p.Config
		c.cfg.Host = f.cfg.Host
	}
	f.change = c
	if !c.plan.Empty() {
		f.reportKind(KindChangeBegins, Notice, fmt.Sprintf("%s %d by %s: %s", c.kind, c.id, c.who, c.plan.String()))
	}
	switch c.plan.Floor.Step {
	case Roll, Add:
		c.floor = f.newFloor(c.revision, true)
		c.floor.begin(now)
		c.floor.advance(now)
	case Remove:
		c.floor = f.newFloor(c.revision, false)
	case Keep, Update:
	}
	for i := range c.plan.Workers {
		c.want(&c.plan.Workers[i], &p.Propose)
	}
	c.of = len(c.todo)
	c.advance(now)
}

// want lists what is to be moved of a worker, and makes its new slots.
func (c *change) want(plan *WorkerPlan, ev *Propose) {
	w := c.fleet.workerNamed(plan.Name)
	from := plan.From
	switch {
	case plan.Step == Remove:
		return
	case w == nil || !w.stays:
		w, from = c.fleet.newWorker(c.configOf(plan.Name)), 0
	case plan.Step == Roll:
		for _, s := range w.slots[:min(plan.From, plan.To)] {
			if ev.wants(s) {
				c.todo = append(c.todo, s)
			}
		}
	}
	for i := from; i < plan.To; i++ {
		s := c.slot(w, i)
		s.fresh = true
		w.slots = append(w.slots, s)
		c.todo = append(c.todo, s)
		c.fleet.do(OpenSlot{Info: s.info()})
	}
	if slices.ContainsFunc(c.todo, func(s *slot) bool { return s.worker == w }) {
		c.untried = append(c.untried, w)
	}
	c.fleet.arrange()
}

// slot makes one that belongs to where the phase moves slots.
func (c *change) slot(w *worker, index int) *slot {
	s := c.fleet.newSlot(w, index)
	if c.phase != phaseReturning {
		s.config, s.floor, s.revision = c.configOf(w.config.Name), c.floor, c.revision
	}
	return s
}

// configOf is a worker of the proposed fleet.
func (c *change) configOf(name string) *Worker {
	i := slices.IndexFunc(c.cfg.Workers, func(w Worker) bool { return w.Name == name })
	return &c.cfg.Workers[i]
}

// advance moves on what can be.
func (c *change) advance(now Instant) {
	if c.phase == phaseLoading {
		if c.plan.Floor.Step == Roll || c.plan.Floor.Step == Add {
			if c.floor.state != floorUp {
				return
			}
		}
		c.phase = phaseProving
	}
	for c.fleet.change == c {
		c.step(now)
		if len(c.todo) > 0 && (c.phase != phaseProving || len(c.untried) > 0) || c.anyMoving() || c.fleet.change != c {
			return
		}
		switch c.phase {
		case phaseProving:
			c.phase = phaseRolling
		case phaseRolling:
			c.commit(now)
		default:
			c.finish(now, c.result, c.why)
		}
	}
}

// anyMoving reports whether some slot is on its way.
func (c *change) anyMoving() bool {
	return slices.ContainsFunc(c.fleet.slots, func(s *slot) bool { return s.onItsWay() })
}

// fail ends a change: what it has moved goes back.
func (c *change) fail(now Instant, result, why string) {
	if c.phase == phaseReturning {
		return
	}
	c.result, c.why = result, why
	if c.phase == phaseLoading {
		c.phase = phaseReturning
		c.withdrawAll(now)
		c.finish(now, result, why)
		return
	}
	c.phase = phaseReturning
	c.withdrawAll(now)
	if len(c.todo) > 0 {
		c.fleet.reportKind("", Warning, fmt.Sprintf("%s %d: %s; what goes back: %s", c.kind, c.id, why, times(len(c.todo), "slot")))
	}
}

// withdrawAll takes back what is on its way, and lists what has to return.
func (c *change) withdrawAll(now Instant) {
	c.todo, c.untried = nil, nil
	f := c.fleet
	for _, w := range slices.Clone(f.workers) {
		w.stays = w.stays && slices.ContainsFunc(f.cfg.Workers, func(old Worker) bool { return old.Name == w.config.Name })
		for _, s := range slices.Clone(w.slots) {
			switch {
			case s.next != nil:
				c.withdrawSuccessor(now, s)
			case s.fresh:
				s.leave(now, "is not wanted any more")
			case s.revision == c.revision:
				s.moving = false
				c.todo = append(c.todo, s)
			}
		}
	}
	f.arrange()
}

// cancel ends the change that waits, or the one that is under way.
func (f *Fleet) cancel(now Instant, ev Cancel) {
	switch {
	case f.pending != nil:
		p := f.pending
		f.pending = nil
		f.outcome(p.change, p.Kind, ChangeCancelled, "by "+ev.Who)
		f.do(Discard{Revision: p.Revision})
	case f.change == nil:
		f.do(Answer{ID: ev.ID, Refusal: "no change is under way"})
		return
	case f.change.phase == phaseReturning:
		f.do(Answer{ID: ev.ID, Refusal: "it goes back already"})
		return
	default:
		f.change.fail(now, ChangeCancelled, "by "+ev.Who)
	}
	f.do(Answer{ID: ev.ID})
}

// tries reports whether a floor is that of a change: one that cannot be loaded ends it.
func (f *Fleet) tries(l *floor) bool { return f.change != nil && f.change.floor == l && f.floor != l }

// stopChange ends a change for a fleet that stops.
func (f *Fleet) stopChange() {
	const why = "the fleet stops"
	if p := f.pending; p != nil {
		f.pending = nil
		f.outcome(p.change, p.Kind, ChangeFailed, why)
	}
	if c := f.change; c != nil {
		f.change = nil
		f.outcome(c.id, c.kind, ChangeFailed, why)
	}
	for _, s := range f.slots {
		s.moving, s.fresh = false, false
		if s.next != nil {
			s.next.depart()
			s.next = nil
		}
	}
	f.arrange()
	if f.reloading {
		f.reloading = false
		f.do(Ready{})
	}
}

func (f *Fleet) workerNamed(name string) *worker {
	for _, w := range f.workers {
		if w.config.Name == name && (w.stays || len(w.slots) > 0) {
			return w
		}
	}
	return nil
}

// has reports whether a slot is to be moved, or on its way.
func (c *change) has(s *slot) bool {
	return s.onItsWay() || s.fresh || slices.Contains(c.todo, s)
}
