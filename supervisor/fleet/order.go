// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/decnet/prefork/supervisor/policy"
)

// Workers have an order: what is after others starts when they are ready, and they are
// stopped when it has ended.
//
//	start   migrate ──exited──> broker ──ready──> web
//	stop    web ──ended──> broker
//
// It holds for the first start of a slot, and for the end of the fleet. A slot that has
// started once follows its own backoff and its operators, whatever has become of others
// meanwhile: as with After= of systemd.unit(5), nothing is stopped for their sake.

// isReady reports whether what is after a worker may start: each of its slots is ready,
// listens, or has finished well.
func (w *worker) isReady() bool {
	return !slices.ContainsFunc(w.slots, func(s *slot) bool {
		finished := s.state == StateExited && !s.held && s.lastResult == policy.Success
		return !finished && !s.serves()
	})
}

// waitsFor lists the workers that are to be ready before a slot starts.
func (s *slot) waitsFor() (names []string) {
	if s.goes {
		return nil
	}
	for _, name := range s.config.After {
		if w := s.fleet.workerNamed(name); w != nil && !w.isReady() {
			names = append(names, name)
		}
	}
	return names
}

// wait makes a slot that is due wait for other workers. It has no due time: release
// starts it.
func (s *slot) wait(names []string) {
	s.due, s.blocked, s.woken, s.awaits = policy.Never, false, false, names
	if text := "waits for " + listed(names); text != s.why {
		s.remark("", Info, text)
	}
}

// release starts the slots of which the others are ready. One that listens at once may be
// what the next has waited for.
func (f *Fleet) release(now policy.Instant) {
	for again := true; again; {
		again = false
		var of *policy.Worker // whose names they are
		var names []string
		for _, s := range f.slots {
			if s.awaits == nil {
				continue
			}
			if of != s.config {
				of, names = s.config, s.waitsFor()
			}
			if names == nil {
				s.awaits, again = nil, true
				s.start(now)
				continue
			}
			s.awaits, s.why = names, "waits for "+listed(names)
		}
	}
}

// orderInStatus says who waits, and for whom that does not wait itself.
func (f *Fleet) orderInStatus() string {
	var waiting, awaited []string
	add := func(list *[]string, name string) {
		if !slices.Contains(*list, name) {
			*list = append(*list, name)
		}
	}
	for _, s := range f.slots {
		if s.role == current && s.awaits != nil {
			add(&waiting, s.config.Name)
		}
	}
	if waiting == nil {
		return ""
	}
	for _, s := range f.slots {
		for _, name := range s.awaits {
			if !slices.Contains(waiting, name) {
				add(&awaited, name)
			}
		}
	}
	verb := "waits"
	if len(waiting) > 1 {
		verb = "wait"
	}
	return fmt.Sprintf("%s %s for %s", listed(waiting), verb, listed(awaited))
}

// listed joins names: "a", "a and b", "a, b and 3 more".
func listed(names []string) string {
	switch n := len(names); {
	case n < 3:
		return strings.Join(names, " and ")
	case n == 3:
		return fmt.Sprintf("%s, %s and %s", names[0], names[1], names[2])
	default:
		return fmt.Sprintf("%s, %s and %d more", names[0], names[1], n-2)
	}
}

// later reports whether a slot that a change adds waits for others that it moves, too.
// Those that the change does not move are not waited for by it.
func (c *change) later(s *slot) bool {
	return s.fresh && slices.ContainsFunc(s.waitsFor(), func(name string) bool {
		moved := func(o *slot) bool { return o.onItsWay() || slices.Contains(c.todo, o) }
		return slices.ContainsFunc(c.fleet.workerNamed(name).slots, moved)
	})
}

// letWait leaves a slot that waits for others to itself: a change does not.
func (c *change) letWait(s *slot) {
	if s.awaits != nil && s.moving {
		s.moving = false
		c.moved++
	}
}

const lateText = "is stopped when "

// stopInOrder asks slots of a fleet that stops to end: those that others are after, when
// these have ended. What has not left its gate serves nobody, and ends at once.
func (f *Fleet) stopInOrder(now policy.Instant) {
	needed := f.neededBy()
	for _, s := range f.slots {
		by := needed[s.worker]
		switch {
		case by == "" || s.state != StateReady && !(s.state == StateStarting && s.running):
			s.stopForFleet(now, f.stopping.cause)
		case !strings.HasPrefix(s.why, lateText):
			s.remark("", Info, lateText+by+" has ended")
		default:
			s.why = lateText + by + " has ended"
		}
	}
}

// neededBy tells of each worker that is not to be stopped yet one that is after it, or
// after what is after it, and has not ended.
func (f *Fleet) neededBy() map[*worker]string {
	by := map[*worker]string{}
	var need func(w *worker, name string)
	need = func(w *worker, name string) {
		for _, after := range w.config.After {
			if d := f.workerNamed(after); d != nil && by[d] == "" {
				by[d] = name
				need(d, name)
			}
		}
	}
	for _, s := range f.slots {
		if s.proc != 0 && len(s.worker.config.After) > 0 {
			need(s.worker, s.worker.config.Name)
		}
	}
	return by
}

// stopOrder says which workers are stopped later.
func (f *Fleet) stopOrder() string {
	var late []string
	for _, s := range f.slots {
		if (s.state == StateReady || s.state == StateStarting) && strings.HasPrefix(s.why, lateText) && !slices.Contains(late, s.config.Name) {
			late = append(late, s.config.Name)
		}
	}
	if late == nil {
		return ""
	}
	return "; then " + listed(late)
}
