// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
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
	w.mayGo(id)
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

// takeStacks is for what runs as a slot. Half of all do not write them, and answer.
func (w *world) takeStacks(a TakeStacks) {
	w.t.Helper()
	if b := w.living(a.Proc); b.state < told || b.state == left {
		w.fail("%s, which is in state %d", tellAction(a), b.state)
	}
	if w.byte()%2 == 0 {
		w.measured = append(w.measured, a.Proc)
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

// isMeasured answers a Measure or a TakeStacks, of which there may have been one.
func (w *world) isMeasured(b *being) bool {
	w.t.Helper()
	i := slices.Index(w.measured, b.id)
	if i < 0 || w.byte()%2 == 0 {
		return false
	}
	w.measured = slices.Delete(w.measured, i, i+1)
	w.tell(pick[Event](w, StacksTaken{b.id}, Measured{Proc: b.id, Private: uint64(w.byte())}, Measured{Proc: b.id, Private: 99}, Measured{Proc: b.id, Why: "not permitted"}))
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
		if f.phase != serving {
			w.fail("%s begins to be recycled, phase %d", s.name, f.phase)
		}
		if !s.wasReady || w.now.Sub(s.readyAt) < policy.MinRecycleAge || s.config.Entry && s.floor.state != floorUp && s.floor.state != floorEnding {
			w.fail("%s is recycled %s after it was ready (%t), floor %d", s.name, w.now.Sub(s.readyAt), s.wasReady, s.floor.state)
		}
	}
	if f.phase != serving && f.phase != draining || f.pending != nil {
		w.fail("%s is recycled, phase %d, %v waits", c.Slots[0], f.phase, f.pending)
	}
	for _, s := range f.slots {
		if s.onItsWay() && s.name != c.Slots[0] {
			w.fail("%s is on its way while %s is recycled", s.name, c.Slots[0])
		}
	}
}

// policy is some policy of a worker.
func (w *world) policy() policy.Policy {
	p := policy.Policy{
		Restart:         pick(w, append(slices.Repeat([]policy.Restart{policy.RestartAlways, policy.RestartOnFailure}, 6), policy.Restarts...)...),
		RestartSec:      pick(w, sec, 0, sec, 30*ms, 7*sec, sec, 0, policy.Forever),
		RestartMaxDelay: pick(w, 30*sec, 0, 2*sec, policy.Forever),
		RestartReset:    pick(w, -1, 0, 3*sec, policy.Forever),
		TimeoutStart:    pick(w, 90*sec, 0, 2*sec, policy.Forever),
		TimeoutStop:     pick(w, 15*sec, 0, sec, policy.Forever),
		KillSignal:      pick(w, policy.SIGTERM, policy.SIGINT, policy.SIGKILL),
		KillMode:        pick(w, "", policy.KillMixed, policy.KillControlGroup),
		StartLimitBurst: pick(w, 0, 0, 0, 0, 1, 2, 3),
	}
	p.Notify = w.byte()%3 == 0
	p.Watchdog = pick(w, 0, 0, 3*sec, policy.Forever)
	p.StartLimitPeriod = pick(w, 10*sec, 0, 500*ms, policy.Forever)
	if w.byte()%4 == 1 {
		p.RestartPrevent.Codes = []int{int(w.byte()) % 4}
		p.RestartForce.Signals = []policy.Signal{policy.SIGKILL, policy.SIGTERM}
		p.Success.Codes = []int{2}
	}
	return p
}

// followed is what is known of the order of workers.
type followed struct {
	ready map[string]bool // workers that were ready once
	goes  map[string]bool // slots that have started once, or that an operator has started
}

// ordered gives a worker a place in an order, and may make it a step that ends.
func (w *world) ordered(worker *policy.Worker, i, of int, backward bool) {
	for j := range of {
		if (j < i) != backward && j != i && w.byte()%3 == 0 {
			worker.After = append(worker.After, fmt.Sprintf("w%d", j))
		}
	}
	if worker.OnDemand || w.byte()%6 != 0 {
		return
	}
	worker.Oneshot, worker.Policy.Notify, worker.Tasks, worker.Roll.Order = true, false, nil, policy.StopFirst
	if r := &worker.Policy.Restart; *r == policy.RestartAlways || *r == policy.RestartOnSuccess {
		*r = policy.RestartOnFailure
	}
}

// lookAtOrder notes which workers are ready, and which slots listen, or waited for
// a process before: that is a start, too.
func (w *world) lookAtOrder(queued map[SlotID]bool) {
	for _, s := range w.f.slots {
		w.followed.goes[s.name] = w.followed.goes[s.name] || s.state == StateListening || queued[s.id]
	}
	for _, worker := range w.f.workers {
		w.followed.ready[worker.config.Name] = w.followed.ready[worker.config.Name] || worker.isReady()
	}
}

// starting are the slots that have started, and may have no process yet.
func (w *world) starting() map[SlotID]bool {
	all := map[SlotID]bool{}
	for _, s := range w.f.slots {
		if s.state == StateStarting {
			all[s.id] = true
		}
	}
	return all
}

// slotOf is a slot that is there, nil if it is not any more.
func (w *world) slotOf(id SlotID) *slot {
	i := slices.IndexFunc(w.f.slots, func(s *slot) bool { return s.id == id })
	if i < 0 {
		return nil
	}
	return w.f.slots[i]
}

// mayGo checks that no slot starts for the first time before what it is after was ready.
func (w *world) mayGo(id SlotID) {
	w.t.Helper()
	s := w.slotOf(id)
	if s == nil {
		return
	}
	for _, name := range s.config.After {
		if !w.followed.goes[s.name] && !w.followed.ready[name] {
			w.fail("%s starts before %s was ready", s.name, name)
		}
	}
	w.followed.goes[s.name] = true
}

// inOrder checks that the end of the fleet asks nobody to end whom others still need. What
// missed its deadline is asked all the same, and what has not left its gate.
func (w *world) inOrder(b *being) {
	w.t.Helper()
	s := w.slotOf(b.slot)
	if !w.stopped || b.kind == floorBeing || b.state != runs || s == nil || s.result != "" {
		return
	}
	for _, other := range w.procs {
		o := w.slotOf(other.slot)
		if other.kind == floorBeing || o == nil || other.kind == forkBeing && other.state < told || o.proc != other.id {
			continue // one that does not end from SIGKILL is not waited for
		}
		if slices.Contains(o.worker.config.After, s.config.Name) {
			w.fail("%s is to end before %s, which is after it", s.name, o.name)
		}
	}
}

// freeze may fail. What has not been told to go is never frozen.
func (w *world) freeze(a Freeze) {
	w.t.Helper()
	b := w.living(a.Proc)
	switch {
	case b.frozen == a.Frozen || b.kind == floorBeing || b.state < told:
		w.fail("%s, which cannot be", tellAction(a))
	case a.Frozen && w.byte()%4 == 3:
		w.warm = append(w.warm, a.Proc)
	default:
		b.frozen = a.Frozen
	}
}
