// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import "testing"

// TestReadiness: a fleet is ready by what its workers need, or by what somebody asks for.
func TestReadiness(t *testing.T) {
	web, clock := WorkerStatus{Name: "web", Slots: 4, Ready: 4, Needs: 1}, WorkerStatus{Name: "clock", Slots: 1, Ready: 1}
	with := func(w WorkerStatus, ready uint32) WorkerStatus {
		w.Ready = ready
		return w
	}
	free := func(w WorkerStatus) WorkerStatus {
		w.Needs = 0
		return w
	}
	all := func(w ...WorkerStatus) []WorkerStatus { return w }
	for _, c := range []struct {
		state   string
		workers []WorkerStatus
		wants   []Want // nil: those of the fleet
		ready   bool
		why     string
	}{
		{"active", all(web, clock), nil, true, "as it is"},
		{"active", all(with(web, 1), clock), nil, true, "as it is"},
		{"active", all(web, with(clock, 0)), nil, true, "as it is"},
		{"active", all(with(web, 0), clock), nil, false, "web: 0 of 4 ready, needs 1; as it is"},
		{"active", all(with(web, 1), clock), []Want{{"web", 2}}, false, "web: 1 of 4 ready, needs 2; as it is"},
		{"active", all(with(web, 0), clock), []Want{{"clock", 1}}, true, "as it is"},
		{"active", all(with(web, 0), with(clock, 0)), []Want{{"clock", 1}, {"web", 2}}, false, "clock: 0 of 1 ready, needs 1; web: 0 of 4 ready, needs 2; as it is"},
		{"active", all(web), []Want{{"gone", 1}}, false, "gone: 0 of 0 ready, needs 1; as it is"},
		{"active", all(free(with(web, 0)), clock), nil, true, "as it is"},
		{"active", all(free(with(web, 0)), with(clock, 0)), nil, false, "as it is"},
		{"active", nil, nil, true, "as it is"},
		{"activating", all(web, clock), nil, false, "as it is"},
		{"deactivating", all(web, clock), []Want{{"web", 1}}, false, "as it is"},
		{"inactive", nil, nil, false, "as it is"},
	} {
		f := &Status{ActiveState: c.state, StatusText: "as it is", Workers: c.workers}
		wants := c.wants
		if wants == nil {
			wants = Wants(f, 1)
		}
		if ready, why := Readiness(f, wants); ready != c.ready || why != c.why {
			t.Errorf("%s, %+v, wanted %v: got %v, %s", c.state, c.workers, wants, ready, why)
		}
	}
}
