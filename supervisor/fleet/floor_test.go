// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// upWith is a fleet of n entry slots, all ready.
func upWith(t *testing.T, n, spares int) *player {
	t.Helper()
	cfg := fleetOf(entryWorker("w", n))
	cfg.Spares = spares
	p := play(t, cfg)
	p.up()
	if len(p.f.floor.pool.spares) != spares {
		t.Fatalf("%d spares, want %d", len(p.f.floor.pool.spares), spares)
	}
	return p
}

func (p *player) loseFloor() {
	p.t.Helper()
	p.send(Exited{Proc: p.f.floor.proc, Exit: killed})
}

func TestFirstFloorThatCannotBeLoaded(t *testing.T) {
	for name, do := range map[string]func(p *player, floor Proc){
		"broken": func(p *player, floor Proc) {
			p.send(FloorBroken{floor, "importing numpy: no module named numpy"})
			p.want(Kill{floor, policy.SIGKILL, false})
			p.send(Exited{Proc: floor, Exit: status1})
		},
		"not started": func(p *player, floor Proc) {
			p.send(SpawnFailed{floor, "importing numpy: no module named numpy"})
		},
	} {
		p := play(t, fleetOf(entryWorker("w", 1)))
		do(p, p.f.floor.proc)
		p.wantQuit(1)
		p.wantStatus("failed: floor: importing numpy: no module named numpy")
		none[Ready](p)
		t.Log(name)
	}
	p := play(t, fleetOf(entryWorker("w", 1)))
	p.loseFloor()
	p.wantStatus("failed: floor: killed by SIGKILL")
}

func TestFloorProgress(t *testing.T) {
	p := play(t, fleetOf(entryWorker("w", 1)))
	p.wantStatus("0/1 ready; floor: starting the interpreter")
	p.send(FloorProgress{p.f.floor.proc, "importing numpy (1 of 3)"})
	p.wantStatus("0/1 ready; floor: importing numpy (1 of 3)")
	p.loaded()
	p.wantStatus("0/1 ready")
	p.send(FloorProgress{p.f.floor.proc, "late"}, FloorLoaded{Proc: p.f.floor.proc})
	p.wantStatus("0/1 ready")
}

// TestFloorLost: serving workers are not touched, slots that are due wait, and
// the floor is loaded again as the next generation, later each time.
func TestFloorLost(t *testing.T) {
	p := upWith(t, 2, 0)
	for i, d := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		p.loseFloor()
		none[Kill](p)
		p.wantState("w.0", StateReady)
		p.wantStatus("2/2 ready; floor is lost (killed by SIGKILL) and loads again in ")
		if got := p.untilDue(); got != d*sec {
			t.Fatalf("loads again in %s, want %d s", got, d)
		}
		if loads := all[LoadFloor](p.got); len(loads) != 1 || loads[0].Generation != i+2 {
			t.Fatalf("got %+v, want generation %d", loads, i+2)
		}
		p.loaded()
	}
	p.wait(30*sec - 1)
	p.loseFloor()
	if got := p.untilDue(); got != 30*sec {
		t.Errorf("after just under 30 s: loads again in %s, want 30 s", got)
	}
	p.loaded()
	p.wait(30 * sec)
	p.loseFloor()
	if got := p.untilDue(); got != sec {
		t.Errorf("after 30 s: loads again in %s, want 1 s", got)
	}
	p.wantStatus("2/2 ready; floor: starting the interpreter")
}

func TestLaterFloorThatCannotBeLoaded(t *testing.T) {
	p := upWith(t, 1, 0)
	p.loseFloor()
	p.untilDue()
	floor := p.f.floor.proc
	p.send(FloorBroken{floor, "out of memory"})
	p.wantStatus("floor is being replaced: out of memory")
	p.send(FloorBroken{floor, "again"})
	none[Kill](p)
	p.send(Exited{Proc: floor, Exit: status1})
	p.want(Report{Level: Err, Kind: KindFloorLost, Generation: 2, Text: "floor cannot be loaded: out of memory; " +
		"loading again in 2s, workers serve on, successors wait"})
	p.wantState("w.0", StateReady)
	if got := p.untilDue(); got != 2*sec {
		t.Errorf("loads again in %s, want 2 s", got)
	}
	if got := p.untilDue(); got != 300*sec {
		t.Errorf("gives up loading after %s, want 5 min", got)
	}
	p.want(Kill{p.f.floor.proc, policy.SIGKILL, false})
}

