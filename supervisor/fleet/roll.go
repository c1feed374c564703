// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/decnet/prefork/supervisor/policy"
)

// A slot is moved to another revision by a slot of the same name that takes its place:
//
//	start-first   web.0 ready ──────────── leaving ── ends
//	              └─ next: starting ─ ready ─ proven: it is web.0 now
//	stop-first    web.0 stopping ── ends
//	              └─ next: waits for that, then starts, and is web.0 at once
//
// Until it is proven nothing has happened that could not be taken back. A slot without a
// process is replaced on the spot.

// role is what a slot is for its name.
type role int

const (
	current   role = iota
	successor      // is to take the place of the current one
	leaving        // has no place any more, and ends
)

// move is a slot's part in a change.
type move struct {
	role     role
	next     *slot // that is to take its place
	former   *slot // whose place it is to take
	moving   bool  // it counts for the change, and is not proven
	fresh    bool  // there was no such slot before the change
	provenAt policy.Instant
}

// onItsWay reports whether a change waits for this slot.
func (s *slot) onItsWay() bool { return s.moving || s.next != nil }

// step begins as many moves as each worker allows.
func (c *change) step(now policy.Instant) {
	for again := true; again; { // one that is moved on the spot may be what others wait for
		again = false
		for _, w := range slices.Clone(c.fleet.workers) {
			for c.fleet.change == c {
				s := c.choose(w)
				if s == nil {
					break
				}
				c.todo = slices.DeleteFunc(c.todo, func(o *slot) bool { return o == s })
				c.untried = slices.DeleteFunc(c.untried, func(o *worker) bool { return o == w })
				c.begin(now, s)
				again = true
			}
		}
	}
}

// choose is the next slot of a worker to be moved, nil if none may be now. Those that do
// not serve come first: they cannot serve less.
func (c *change) choose(w *worker) *slot {
	if c.phase == phaseProving && (!slices.Contains(c.untried, w) || c.interrupts(w) && c.provesFirst()) {
		return nil
	}
	most, onTheWay := 1, 0
	if c.phase != phaseProving {
		most = max(1, w.config.Roll.MaxUnavailable)
	}
	for _, s := range w.slots {
		if s.onItsWay() {
			onTheWay++
		}
	}
	var best *slot
	waits := false
	for _, s := range c.todo {
		switch {
		case s.worker != w || w.drains(s.index):
		case c.later(s):
			waits = true
		case s.fresh && c.phase == phaseRolling:
			return s // nobody has less of it
		case onTheWay >= most:
		case best == nil, best.serves() && !s.serves():
			best = s
		}
	}
	if best == nil && waits {
		c.untried = slices.DeleteFunc(c.untried, func(o *worker) bool { return o == w }) // its canary would wait for those of others
	}
	return best
}

// interrupts reports whether the canary of a worker is missed while it is replaced.
func (c *change) interrupts(w *worker) bool {
	return c.configOf(w.config.Name).Roll.Order != policy.StartFirst && !slices.ContainsFunc(w.slots, func(s *slot) bool { return s.fresh })
}

// provesFirst reports whether there are canaries, not proven yet, whose failure nobody would
// notice: those that would be missed wait for them.
func (c *change) provesFirst() bool {
	return slices.ContainsFunc(c.fleet.workers, func(w *worker) bool {
		onItsWay := slices.ContainsFunc(w.slots, (*slot).onItsWay)
		return w.stays && (onItsWay || slices.Contains(c.untried, w)) && !c.interrupts(w)
	})
}

// drains reports whether a predecessor of that number still ends: there are never three
// processes of one slot.
func (w *worker) drains(index int) bool {
	return slices.ContainsFunc(w.leaving, func(s *slot) bool { return s.index == index && s.proc != 0 && !s.stuck() })
}

// stuck reports whether SIGKILL did not end it: that is not waited for.
func (s *slot) stuck() bool { return s.state == StateKilling && s.deadline == policy.Never }

func (s *slot) serves() bool { return s.state == StateReady || s.state == StateListening }

