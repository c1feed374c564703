// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"slices"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// onDemand makes a worker one that is started on demand.
func onDemand(w policy.Worker) policy.Worker {
	w.OnDemand = true
	return w
}

// wantDemands checks what the last step asked of the sockets: Watch, Unwatch and
// Look, and nothing else.
func (p *player) wantDemands(wanted ...Action) {
	p.t.Helper()
	var got []Action
	for _, a := range p.got {
		switch a.(type) {
		case Watch, Unwatch, PollSockets:
			got = append(got, a)
		}
	}
	if !slices.Equal(got, wanted) {
		p.t.Fatalf("asked of the sockets:\n%swant:\n%s", transcribe(got), transcribe(wanted))
	}
}

// serves lets a connection come to the first worker, and w.N become ready for it.
func (p *player) serves(name string) {
	p.t.Helper()
	p.send(Demand{1})
	p.forked()
	p.run(name)
}

func TestListeningSlots(t *testing.T) {
	p := play(t, fleetOf(onDemand(execWorker("w", 2))))
	p.wantDemands(Watch{1})
	p.want(Watch{1}, Ready{}, Status{"2/2 ready (2 listening)"})
	none[StartShim](p)
	p.wait(1e6 * time.Hour) // they keep the fleet alive, and want nothing
	p.wantNothing()
	if got := p.f.Deadline(); got != policy.Never {
		t.Errorf("a fleet that listens is due in %s", got.Sub(p.now))
	}
}

func TestListeningCountsAsReady(t *testing.T) {
	hang := execWorker("x", 1)
	cfg := fleetOf(onDemand(execWorker("w", 1)), hang)
	p := play(t, cfg)
	none[Ready](p)
	p.wantStatus("1/2 ready (1 listening)")
	p.run("x.0")
	p.want(Ready{}, Status{"2/2 ready (1 listening)"})

	cfg.ReadyWhen.N = 1
	p = play(t, cfg)
	p.want(Ready{})

	// Where another worker hangs, it makes a start that is degraded.
	cfg.ReadyWhen.N = 0
	cfg.TimeoutStart = 30 * sec
	p = play(t, cfg)
	p.untilDue()
	p.want(Ready{})
	none[Stopping](p)
}

func TestListeningKeepsTheFleetAlive(t *testing.T) {
	p := play(t, fleetOf(onDemand(execWorker("w", 1)), execWorker("x", 1)))
	p.run("x.0")
	p.exit("x.0", status0)
	none[Stopping](p)
	p.wantStatus("1/2 ready (1 listening); 1 finished")
	p.send(StopRequested{"SIGTERM"})
	p.wantQuit(0)
}

// The sockets are not watched from the demand until its slot runs, and then as
// long as another slot listens.
func TestDemandStartsASlot(t *testing.T) {
	p := play(t, fleetOf(onDemand(execWorker("w", 2))))
	p.send(Demand{1})
	p.wantDemands()
	p.want(StartShim{p.slot("w.0").proc, 1})
	p.wantState("w.0", StateStarting)
	p.wantState("w.1", StateListening)
	p.wantStatus("1/2 ready (1 listening)")
	p.send(Introduced{p.slot("w.0").proc, 7})
	p.wait(50 * sec)
	p.wantDemands()
	p.send(Demand{1}) // nobody asked
	p.wantNothing()
	p.run("w.0")
	p.wantDemands()
	if got := p.untilDue(); got != 100*ms {
		t.Fatalf("looks after %s, want 100 ms", got)
	}
	p.wantDemands(PollSockets{1})
	p.send(NoDemand{1})
	p.wantDemands(Watch{1})
}

// TestDemandBesideABusySlot: what still waits after 100 ms starts the next slot;
// what has been taken does not.
func TestDemandBesideABusySlot(t *testing.T) {
	p := play(t, fleetOf(onDemand(execWorker("w", 3))))
	p.serves("w.0")
	p.untilDue()
	p.send(NoDemand{1})
	for range 3 {
		p.wait(sec)
		p.send(Demand{1})
		p.wantDemands()
		p.wantState("w.1", StateListening)
		if got := p.untilDue(); got != 100*ms {
			t.Fatalf("looks after %s, want 100 ms", got)
		}
		p.wantDemands(PollSockets{1})
		p.send(NoDemand{1})
		p.wantDemands(Watch{1})
	}
	p.send(Demand{1})
	p.untilDue()
	p.send(Demand{1})
	p.wantState("w.1", StateStarting)
	p.wantDemands()
	p.run("w.1")
	p.untilDue()
	p.wantDemands(PollSockets{1})
	p.send(Demand{1})
	p.wantState("w.2", StateStarting)
	p.run("w.2")
	p.wait(time.Hour) // nobody is left who could be started
	p.wantDemands()
	p.send(Demand{1}, NoDemand{1})
	p.wantNothing()
	p.exit("w.1", status0)
	p.wantState("w.1", StateListening)
	p.wantDemands(Watch{1})
}

