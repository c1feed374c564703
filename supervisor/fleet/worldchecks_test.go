// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"slices"

	"github.com/decnet/prefork/supervisor/policy"
)

// vacant checks that nothing is left of a slot that gets a process.
func (w *world) vacant(id SlotID) {
	w.t.Helper()
	for _, b := range w.procs {
		if b.kind != floorBeing && b.slot == id && (b.kind == shimBeing || b.state >= told) {
			w.fail("slot %d is given a process beside %+v", id, *b)
		}
	}
}

func (w *world) policyOf(id SlotID) *policy.Policy {
	w.t.Helper()
	i := slices.IndexFunc(w.f.slots, func(s *slot) bool { return s.id == id })
	if i < 0 {
		return &policy.Policy{} // it has left in the same turn
	}
	return w.f.slots[i].policy()
}

// started checks how often a slot is started.
func (w *world) started(id SlotID) {
	w.t.Helper()
	limits := w.policyOf(id)
	s := append(w.starts[id], w.now)
	if n := len(s); n > 1 && s[n-1].Sub(s[n-2]) < minStartInterval {
		w.fail("slot %d starts %s after its last start", id, s[n-1].Sub(s[n-2]))
	}
	if n, burst := len(s), limits.StartLimitBurst; burst > 0 && n-w.excused[id] > burst && limits.StartLimitPeriod > 0 &&
		s[n-1] < s[n-1-burst].Add(limits.StartLimitPeriod) {
		w.fail("slot %d starts %d times within %s", id, burst+1, s[n-1].Sub(s[n-1-burst]))
	}
	w.starts[id] = s
}

// probe has a process at its gate list a floor's objects: one at a time, which is no slot's.
func (w *world) probe(a Probe) {
	w.t.Helper()
	b := w.living(a.Proc)
	if b.state != atGate || b.kind != forkBeing {
		w.fail("process %d in state %d is to be a probe", a.Proc, b.state)
	}
	b.state = told
}

// continued checks that each signal which asks a process to end is followed by
// SIGCONT. An operator's is not: it asks for nothing.
func (w *world) continued(acts []Action) {
	w.t.Helper()
	for i, a := range acts {
		k, ok := a.(Kill)
		if !ok || k.Signal == policy.SIGKILL || k.Signal == policy.SIGCONT || k.Signal == policy.SIGHUP {
			continue
		}
		if want := (Kill{k.Proc, policy.SIGCONT, k.All}); i+1 >= len(acts) || acts[i+1] != Action(want) {
			w.fail("no SIGCONT follows in:\n%s", transcribe(acts))
		}
	}
}

// unserved checks that a socket is said to have no slot just if it has none that runs or
// will, and one that ended by itself.
func (w *world) unserved() {
	w.t.Helper()
	if w.f.change != nil || w.f.phase > serving {
		return
	}
	runs, over := map[string]bool{}, map[string]bool{}
	for _, s := range w.f.slots {
		for _, name := range s.config.Sockets {
			ended := s.state == StateExited || s.state == StateFailed
			runs[name] = runs[name] || s.role == current && !ended
			over[name] = over[name] || s.role == current && ended && !s.held
		}
	}
	for name := range over {
		if want := over[name] && !runs[name]; want != slices.Contains(w.f.unserved, name) {
			w.fail("socket %s: is one that nobody serves: %t; told of: %q", name, want, w.f.unserved)
		}
	}
}

// recycling is when the processes of a worker are recycled.
func (w *world) recycling() (r policy.Recycling) {
	if w.byte()%2 == 0 {
		return r
	}
	return policy.Recycling{After: pick(w, 0, 10*sec, 60*sec), Private: pick(w, 0, uint64(100), 1), Requests: pick(w, 0, 1000)}
}

// isMeasured answers a Measure, of which there may have been one.
func (w *world) isMeasured(b *being) bool {
	w.t.Helper()
	i := slices.Index(w.measured, b.id)
	if i < 0 || w.byte()%2 == 0 {
		return false
	}
	w.measured = slices.Delete(w.measured, i, i+1)
	w.tell(pick(w, Measured{Proc: b.id, Private: uint64(w.byte())}, Measured{Proc: b.id, Private: 99}, Measured{Proc: b.id, Why: "not permitted"}))
	return true
}

// checkRecycling: one slot at a time is recycled, when its process has been ready for a
// while, and when nobody else changes the fleet.
func (w *world) checkRecycling(f *Fleet) {
	w.t.Helper()
	c := f.change
	if c == nil || c.Kind != ChangeRecycle {
		return
	}
	if s := f.named(c.Slots[0]); c.id > w.recycled {
		w.recycled = c.id
		if !s.wasReady || w.now.Sub(s.readyAt) < policy.MinRecycleAge || s.config.Entry && s.floor.state != floorUp && s.floor.state != floorEnding {
			w.fail("%s is recycled %s after it was ready (%t), floor %d", s.name, w.now.Sub(s.readyAt), s.wasReady, s.floor.state)
		}
	}
	if f.phase != serving || f.pending != nil {
		w.fail("%s is recycled, phase %d, %v waits", c.Slots[0], f.phase, f.pending)
	}
	for _, s := range f.slots {
		if s.onItsWay() && s.name != c.Slots[0] {
			w.fail("%s is on its way while %s is recycled", s.name, c.Slots[0])
		}
	}
}
