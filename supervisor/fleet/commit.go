// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"

	"github.com/decnet/prefork/supervisor/policy"
)

// fail ends a change: what it has moved goes back.
func (c *change) fail(now policy.Instant, result, why string) {
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
		c.fleet.reportKind("", Warning, fmt.Sprintf("%s %d: %s; what goes back: %s", c.Kind, c.id, why, times(len(c.todo), "slot")))
	}
}

// withdrawAll takes back what is on its way, and lists what has to return.
func (c *change) withdrawAll(now policy.Instant) {
	c.todo, c.untried = nil, nil
	f := c.fleet
	for _, w := range slices.Clone(f.workers) {
		w.stays = w.stays && slices.ContainsFunc(f.cfg.Workers, func(old policy.Worker) bool { return old.Name == w.config.Name })
		for _, s := range slices.Clone(w.slots) {
			switch {
			case s.next != nil:
				c.withdrawSuccessor(now, s)
			case s.fresh:
				s.leave(now, "is not wanted any more")
			case c.Kind == ChangeRecycle:
				s.moving, s.provenAt = false, policy.Never // it has no place to go back to
			case s.revision == c.Revision:
				s.moving = false
				c.todo = append(c.todo, s)
			}
		}
	}
	f.arrange()
}

// cancel ends the change that waits, or the one that is under way.
func (f *Fleet) cancel(now policy.Instant, ev Cancel) {
	switch {
	case f.pending != nil:
		p := f.pending
		f.pending = nil
		f.outcome(p.id, p.Kind, ChangeCancelled, "by "+ev.Who)
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

// stopChange ends a change for a fleet that stops.
func (f *Fleet) stopChange() {
	f.dropPending()
	if c := f.change; c != nil {
		f.change = nil
		if c.Kind != ChangeRecycle {
			f.outcome(c.id, c.Kind, ChangeFailed, fleetStops)
		}
	}
	for _, s := range f.slots {
		s.moving, s.fresh = false, false
		if s.next != nil {
			s.next.depart()
			s.next = nil
		}
	}
	f.arrange()
	f.endReloading()
}

const fleetStops = "the fleet stops"

// dropPending ends the change that waits: it will not begin.
func (f *Fleet) dropPending() {
	if p := f.pending; p != nil {
		f.pending = nil
		f.outcome(p.id, p.Kind, ChangeFailed, fleetStops)
	}
}

// endReloading tells the service manager that it need not wait any more.
func (f *Fleet) endReloading() {
	if f.reloading {
		f.reloading = false
		f.do(Ready{})
	}
}

// finish ends a change that was not committed.
func (c *change) finish(now policy.Instant, result, why string) {
	if c.Kind == ChangeRecycle {
		c.putOff(now, result, why)
		return
	}
	f := c.fleet
	f.change = nil
	if c.floor != f.floor {
		c.floor.retire(now)
	}
	f.outcome(c.id, c.Kind, result, why)
	f.do(Discard{Revision: c.Revision})
}

// commit makes the proposed fleet the fleet as it is. One whose slot was recycled is.
func (c *change) commit(now policy.Instant) {
	f := c.fleet
	if c.Kind == ChangeRecycle {
		f.change = nil
		return
	}
	kept := f.cfg.Descriptors
	f.change, f.cfg, f.revision = nil, policy.StartedAs(f.cfg, c.cfg), c.Revision
	if c.floor != f.floor {
		f.floor.retire(now)
		f.floor = c.floor
	} else {
		f.cfg.Descriptors = kept
	}
	stay := []SlotID{}
	for _, plan := range c.plan.Workers {
		w := f.workerNamed(plan.Name)
		if plan.Step == policy.Remove {
			w.stays = false
			f.surplus(now, w, 0)
			continue
		}
		w.stays, w.config = true, c.configOf(plan.Name)
		if plan.Step == policy.Roll {
			w.recycleFailures, w.recycleAgain = 0, policy.Never // its successors have lived
		}
		f.surplus(now, w, plan.To)
		for _, s := range w.slots {
			recycle := s.config.Recycle
			s.config, s.floor, s.revision, s.fresh = w.config, c.floor, c.Revision, false
			if s.state == StateReady && recycle != s.config.Recycle {
				s.ages(now)
			}
			stay = append(stay, s.id)
		}
	}
	f.order()
	f.do(Commit{Revision: c.Revision, Slots: stay})
	for _, plan := range c.plan.Workers {
		f.limit(&plan)
	}
	f.floor.pool.trim()
	text := "nothing has changed"
	if !c.plan.Empty() {
		text = c.plan.String()
	}
	f.outcome(c.id, c.Kind, ChangeDone, text)
}

// surplus ends slots beyond a number.
func (f *Fleet) surplus(now policy.Instant, w *worker, most int) {
	for _, s := range slices.Clone(w.slots[min(most, len(w.slots)):]) {
		s.leave(now, "is not wanted any more")
	}
}

// limit tells the control groups of what was not replaced.
func (f *Fleet) limit(plan *policy.WorkerPlan) {
	if plan.Step != policy.Update {
		return
	}
	for _, s := range f.workerNamed(plan.Name).slots {
		if s.assigned && !s.sweeping {
			f.do(LimitSlot{Proc: s.proc, Slot: s.id})
		}
	}
}

// order puts the workers in the order of the file; what ends comes last.
func (f *Fleet) order() {
	place := func(w *worker) int {
		i := slices.IndexFunc(f.cfg.Workers, func(c policy.Worker) bool { return c.Name == w.config.Name })
		if i < 0 || !w.stays {
			return len(f.cfg.Workers)
		}
		return i
	}
	slices.SortStableFunc(f.workers, func(a, b *worker) int { return place(a) - place(b) })
	f.arrange()
}

// outcome says what has become of a change.
func (f *Fleet) outcome(id ChangeID, kind ChangeKind, result, text string) {
	f.lastChange = lastChange{id, kind, result, text}
	f.do(Outcome{Change: id, Kind: kind, Result: result, Text: text})
	if result == ChangeDone {
		f.reportKind(KindChangeDone, Notice, fmt.Sprintf("%s %d is done: %s", kind, id, text))
		return
	}
	level := Notice // somebody wanted that
	if result == ChangeFailed {
		level = Err
	}
	f.reportKind(KindChangeFailed, level, fmt.Sprintf("%s %d %s, the fleet is as it was: %s", kind, id, result, text))
}

// lastChange is the last one that has ended.
type lastChange struct {
	id           ChangeID
	kind         ChangeKind
	result, text string
}

// tidy forgets what has ended for good.
func (f *Fleet) tidy() {
	over := func(s *slot) bool { return s.state == StateExited || s.state == StateFailed }
	changed := false
	for _, w := range f.workers {
		for _, s := range w.leaving {
			if over(s) {
				f.do(CloseSlot{Slot: s.id})
				changed = true
			}
		}
		w.leaving = slices.DeleteFunc(w.leaving, over)
	}
	f.workers = slices.DeleteFunc(f.workers, func(w *worker) bool { return !w.stays && len(w.slots) == 0 && len(w.leaving) == 0 })
	f.floors = slices.DeleteFunc(f.floors, (*floor).gone)
	if changed {
		f.arrange()
	}
}

func (c *change) inStatus() string {
	switch c.phase {
	case phaseLoading:
		return fmt.Sprintf("%s: the new floor is being loaded (%s)", c.Kind, c.floor.doing())
	case phaseReturning:
		return fmt.Sprintf("%s %s (%s), going back", c.Kind, c.result, c.why)
	case phaseProving, phaseRolling:
	}
	if c.Kind == ChangeRecycle {
		return fmt.Sprintf("%s is being recycled", c.Slots[0])
	}
	return fmt.Sprintf("%s: %d of %d slots done", c.Kind, c.moved, c.of)
}