// With one slot there is nothing to watch while it is there.
func TestDemandForOne(t *testing.T) {
	p := play(t, fleetOf(onDemand(execWorker("w", 1))))
	p.serves("w.0")
	p.wait(time.Hour)
	p.wantDemands()
	p.wait(time.Hour)
	p.wantNothing()
}

// Where nobody runs, a connection is a demand at once; what ended too early to
// take one is found out by the look that was due.
func TestDemandWithoutABusySlot(t *testing.T) {
	p := play(t, fleetOf(onDemand(execWorker("w", 2))))
	p.serves("w.0")
	p.exit("w.0", status1)
	if got := p.untilDue(); got != 100*ms {
		t.Fatalf("looks after %s, want 100 ms", got)
	}
	p.wantDemands(PollSockets{1})
	p.send(NoDemand{1})
	p.wantDemands(Watch{1})
	p.send(Demand{1})
	p.wantState("w.1", StateStarting)
}

func TestDemandsOfTwoWorkers(t *testing.T) {
	p := play(t, fleetOf(onDemand(execWorker("w", 1)), execWorker("x", 1), onDemand(execWorker("y", 1))))
	p.wantDemands(Watch{1}, Watch{3})
	p.send(Demand{3})
	p.wantState("w.0", StateListening)
	p.wantState("y.0", StateStarting)
	for _, worker := range []WorkerID{0, 2, 4} { // not on demand, or not there
		p.send(Demand{worker}, NoDemand{worker})
		p.wantNothing()
	}
}

// A clean exit goes back to listening, whatever restart says, at the earliest
// 100 ms after the start.
func TestCleanExitListensAgain(t *testing.T) {
	for _, restart := range policy.Restarts {
		for _, c := range []struct{ ran, want time.Duration }{{0, 100 * ms}, {99 * ms, ms}, {100 * ms, 0}, {sec, 0}} {
			w := onDemand(execWorker("w", 1))
			w.Policy.Restart, w.Policy.RestartSec = restart, 20*sec
			p := play(t, fleetOf(w))
			p.serves("w.0")
			p.wait(c.ran)
			p.exit("w.0", status0)
			p.wantResult("w.0", policy.Success)
			if c.want > 0 {
				p.wantState("w.0", StateWaiting)
				p.wantDemands()
				if got := p.untilDue(); got != c.want {
					t.Errorf("%s, ran for %s: listens again in %s, want %s", restart, c.ran, got, c.want)
				}
			}
			p.wantState("w.0", StateListening)
			p.wantDemands(Watch{1})
		}
	}
}

func TestRestartPreventEndsASlotOnDemand(t *testing.T) {
	w := onDemand(execWorker("w", 2))
	w.Policy.RestartPrevent.Codes = []int{0}
	p := play(t, fleetOf(w))
	p.serves("w.0")
	p.exit("w.0", status0)
	p.wantState("w.0", StateExited)
	p.wantWhy("w.0", "exited with status 0 after 0ms; finished (restart_prevent_exit_status)")
	p.wantStatus("1/2 ready (1 listening); 1 finished")
	p.wait(settleTime)
	p.wantDemands(PollSockets{1})
	p.serves("w.1")
	p.exit("w.1", status0)
	p.wantQuit(0)
}

func TestRestartNoOnDemand(t *testing.T) {
	w := onDemand(execWorker("w", 1))
	w.Policy.Restart = policy.RestartNo
	p := play(t, fleetOf(w, execWorker("x", 1)))
	p.run("x.0")
	p.serves("w.0")
	p.exit("w.0", status0)
	p.untilDue()
	p.serves("w.0")
	p.exit("w.0", status1)
	p.wantState("w.0", StateFailed)
	p.wantStatus("w.0 failed (exit-code 1)")
	p.wait(time.Hour)
	p.wantDemands()
}

