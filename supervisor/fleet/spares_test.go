// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"slices"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

func TestForkRefused(t *testing.T) {
	p := upWith(t, 1, 0)
	p.exit("w.0", status1)
	for _, d := range []time.Duration{1, 2, 4} {
		wantDelay(t, p.untilDue(), d*sec)
		p.send(SpawnFailed{p.f.floor.pool.request(), "fork: cannot allocate memory"})
		p.wantState("w.0", StateWaiting)
		p.wantResult("w.0", policy.Resources)
		none[Fork](p)
	}
	p.wantStatus("(resources: fork: cannot allocate memory, 4th in a row)")
	p.untilDue()
	p.forked()
	p.run("w.0")
}

// A forked process that ends before its gate is a fork that failed.
func TestForkedProcessEndsEarly(t *testing.T) {
	p := upWith(t, 1, 0)
	p.exit("w.0", status1)
	p.untilDue()
	p.send(Exited{Proc: p.f.floor.pool.request(), Exit: killed})
	p.wantState("w.0", StateWaiting)
	p.wantResult("w.0", policy.Resources)
}

// Only the slot that has waited longest pays for a refused fork.
func TestForkRefusedForOneOfMany(t *testing.T) {
	p := play(t, fleetOf(entryWorker("w", 3)))
	p.loaded()
	p.send(SpawnFailed{p.f.floor.pool.request(), "fork: try again"})
	p.wantState("w.0", StateWaiting)
	p.wantState("w.1", StateStarting)
	if got := len(all[Fork](p.got)); got != 1 {
		t.Errorf("%d forks, want 1", got)
	}
	p.forked()
	p.run("w.1")
	p.run("w.2")
}

// What a floor refuses while it is being replaced is nobody's fault.
func TestForkRefusedByAFloorThatEnds(t *testing.T) {
	p := play(t, fleetOf(entryWorker("w", 1)))
	p.loaded()
	p.send(FloorBroken{p.f.floor.proc, "its socket is closed"})
	p.send(SpawnFailed{p.f.floor.pool.request(), "fork: broken pipe"})
	p.wantState("w.0", StateStarting)
	p.loseFloor()
	p.untilDue()
	p.up()
}

// A floor that takes several requests at a time is asked for as many as slots wait, and
// anew when all are answered. What nobody waits for any more becomes a spare, or ends.
func TestForksTogether(t *testing.T) {
	cfg := fleetOf(entryWorker("w", 5))
	cfg.Spares = 0
	p := play(t, cfg)
	floor := p.f.floor.proc
	p.send(FloorLoaded{floor, 3})
	first := slices.Clone(p.f.floor.pool.requests)
	p.want(Fork{first[0], floor, true}, Fork{first[1], floor, true}, Fork{first[2], floor, false})
	if got := p.f.floor.pool.deadline.Sub(p.now); got != forkTimeout+2*oneMoreFork {
		t.Errorf("three forks may take %s", got)
	}
	p.send(Introduced{first[1], 7}, SpawnFailed{first[0], "fork: try again"})
	p.run("w.0")
	p.wantState("w.1", StateWaiting) // it had waited longest
	none[Fork](p)
	p.send(Introduced{first[2], 8})
	second := slices.Clone(p.f.floor.pool.requests)
	p.want(Fork{second[0], floor, true}, Fork{second[1], floor, false})
	p.run("w.2")
	stop := operator(verb.Stop)
	stop.Slot = "w.3"
	p.send(stop, Introduced{second[0], 9}, Introduced{second[1], 10})
	p.want(Kill{Proc: second[1], Signal: policy.SIGKILL, All: true})
	p.run("w.4")
}

func TestOneForkAtATime(t *testing.T) {
	cfg := fleetOf(entryWorker("w", 5))
	cfg.Spares = 2
	p := play(t, cfg)
	p.loaded()
	for i := range 7 {
		if got := len(all[Fork](p.got)); got != 1 {
			t.Fatalf("fork %d: %d requests", i, got)
		}
		p.send(Introduced{p.f.floor.pool.request(), 100 + i})
		for j := range p.f.slots {
			if i == 4 {
				p.run(p.f.slots[j].name)
			}
		}
	}
	none[Fork](p)
	if got := len(p.f.floor.pool.spares); got != 2 {
		t.Errorf("%d spares, want 2", got)
	}
}