// begin moves a slot.
func (c *change) begin(now policy.Instant, s *slot) {
	switch {
	case s.fresh:
		if s.moving = !s.config.OnDemand; !s.moving {
			c.moved++ // it listens, once there is something to start it from
		}
		s.start(now)
		c.letWait(s)
		return
	case s.stuck() && !c.passes(c.configOf(s.config.Name)):
		c.fail(now, ChangeFailed, s.name+stuckText)
		return
	}
	n := c.slot(s.worker, s.index)
	n.succeeds(s)
	c.fleet.do(OpenSlot{Info: n.info()})
	switch {
	case s.state == StateExited && len(c.Slots) == 0, s.state == StateListening && n.config.OnDemand:
		n.state, n.why, n.since, n.held = s.state, s.why, s.since, s.held
		n.takePlace(now, "")
		c.moved++
	case s.proc == 0 || s.stuck():
		n.moving = c.phase != phaseReturning
		n.takePlace(now, "")
		n.woken = true
		n.start(now)
		c.letWait(n)
	default:
		n.moving, n.role, n.former, s.next = true, successor, s, n
		c.fleet.arrange()
		switch {
		case s.state == StateStopping || s.state == StateKilling: // it waits for that
		case n.config.Roll.Order == policy.StartFirst:
			n.woken = true
			n.start(now)
		default:
			s.stop(now, KindSlotStops, "is to be replaced")
		}
	}
}

const stuckText = ": its process does not end from SIGKILL"

// passes reports whether a slot is replaced though its process stays: on the way back it
// has to be.
func (c *change) passes(w *policy.Worker) bool {
	return c.phase == phaseReturning || w.Roll.Order == policy.StartFirst
}

// stuckOnItsWay: a change does not wait for a process that does not end from SIGKILL.
func (s *slot) stuckOnItsWay(now policy.Instant) {
	c := s.fleet.change
	switch {
	case c == nil:
	case s.role == successor && c.phase == phaseReturning:
		s.moving = false
		s.takePlace(now, "goes back")
	case s.role == successor:
		s.former.next = nil
		s.depart()
		s.fleet.arrange()
		c.fail(now, ChangeFailed, s.name+stuckText)
	case s.next != nil && c.passes(s.next.config):
		s.givePlace(now)
	case s.next != nil:
		c.fail(now, ChangeFailed, s.name+stuckText)
	case s.moving:
		s.failChange(now, "its process does not end from SIGKILL")
	}
}

// givePlace gives a slot's place to its successor, which starts if it has waited for that.
func (s *slot) givePlace(now policy.Instant) {
	n := s.next
	n.takePlace(now, "")
	if n.state == StateWaiting {
		n.woken = true
		n.start(now)
	}
}

// succeeds gives a slot the record of the one before: to be replaced is no failure, and no
// restart.
func (s *slot) succeeds(old *slot) {
	s.since, s.goes = old.since, old.goes
	s.record = record{
		startCount: max(0, old.startCount-1), restarts: old.restarts, recycled: old.recycled, tasks: s.tasks, lines: s.lines,
	}
	for i := range s.tasks {
		if t := old.taskNamed(s.tasks[i].name); t != nil {
			s.tasks[i].restarts += t.restarts
		}
	}
	if old.atOnce {
		s.tooLarge = old.tooLarge + 1
	}
}

// takePlace makes a slot the current one of its name. The one before ends.
func (s *slot) takePlace(now policy.Instant, why string) {
	w := s.worker
	old := w.slots[s.index]
	w.slots[s.index] = s
	s.role, s.former, old.next = current, nil, nil
	old.depart()
	old.end(now, why)
	s.fleet.arrange()
}

// depart gives up the place of a slot, or the claim to one.
func (s *slot) depart() {
	s.role, s.former, s.moving, s.provenAt = leaving, nil, false, policy.Never
	s.worker.leaving = append(s.worker.leaving, s)
}

// leave ends a slot that nothing takes the place of.
func (s *slot) leave(now policy.Instant, why string) {
	s.worker.slots = slices.DeleteFunc(s.worker.slots, func(o *slot) bool { return o == s })
	s.depart()
	s.end(now, why)
	s.fleet.arrange()
}