// A failure goes through the backoff to listening, not to a start.
func TestCrashOnDemand(t *testing.T) {
	p := play(t, fleetOf(onDemand(execWorker("w", 1))))
	for _, d := range []time.Duration{1, 2, 4, 8} {
		p.serves("w.0")
		p.exit("w.0", status1)
		p.wantState("w.0", StateWaiting)
		p.wantDemands()
		wantDelay(t, p.untilDue(), d*sec)
		p.wantState("w.0", StateListening)
		p.wantDemands(Watch{1})
		none[StartShim](p)
	}
	p.serves("w.0")
	p.wait(sec)
	p.exit("w.0", status0) // that is forgotten with a clean exit
	p.serves("w.0")
	p.exit("w.0", status1)
	wantDelay(t, p.untilDue(), sec)
}

func TestStartLimitOnDemand(t *testing.T) {
	w := onDemand(execWorker("w", 1))
	w.Policy.StartLimitBurst, w.Policy.StartLimitPeriod = 2, 10*sec
	p := play(t, fleetOf(w, execWorker("x", 1)))
	p.run("x.0")
	for range 2 {
		p.serves("w.0")
		p.wait(sec)
		p.exit("w.0", status0)
		p.wantState("w.0", StateListening) // that is no start
	}
	p.send(Demand{1})
	p.wantState("w.0", StateFailed)
	p.wantResult("w.0", policy.StartLimitHit)
	p.wantDemands()
}

// Slots listen from the first floor on, and go on when it is lost: a connection
// then waits for the next one.
func TestDemandWhileTheFloorIsLost(t *testing.T) {
	p := play(t, fleetOf(onDemand(entryWorker("w", 2))))
	p.wantState("w.0", StateWaiting)
	p.wantDemands()
	p.loaded()
	p.wantState("w.0", StateListening)
	p.wantDemands(Watch{1})
	none[Fork](p)
	p.want(Ready{})

	p.loseFloor()
	p.wantState("w.0", StateListening)
	p.wantDemands()
	p.send(Demand{1})
	p.wantState("w.0", StateWaiting)
	p.wantDemands() // it is on its way
	none[Fork](p)
	p.untilDue()
	p.loaded()
	p.wantState("w.0", StateStarting)
	p.forked()
	p.run("w.0")
	if got := p.slot("w.0").generation; got != 2 {
		t.Errorf("generation %d, want 2", got)
	}

	p.loseFloor()
	p.exit("w.0", status0) // it ends without a floor, and listens all the same
	p.wait(settleTime)
	p.wantState("w.0", StateListening)
}

func TestSpareServesADemand(t *testing.T) {
	cfg := fleetOf(onDemand(entryWorker("w", 1)))
	cfg.Spares = 1
	p := play(t, cfg)
	p.loaded()
	p.forked()
	spare := p.f.floor.pool.spares[0].proc
	p.loseFloor()
	p.send(Demand{1})
	p.want(Assign{spare, 1, 1})
}

func TestReadyOnDemandWithNotify(t *testing.T) {
	w := onDemand(notifyWorker())
	w.Count = 2
	p := play(t, fleetOf(w))
	p.send(Demand{1})
	p.begin()
	p.wait(4 * sec)
	p.wantDemands() // it is on its way until it says READY=1
	p.ready()
	p.untilDue()
	p.wantDemands(PollSockets{1})
}

func TestStopWhileListening(t *testing.T) {
	p := play(t, fleetOf(onDemand(execWorker("w", 2))))
	p.send(StopRequested{"SIGTERM"})
	p.wantDemands(Unwatch{1})
	p.want(Stopping{}, Unwatch{1}, Quit{0, "SIGTERM"})
	p.wantState("w.0", StateExited)
	p.wantState("w.1", StateExited)

	p = play(t, fleetOf(onDemand(execWorker("w", 2)))) // between demand and look
	p.serves("w.0")
	p.send(StopRequested{"SIGTERM"})
	p.wantDemands()
	p.wait(sec)
	p.wantDemands()
	p.send(Demand{1}, NoDemand{1})
	p.wantNothing()
	p.exit("w.0", termed)
	p.wantQuit(0)

	p = play(t, fleetOf(onDemand(entryWorker("w", 1)))) // woken, without a floor
	p.loaded()
	p.loseFloor()
	p.send(Demand{1}, StopRequested{"SIGTERM"})
	p.wantQuit(0)
}