// Spares are made when no slot is on its way.
func TestSparesKeepOutOfTheWay(t *testing.T) {
	cfg := fleetOf(entryWorker("w", 1))
	cfg.Spares = 1
	p := play(t, cfg)
	p.loaded()
	p.send(Introduced{p.f.floor.pool.request(), 5})
	none[Fork](p)
	p.run("w.0")
	if got := len(all[Fork](p.got)); got != 1 {
		t.Errorf("%d forks once w.0 runs, want 1", got)
	}
}

func TestSpareReplacesAtOnce(t *testing.T) {
	cfg := fleetOf(entryWorker("w", 1))
	cfg.Spares, cfg.Workers[0].Policy.RestartSec = 1, 0
	p := play(t, cfg)
	p.up()
	p.wait(sec)
	spare := p.f.floor.pool.spares[0].proc
	p.exit("w.0", killed)
	p.want(Assign{spare, 1, 1})
}

func TestSparesThatDie(t *testing.T) {
	p := upWith(t, 1, 1)
	for _, d := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		p.send(Exited{Proc: p.f.floor.pool.spares[0].proc, Exit: killed})
		none[Fork](p)
		p.want(Report{Level: Warning, Kind: KindSpareFailed, Text: "spare: killed by SIGKILL; the next one in " + policy.Span(d*sec)})
		if got := p.untilDue(); got != d*sec {
			t.Fatalf("the next spare in %s, want %d s", got, d)
		}
		p.forked()
	}
	p.wait(30 * sec)
	p.send(Exited{Proc: p.f.floor.pool.spares[0].proc, Exit: killed})
	if got := p.untilDue(); got != sec {
		t.Errorf("after a spare that lived: the next one in %s, want 1 s", got)
	}
	p.send(SpawnFailed{p.f.floor.pool.request(), "fork: try again"})
	if got := p.untilDue(); got != 2*sec {
		t.Errorf("after a refused spare: the next one in %s, want 2 s", got)
	}
	p.forked()
	p.exit("w.0", status1)
	p.wait(2 * sec) // the spare becomes w.0
	p.run("w.0")
	p.forked()
	p.send(Exited{Proc: p.f.floor.pool.spares[0].proc, Exit: killed})
	if got := p.untilDue(); got != sec {
		t.Errorf("after a spare that was of use: the next one in %s, want 1 s", got)
	}
}

func TestSparesThatDieTogetherAreOneFailure(t *testing.T) {
	p := upWith(t, 1, 3)
	for range 3 {
		p.send(Exited{Proc: p.f.floor.pool.spares[0].proc, Exit: killed})
	}
	if got := p.untilDue(); got != sec {
		t.Errorf("the next spare in %s, want 1 s", got)
	}
	p.forked()
	if got := len(p.f.floor.pool.spares); got != 3 {
		t.Errorf("%d spares, want 3", got)
	}
}

// A spare that somebody has stopped, or that ends, becomes no slot: the next one does, or
// the floor forks one. It is nobody's failure, unless it goes on.
func TestSpareThatIsUnfit(t *testing.T) {
	p := upWith(t, 1, 2)
	spares := slices.Clone(p.f.floor.pool.spares)
	p.exit("w.0", status1)
	p.untilDue()
	p.want(Assign{spares[0].proc, p.slot("w.0").id, 1})
	p.send(Unfit{spares[0].proc, "pid 7 is stopped"})
	p.want(Kill{Proc: spares[0].proc, Signal: policy.SIGKILL, All: true})
	p.want(Assign{spares[1].proc, p.slot("w.0").id, 1})
	p.send(Unfit{spares[1].proc, "pid 8 ends"}, Exited{Proc: spares[1].proc, Exit: killed}, Exited{Proc: spares[0].proc, Exit: killed})
	p.wantState("w.0", StateStarting)
	p.forked()
	p.run("w.0")
	if got := p.slot("w.0").failures; got != 1 {
		t.Errorf("%d failures, want that of the exit before", got)
	}
}

// Where each process is stopped at once, a slot does not try for ever.
func TestEachForkIsUnfit(t *testing.T) {
	p := upWith(t, 1, 0)
	p.exit("w.0", status1)
	p.untilDue()
	for range mostUnfit + 1 {
		p.wantState("w.0", StateStarting)
		p.forked()
		p.send(Unfit{p.slot("w.0").proc, "pid 7 is stopped"})
	}
	p.wantState("w.0", StateWaiting)
	p.wantResult("w.0", policy.Resources)
	p.wantStatus("(resources: spare: pid 7 is stopped, 2nd in a row)")
}
