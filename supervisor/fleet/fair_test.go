// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"

	"github.com/decnet/prefork/supervisor/policy"
)

// concludes lets the world be fair to a change: what is asked for comes, what is killed
// ends. The change must come to an end, and so must the one that waits for it; there may
// always be another slot to be recycled.
func (w *world) concludes() {
	w.t.Helper()
	last := w.f.last.change
	for range 5000 {
		over := (w.f.change == nil || w.f.change.id > last) && (w.f.pending == nil || w.f.pending.id > last)
		if w.quits > 0 || w.f.phase != serving || over {
			return
		}
		happened := false
		for _, id := range slices.Clone(w.order) {
			if b := w.procs[id]; b != nil && w.quits == 0 && w.fair(b) {
				happened = true
			}
		}
		if happened {
			continue
		}
		if w.endsDeaf() {
			continue
		}
		if l := w.f.floor; l.deadline == policy.Never && l.state == floorEnding && w.procs[l.proc].immortal {
			return // what goes back waits for it, too
		}
		if w.f.Deadline() == policy.Never {
			w.fail("the change waits forever: %s", w.onTheWay())
		}
		w.passToDeadline()
	}
	w.fail("the change does not end: %s", w.onTheWay())
}

// endsDeaf ends a process that was asked to, does not heed that, and has all the time there
// is (timeout_stop_sec = "infinity"). It reports whether there was one.
func (w *world) endsDeaf() bool {
	w.t.Helper()
	for _, s := range w.f.slots {
		if b := w.procs[s.proc]; s.state == StateStopping && s.deadline == policy.Never && b != nil && !b.frozen && b.state != left {
			w.fairEnd(b)
			return true
		}
	}
	return false
}

// fair does the next thing that a process does in a world without mishaps. It reports
// whether there was one.
func (w *world) fair(b *being) bool {
	w.t.Helper()
	s := w.f.owners[b.id]
	switch {
	case b.state == runs && !b.dying && !b.frozen && s != nil && s.config.Oneshot:
		w.dead(b.id)
		w.tell(Exited{Proc: b.id})
	case b.frozen, b.immortal && b.dying:
		return false
	case b.abandoned, b.dying, b.state == left:
		w.fairEnd(b)
	case b.kind == floorBeing && b.state == loading:
		b.state = runs
		w.tell(FloorLoaded{Proc: b.id})
	case b.kind == floorBeing:
		return false
	case b.state == asked:
		b.state = atGate
		w.answered(b.id)
		w.tell(Introduced{b.id, 100 + int(b.id)})
	case b.state == told:
		b.state = runs
		w.tell(Running{b.id})
	case b.state == runs && w.f.owners[b.id] != nil && w.f.owners[b.id].state == StateStarting:
		w.tell(Notified{Proc: b.id, Ready: true})
	default:
		return false
	}
	return true
}

// onTheWay tells what a change waits for.
func (w *world) onTheWay() string {
	c := w.f.change
	if c == nil {
		return "it has not begun"
	}
	text := fmt.Sprintf("%s %s, %d to do, %d untried", c.Kind, changePhases[c.phase], len(c.todo), len(c.untried))
	for _, s := range w.f.slots {
		if s.onItsWay() {
			text += fmt.Sprintf("; %s of revision %d is %s, why %q, process %d, woken %t, held %t, proven at %d", s.name, s.revision, s.state, s.why, s.proc, s.woken, s.held, s.provenAt)
		}
	}
	return text
}