// end stops what a slot that leaves has.
func (s *slot) end(now policy.Instant, why string) {
	switch {
	case s.proc == 0:
		s.withdraw()
		s.enter(now, StateExited, policy.Never, "", Debug, cmp.Or(why, "its place is another's"))
	case s.state == StateStarting || s.state == StateReady:
		s.stop(now, KindSlotStops, why)
	}
}

// withdraw takes back the request for a process.
func (s *slot) withdraw() {
	p := &s.floor.pool
	waited := slices.Contains(p.queue, s)
	p.queue = slices.DeleteFunc(p.queue, func(waits *slot) bool { return waits == s })
	if waited && len(p.queue) == 0 && len(p.spares) >= p.wanted() {
		p.abandon() // what it asked for is not wanted any more
	}
}

// withdrawSuccessor ends the successor of a slot. One that was stopped for its sake starts again.
func (c *change) withdrawSuccessor(now policy.Instant, s *slot) {
	n := s.next
	s.next = nil
	n.depart()
	n.end(now, "is not wanted any more")
	if s.state == StateStopping || s.state == StateKilling {
		s.startOnceEnded = !s.held
	}
}

// proven: a slot was ready for long enough.
func (s *slot) proven(now policy.Instant) {
	s.provenAt, s.moving = policy.Never, false
	c, place := s.fleet.change, ""
	if c != nil {
		c.moved++
	}
	recycled := c != nil && c.Kind == ChangeRecycle
	if s.role == successor {
		place = fmt.Sprintf("takes the place of pid %d", s.former.pid)
		if !recycled {
			s.report(KindSlotReplaced, Info, place, End{})
		}
		s.takePlace(now, "was replaced")
		place = "; " + place
	}
	if recycled {
		s.isRecycled(c, place)
	}
}

// concludeMove is the end of a process whose slot has another to take its place, or is to
// take one, or has lost its own. Any other slot is left to the restart policy.
func (s *slot) concludeMove(now policy.Instant, what string) bool {
	switch {
	case s.role == leaving:
		place := "; its place is another's"
		if w := s.worker; !w.stays || s.index >= len(w.slots) {
			place = "; there is no such slot any more"
		}
		s.enter(now, StateExited, policy.Never, s.endKind(KindSlotExited), Info, what+place)
		s.release()
	case s.next != nil: // it ended by itself, or was stopped for its successor
		s.enter(now, StateExited, policy.Never, s.endKind(KindSlotExited), Info, what+"; its successor takes its place")
		s.release()
		s.givePlace(now)
	case s.role == successor:
		s.cannotSucceed(now, what)
	default:
		return false
	}
	return true
}

// cannotSucceed: a successor has ended. On the way back it takes the place all the same,
// and its own policy holds.
func (s *slot) cannotSucceed(now policy.Instant, what string) {
	c, former := s.fleet.change, s.former
	if c.phase == phaseReturning {
		s.moving = false
		s.takePlace(now, "goes back")
		s.conclude(now, what)
		return
	}
	s.enter(now, StateFailed, policy.Never, s.endKind(KindSlotFailed), Warning, what+"; its predecessor goes on")
	s.release()
	former.next = nil
	s.depart()
	s.fleet.arrange()
	c.fail(now, ChangeFailed, s.name+": "+what)
}

// failChange ends the change that a slot without a process any more was moved by, unless
// it was proven and has ended well: it is recycled, or has finished.
func (s *slot) failChange(now policy.Instant, what string) {
	c := s.fleet.change
	moving := s.moving
	s.moving = false
	if c != nil && moving && s.state == StateExited && s.config.Oneshot {
		c.moved++ // it has done what it was started for
		return
	}
	if c != nil && c.phase != phaseReturning && s.revision == c.Revision && (moving || s.lastResult != policy.Success && c.Kind != ChangeRecycle) {
		c.fail(now, ChangeFailed, s.name+": "+what)
	}
}
