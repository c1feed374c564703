// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
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