func TestDueSlotsWaitForTheFloor(t *testing.T) {
	p := upWith(t, 2, 0)
	p.exit("w.0", status1)
	p.loseFloor()
	p.untilDue() // loads
	p.wait(2 * sec)
	p.wantState("w.0", StateWaiting)
	p.wantStatus("w.0 waits for the floor (exit-code 1, 1st in a row)")
	none[Fork](p)
	p.exit("w.1", policy.Exit{Code: 2})
	p.wait(2 * sec)
	p.wantStatus("; 1 more in trouble")
	p.loaded()
	p.wantState("w.0", StateStarting)
	p.wantState("w.1", StateStarting)
	p.forked()
	if got := p.slot("w.0").generation; got != 2 {
		t.Errorf("w.0 is of generation %d, want 2", got)
	}
	p.run("w.0")
	p.run("w.1")
}

// A spare of a floor that is lost still replaces a worker.
func TestSpareOutlivesItsFloor(t *testing.T) {
	p := upWith(t, 1, 1)
	p.wait(sec)
	spare := p.f.floor.pool.spares[0].proc
	p.loseFloor()
	p.exit("w.0", status1)
	p.wait(2 * sec)
	p.want(Assign{spare, 1, 1})
	p.run("w.0")
	if got := p.slot("w.0").generation; got != 1 {
		t.Errorf("generation %d, want 1", got)
	}
}

func TestBlockedSlotsEndWithTheFleet(t *testing.T) {
	p := upWith(t, 1, 0)
	p.loseFloor()
	p.exit("w.0", status1)
	p.wait(10 * sec)
	if !p.slot("w.0").blocked {
		t.Fatal("the slot does not wait for the floor")
	}
	p.send(StopRequested{"SIGTERM"})
	p.wantState("w.0", StateExited)
	p.send(Exited{Proc: p.f.floor.proc, Exit: killed})
	p.wantQuit(0)

	p = play(t, fleetOf(entryWorker("w", 1)))
	p.send(StopRequested{"SIGTERM"})
	p.loseFloor()
	p.wantQuit(0)
}

func TestQueuedSlotIsServedByTheNextFloor(t *testing.T) {
	p := play(t, fleetOf(entryWorker("w", 1)))
	p.loaded()
	request := p.f.floor.pool.request()
	p.wantState("w.0", StateStarting)
	p.loseFloor()
	p.want(Abandon{request})
	p.send(Introduced{request, 5}) // it came late, and finds its gate closed
	p.wantNothing()
	p.untilDue()
	p.wait(20 * sec)
	none[Kill](p) // the old request is not held against the new floor
	p.up()
	if s := p.slot("w.0"); s.generation != 2 || s.failures != 0 {
		t.Errorf("generation %d after %d failures, want 2 after 0", s.generation, s.failures)
	}
}

func TestSilentFloorIsReplaced(t *testing.T) {
	p := upWith(t, 2, 0)
	p.wait(time.Hour)
	p.exit("w.0", status1)
	p.untilDue()
	request, floor := p.f.floor.pool.request(), p.f.floor.proc
	if got := p.untilDue(); got != forkTimeout {
		t.Fatalf("waited %s for the fork", got)
	}
	p.want(Abandon{request}, Kill{floor, policy.SIGKILL, false})
	p.wantStatus("floor is being replaced: did not fork within 10s")
	p.wantState("w.0", StateStarting)
	p.wantState("w.1", StateReady)
	p.loseFloor()
	p.want(Report{Level: Err, Kind: KindFloorLost, Generation: 1, Text: "floor is lost: did not fork within 10s; " +
		"loading again in 1s, workers serve on, successors wait"})
	p.untilDue()
	p.up()
}

