// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"slices"
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

func (w *world) policyOf(id SlotID) *Policy {
	w.t.Helper()
	i := slices.IndexFunc(w.f.slots, func(s *slot) bool { return s.id == id })
	if i < 0 {
		return &Policy{} // it has left in the same turn
	}
	return w.f.slots[i].policy()
}

// started checks how often a slot is started.
func (w *world) started(id SlotID) {
	w.t.Helper()
	policy := w.policyOf(id)
	s := append(w.starts[id], w.now)
	if n := len(s); n > 1 && s[n-1].Sub(s[n-2]) < minStartInterval {
		w.fail("slot %d starts %s after its last start", id, s[n-1].Sub(s[n-2]))
	}
	if n, burst := len(s), policy.StartLimitBurst; burst > 0 && n-w.excused[id] > burst && policy.StartLimitPeriod > 0 &&
		s[n-1] < s[n-1-burst].Add(policy.StartLimitPeriod) {
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
