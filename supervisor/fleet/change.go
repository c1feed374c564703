// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"

	"github.com/decnet/prefork/supervisor/policy"
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
	ChangeScale   ChangeKind = "scale"   // more slots of a worker, or fewer
	ChangeTrial   ChangeKind = "trial"   // nothing: whether a new floor could be loaded
	ChangeRecycle ChangeKind = "recycle" // one slot anew: nobody proposes it
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
	proposal
	fleet   *Fleet
	cfg     policy.Config
	plan    policy.Plan
	floor   *floor // from which the entries of its revision are forked
	phase   changePhase
	todo    []*slot   // that are to be moved, in the direction of the phase
	untried []*worker // of which no canary is on its way
	moved   int
	of      int // slots in all

	result, why string // of one that returns
	recycles    wish
}

// propose takes what somebody wants, or refuses it. Of two files the newer one makes the
// older one superfluous, if that has not begun to roll.
func (f *Fleet) propose(now policy.Instant, ev Propose) {
	if why := f.refuses(&ev); why != "" {
		f.do(Answer{ID: ev.ID, Refusal: why})
		f.do(Discard{Revision: ev.Revision})
		return
	}
	plan := f.planOf(&ev)
	if ev.Dry {
		f.do(Answer{ID: ev.ID, Plan: &plan})
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
		if f.cfg.Extend {
			f.agenda.nextExtend = now
		}
	}
	next := &proposal{Propose: ev, id: f.last.change}
	newer := fmt.Sprintf("%s %d by %s is newer", ev.Kind, next.id, ev.Who)
	if p := f.pending; p != nil {
		if p.Kind == ChangeRestart { // which was wanted, too
			next.Kind, next.Fresh = p.Kind, p.Fresh
		}
		f.outcome(p.id, p.Kind, ChangeSuperseded, newer)
		f.do(Discard{Revision: p.Revision})
	}
	f.pending = next
	f.yields(now, newer)
	if c := f.change; c != nil && c.phase < phaseRolling && next.covers(&c.proposal) {
		c.fail(now, ChangeSuperseded, newer)
	}
}

// whole reports whether a change is of all that the file says.
func (ev *Propose) whole() bool { return ev.Config != nil && ev.Kind != ChangeTrial }

// covers reports whether a newer change does all that an older one was to do.
func (p *proposal) covers(older *proposal) bool {
	return p.whole() && older.whole() && (p.Kind == ChangeRestart || older.Kind == ChangeReload)
}

// proposal is a change that waits until it can begin.
type proposal struct {
	Propose
	id ChangeID
}