// A floor that was silent after a long time starts over from 1 s, too.
func TestSilentFloorStartsOver(t *testing.T) {
	p := upWith(t, 1, 0)
	for range 3 {
		p.wait(time.Hour)
		p.exit("w.0", status1)
		p.untilDue()
		p.untilDue()
		p.loseFloor()
		if got := p.untilDue(); got != sec {
			t.Fatalf("loads again in %s, want 1 s", got)
		}
		p.up()
	}
}

func TestFloorLeavesProcessesBehind(t *testing.T) {
	p := upWith(t, 1, 0)
	floor := p.f.floor.proc
	p.send(Swept{floor}) // of a live floor: means nothing
	p.send(Exited{Proc: floor, Exit: killed, Left: 1})
	p.want(Kill{floor, policy.SIGTERM, true}, Kill{floor, policy.SIGCONT, true})
	p.wantStatus("1/1 ready; floor is being replaced: killed by SIGKILL")
	p.wait(leftGrace - 1)
	none[LoadFloor](p)
	none[Kill](p)
	p.send(Swept{floor})
	p.wantStatus("floor is lost (killed by SIGKILL) and loads again in 1s")
	p.untilDue()
	p.loaded()

	floor = p.f.floor.proc
	p.send(FloorBroken{floor, "mad"})
	p.want(Kill{floor, policy.SIGKILL, false})
	p.send(Exited{Proc: floor, Exit: killed, Left: 1})
	p.want(Kill{floor, policy.SIGTERM, true}, Kill{floor, policy.SIGCONT, true})
	if got := p.untilDue(); got != leftGrace {
		t.Fatalf("the left-overs had %s", got)
	}
	p.want(Kill{floor, policy.SIGKILL, true})
	if got := p.untilDue(); got != killGrace {
		t.Fatalf("waited %s for the left-overs", got)
	}
	p.wantStatus("floor is lost (mad) and loads again in 2s")
	p.untilDue()
	p.loaded()
}

func TestFloorThatDoesNotEnd(t *testing.T) {
	p := upWith(t, 1, 0)
	p.send(FloorBroken{p.f.floor.proc, "mad"})
	if got := p.untilDue(); got != killGrace {
		t.Fatalf("reported after %s", got)
	}
	p.want(Report{Level: Err, Kind: KindFloorLost, Generation: 1, Text: "floor: mad; does not end 10s after SIGKILL; successors wait for it"})
	p.wait(time.Hour)
	p.wantNothing()
	p.loseFloor()
	p.untilDue()
	p.up()
}

// Floors that are lost and loads that fail are counted apart; the generation is of the last
// that was loaded.
func TestLossesAndFailuresOfFloorsAreCounted(t *testing.T) {
	want := func(p *player, state string, generation, losses, failures int) {
		t.Helper()
		if s := p.see(); s.FloorState != state || s.Generation != generation || s.Losses != losses || s.Failures != failures {
			t.Errorf("got %q, generation %d, %d losses, %d failures; want %q, %d, %d, %d",
				s.FloorState, s.Generation, s.Losses, s.Failures, state, generation, losses, failures)
		}
	}
	p := play(t, fleetOf(entryWorker("w", 1)))
	want(p, "loading", 0, 0, 0)
	p.up()
	want(p, "loaded", 1, 0, 0)
	p.loseFloor()
	want(p, "lost", 1, 1, 0)
	for n := range 2 {
		p.untilDue()
		want(p, "loading", 1, 1, n)
		p.send(FloorBroken{p.f.floor.proc, "no module"}, Exited{Proc: p.f.floor.proc, Exit: killed})
		want(p, "lost", 1, 1, n+1)
	}
	p.untilDue()
	p.loaded()
	want(p, "loaded", 4, 1, 2)
	want(play(t, fleetOf(execWorker("w", 1))), "", 0, 0, 0)
}
