// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"slices"
	"testing"

	"github.com/decnet/prefork/supervisor/policy"
)

// see asks for a view and wants nothing else to happen.
func (p *player) see() Snapshot {
	p.t.Helper()
	p.send(Inspect{})
	if len(p.got) != 1 {
		p.t.Fatalf("Inspect does:\n%s", transcribe(p.got))
	}
	return p.got[0].(Show).Snapshot
}

func TestViewOfAFleetInTrouble(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1), execWorker("other", 1)))
	if v := p.see(); v.State != "activating" || v.Status != "0/2 ready" || v.Slots[0].State != StateStarting || v.Slots[0].Restarts != 0 {
		t.Errorf("at first: %+v", v)
	}
	p.run("other.0")
	p.run("w.0")
	p.send(Notified{Proc: p.slot("w.0").proc, HasStatus: true, Status: "at work"})
	ready := p.now
	p.wait(3 * sec)
	if s := p.see().Slots[0]; s.State != StateReady || s.Since != ready || s.PID == 0 || s.Due != policy.Never || s.Text != "at work" || s.Result != "" {
		t.Errorf("when it is ready: %+v", s)
	}
	p.exit("w.0", status1)
	v := p.see()
	if s := v.Slots[0]; v.State != "active" || s.State != StateWaiting || s.Since != p.now || s.PID != 0 || s.Result != policy.ExitCode ||
		s.Failures != 1 || s.Restarts != 0 || s.Due != p.slot("w.0").due {
		t.Errorf("when it has failed: %+v", v)
	}
	p.untilDue()
	if s := p.see().Slots[0]; s.State != StateStarting || s.Result != policy.ExitCode || s.Restarts != 1 || s.Due != policy.Never || s.Text != "" {
		t.Errorf("when it starts again: %+v", s)
	}
	p.run("w.0")
	p.send(StopRequested{"SIGTERM"})
	if v := p.see(); v.State != "deactivating" || v.Slots[1].State != StateStopping {
		t.Errorf("when it stops: %+v", v)
	}
}

func TestViewOfASlotThatGaveUp(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.StartLimitBurst, w.Policy.StartLimitPeriod, w.Policy.RestartSec = 1, 10*sec, 0
	p := play(t, fleetOf(w, execWorker("other", 1)))
	p.run("other.0")
	p.exit("w.0", status1)
	p.untilDue()
	if s := p.see().Slots[0]; s.State != StateFailed || s.Result != policy.StartLimitHit {
		t.Errorf("got %+v", s)
	}
}

func TestViewCountsGenerations(t *testing.T) {
	p := play(t, fleetOf(entryWorker("w", 1)))
	p.loaded()
	p.up()
	if v := p.see(); v.Generation != 1 || v.Slots[0].Generation != 1 {
		t.Errorf("got %+v", v)
	}
}

// TestViewOfWorkers: who looks sees which workers serve, and which the fleet needs. One that
// a change adds is none of the fleet before it is proven, so that a reload is no outage.
func TestViewOfWorkers(t *testing.T) {
	web := execWorker("web", 2)
	web.Needed = true
	p := play(t, fleetOf(web, execWorker("clock", 1)))
	want := func(when string, want ...WorkerSnapshot) {
		t.Helper()
		if got := p.see().Workers; !slices.Equal(got, want) {
			t.Errorf("%s: got %+v, want %+v", when, got, want)
		}
	}
	clock := WorkerSnapshot{Name: "clock", Slots: 1, Ready: 1}
	p.up()
	want("when it is ready", WorkerSnapshot{Name: "web", Slots: 2, Ready: 2, Needs: 1}, clock)
	p.exit("web.0", status1)
	want("when a slot has crashed", WorkerSnapshot{Name: "web", Slots: 2, Ready: 1, Waiting: 1, Needs: 1}, clock)
	p.untilDue()
	p.run("web.0")

	next := fleetOf(web, execWorker("clock", 1), execWorker("api", 1))
	next.Workers[2].Needed = true
	p.send(Propose{ID: 1, Kind: ChangeReload, Revision: 2, Config: &next, Who: "uid 0"})
	want("while a worker is added", WorkerSnapshot{Name: "web", Slots: 2, Ready: 2, Needs: 1}, clock)
	p.run("api.0")
	p.wait(next.Workers[2].Roll.Settle)
	want("when it was added", WorkerSnapshot{Name: "web", Slots: 2, Ready: 2, Needs: 1}, clock, WorkerSnapshot{Name: "api", Slots: 1, Ready: 1, Needs: 1})

	p.send(Propose{ID: 2, Kind: ChangeScale, Revision: 3, Scale: &policy.Scale{Worker: "api", Count: 0}, Who: "uid 0"})
	want("when an operator has none of it", WorkerSnapshot{Name: "web", Slots: 2, Ready: 2, Needs: 1}, clock, WorkerSnapshot{Name: "api", Needs: 1})
	next = fleetOf(web, execWorker("clock", 1), execWorker("api", 0))
	next.Workers[2].Needed = true
	p.send(Propose{ID: 3, Kind: ChangeReload, Revision: 4, Config: &next, Who: "uid 0"})
	want("when the file has none of it", WorkerSnapshot{Name: "web", Slots: 2, Ready: 2, Needs: 1}, clock, WorkerSnapshot{Name: "api"})
}