// refuses says why a change is not to be.
func (f *Fleet) refuses(ev *Propose) string {
	if f.phase == draining || f.phase == stopping {
		return fleetStops
	}
	if p := f.pending; p != nil && !(p.whole() && ev.whole()) && !ev.Dry {
		return fmt.Sprintf("%s %d waits already: try again when it is done, or prefork cancel it", p.Kind, p.id)
	}
	if s := ev.Scale; s != nil {
		total := 0
		for _, w := range f.goal(ev).Workers {
			total += w.Count
		}
		switch {
		case !slices.ContainsFunc(f.cfg.Workers, func(w policy.Worker) bool { return w.Name == s.Worker }):
			return "there is no worker " + s.Worker
		case s.Count < policy.FromFile || total > policy.MaxSlots:
			return fmt.Sprintf("a worker has from 0 to %d slots, and so has a fleet", policy.MaxSlots)
		case total == 0:
			return "the fleet would have no slot left, and end: prefork stop does that"
		}
	}
	for _, name := range ev.Slots {
		if f.named(name) == nil {
			return "there is no slot " + name
		}
	}
	plan := f.planOf(ev)
	for _, w := range plan.Workers {
		for _, s := range f.slots {
			if w.Step == policy.Roll && s.frozen && s.worker.config.Name == w.Name && ev.wants(s) {
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
	if ev.Kind != ChangeReload || f.pending != nil || f.change == nil || f.change.Kind != ChangeReload || f.change.phase == phaseReturning {
		return 0
	}
	if plan := policy.Difference(f.change.cfg, f.goal(ev)); !plan.Empty() {
		return 0
	}
	return f.change.id
}

// planOf is what a proposal would do now.
func (f *Fleet) planOf(ev *Propose) policy.Plan {
	goal := f.goal(ev)
	if ev.Kind != ChangeRestart && ev.Kind != ChangeTrial {
		return policy.Difference(f.cfg, goal)
	}
	plan := policy.Again(f.cfg, goal, ev.Fresh)
	for i := range plan.Workers {
		p := &plan.Workers[i]
		wanted := func(s *slot) bool { return ev.wants(s) }
		if w := f.workerNamed(p.Name); len(ev.Slots) > 0 && !slices.ContainsFunc(w.slots, wanted) {
			p.Step = policy.Keep
		}
	}
	return plan
}

// goal is the fleet that is proposed, as far as it depends on the one that there is.
func (f *Fleet) goal(ev *Propose) policy.Config {
	switch {
	case ev.Scale != nil:
		return policy.Rescale(f.cfg, *ev.Scale)
	case ev.Config != nil:
		next := policy.KeepScale(f.cfg, *ev.Config)
		next.Host = f.cfg.Host
		return next
	default:
		return f.cfg
	}
}

// changes goes on with the change that is under way, and begins the one that waits.
func (f *Fleet) changes(now policy.Instant) {
	if f.change != nil {
		f.change.advance(now)
	}
	if f.change == nil && f.pending != nil && f.phase == serving {
		p := f.pending
		f.pending = nil
		f.beginChange(now, p)
	}
	if f.change == nil && f.pending == nil {
		f.endReloading()
	}
	f.recycle(now)
}

func (f *Fleet) beginChange(now policy.Instant, p *proposal) {
	c := &change{
		proposal: *p, fleet: f,
		cfg: f.goal(&p.Propose), plan: f.planOf(&p.Propose), floor: f.floor,
	}
	f.change = c
	what := c.plan.String()
	if c.Kind == ChangeTrial {
		what = "can the floor be loaded?"
	}
	if !c.plan.Empty() {
		f.reportKind(KindChangeBegins, Notice, fmt.Sprintf("%s %d by %s: %s", c.Kind, c.id, c.Who, what))
	}
	switch c.plan.Floor.Step {
	case policy.Roll, policy.Add:
		c.floor = f.newFloor(c.Revision, true)
		c.floor.begin(now)
		c.floor.advance(now)
	case policy.Remove:
		c.floor = f.newFloor(c.Revision, false)
	case policy.Keep, policy.Update:
	}
	for i := range c.plan.Workers {
		if c.Kind != ChangeTrial {
			c.want(&c.plan.Workers[i], &p.Propose)
		}
	}
	c.of = len(c.todo)
	c.advance(now)
}

// want lists what is to be moved of a worker, and makes its new slots.
func (c *change) want(plan *policy.WorkerPlan, ev *Propose) {
	w := c.fleet.workerNamed(plan.Name)
	from := plan.From
	switch {
	case plan.Step == policy.Remove:
		return
	case w == nil || !w.stays:
		w, from = c.fleet.newWorker(c.configOf(plan.Name)), 0
	case plan.Step == policy.Roll:
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
		s.config, s.floor, s.revision = c.configOf(w.config.Name), c.floor, c.Revision
		s.tasks = newTasks(s.config.Tasks)
	}
	return s
}

// configOf is a worker of the proposed fleet.
func (c *change) configOf(name string) *policy.Worker {
	i := slices.IndexFunc(c.cfg.Workers, func(w policy.Worker) bool { return w.Name == name })
	return &c.cfg.Workers[i]
}

// advance moves on what can be.
func (c *change) advance(now policy.Instant) {
	if c.phase == phaseLoading {
		if c.plan.Floor.Step == policy.Roll || c.plan.Floor.Step == policy.Add {
			if c.floor.state != floorUp {
				return
			}
		}
		if c.Kind == ChangeTrial {
			c.finish(now, ChangeDone, "its floor can be loaded")
			return
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

// tries reports whether a floor is that of a change: one that cannot be loaded ends it.
func (f *Fleet) tries(l *floor) bool { return f.change != nil && f.change.floor == l && f.floor != l }

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
