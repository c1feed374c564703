// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"slices"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// TestStopOrder: READY before STOPPING, then every slot at once, the spares, and
// the floor.
func TestStopOrder(t *testing.T) {
	cfg := fleetOf(entryWorker("w", 2), execWorker("x", 1))
	cfg.Spares = 1
	p := play(t, cfg)
	p.up()
	w0, w1, x := p.slot("w.0").proc, p.slot("w.1").proc, p.slot("x.0").proc
	spare, floor := p.f.floor.pool.spares[0].proc, p.f.floor.proc
	p.send(StopRequested{"SIGTERM"})
	acts := slices.DeleteFunc(slices.Clone(p.got), func(a Action) bool {
		switch a.(type) {
		case Report, Status:
			return true
		}
		return false
	})
	want := []Action{
		Stopping{},
		Kill{w0, policy.SIGTERM, false},
		Kill{w0, policy.SIGCONT, false},
		Kill{w1, policy.SIGTERM, false},
		Kill{w1, policy.SIGCONT, false},
		Kill{x, policy.SIGTERM, false},
		Kill{x, policy.SIGCONT, false},
		Kill{spare, policy.SIGKILL, true},
		StopFloor{floor},
	}
	if !slices.Equal(acts, want) {
		t.Fatalf("got:\n%swant:\n%s", transcribe(acts), transcribe(want))
	}
	p.wantStatus("stopping: 5 processes left")
	for _, proc := range []Proc{w0, floor, x, spare} {
		p.send(Exited{Proc: proc, Exit: termed})
		none[Quit](p)
	}
	p.send(Exited{Proc: w1, Exit: status1})
	p.want(Status{"stopped: SIGTERM"}, Report{Level: Notice, Text: "fleet shut down"}, Quit{0, "SIGTERM"})
	p.wantQuit(0)
}

func TestWorkerKilledAfterStopDeadline(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.TimeoutStop, w.Policy.KillSignal = 3*sec, policy.SIGINT
	p := play(t, fleetOf(w))
	p.up()
	proc := p.slot("w.0").proc
	p.send(StopRequested{"SIGTERM"})
	p.want(Kill{proc, policy.SIGINT, false})
	if got := p.untilDue(); got != 3*sec {
		t.Fatalf("killed after %s, want 3 s", got)
	}
	p.want(Kill{proc, policy.SIGKILL, true})
	p.exit("w.0", killed)
	p.wantQuit(0)
}

func TestSecondStopKills(t *testing.T) {
	cfg := fleetOf(entryWorker("w", 2))
	cfg.Spares = 1
	p := play(t, cfg)
	p.up()
	w0, w1, floor, spare := p.slot("w.0").proc, p.slot("w.1").proc, p.f.floor.proc, p.f.floor.pool.spares[0].proc
	p.send(StopRequested{"SIGTERM"})
	p.send(Exited{Proc: w0, Exit: termed})
	p.send(StopRequested{"SIGTERM"})
	p.want(Kill{w1, policy.SIGKILL, true}, Kill{floor, policy.SIGKILL, true})
	if got := len(all[Kill](p.got)); got != 2 {
		t.Errorf("%d kills, want 2", got)
	}
	p.wait(5 * sec)
	p.send(StopRequested{"SIGTERM"}) // the third one changes nothing
	none[Kill](p)
	if got := p.f.Deadline().Sub(p.now); got != 5*sec {
		t.Errorf("the kills may take %s more, want 5 s", got)
	}
	for _, proc := range []Proc{w1, floor, spare} {
		p.send(Exited{Proc: proc, Exit: killed})
	}
	p.wantQuit(0)
}

// A fleet that stops by itself takes the first request for what it is.
func TestFirstStopOfAFleetThatStopsIsGraceful(t *testing.T) {
	cfg := fleetOf(execWorker("w", 1))
	cfg.StopAfter = sec
	p := play(t, cfg)
	p.run("w.0")
	p.untilDue()
	p.send(StopRequested{"SIGTERM"})
	none[Kill](p)
	p.send(StopRequested{"SIGTERM"})
	p.want(Kill{p.slot("w.0").proc, policy.SIGKILL, true})
	p.exit("w.0", killed)
	p.wantQuit(0)
}

// Whatever a slot is doing, a stop ends it, and nothing is started any more.
func TestStopInEachState(t *testing.T) {
	for _, s := range situations() {
		p := s.make(t)
		p.send(StopRequested{"SIGTERM"})
		if !p.f.Ended() {
			p.wantStatus("left")
		}
		drain(t, s.name, p)
	}
}

// drain ends every process that was killed, and checks that the fleet quits
// once and starts nothing.
func drain(t *testing.T, name string, p *player) {
	t.Helper()
	var acts []Action
	step := func(ev Event) {
		p.send(ev)
		acts = append(acts, p.got...)
	}
	for range 1000 {
		if p.f.Ended() {
			break
		}
		for _, s := range slices.Clone(p.f.slots) {
			if s.sweeping {
				step(Swept{s.proc})
			} else if s.proc != 0 && s.state == StateKilling {
				step(Exited{Proc: s.proc, Exit: killed})
			}
		}
		for _, l := range slices.Clone(p.f.floors) {
			for len(l.pool.spares) > 0 {
				step(Exited{Proc: l.pool.spares[0].proc, Exit: killed})
			}
			for len(l.pool.killed) > 0 {
				step(Exited{Proc: l.pool.killed[0], Exit: killed})
			}
			if l.sweeping {
				step(Swept{l.proc})
			} else if l.killed && l.proc != 0 {
				step(Exited{Proc: l.proc, Exit: killed})
			}
		}
		if !p.f.Ended() && p.f.Deadline() != policy.Never {
			p.now = p.f.Deadline()
			step(Tick{})
		}
	}
	for _, a := range acts {
		switch a.(type) {
		case LoadFloor, Fork, StartShim, Assign, Ready:
			t.Errorf("%s: %s after the stop", name, tellAction(a))
		}
	}
	if !p.f.Ended() {
		t.Errorf("%s: the fleet does not end", name)
	}
}

func TestStopDuringBackoff(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 2)))
	p.up()
	p.exit("w.0", status1)
	p.send(StopRequested{"SIGTERM"})
	p.wantState("w.0", StateExited)
	p.wait(14 * sec)
	none[StartShim](p)
	p.exit("w.1", status1)
	p.wantQuit(0)
}

func TestStopAtTheGateKills(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	proc := p.slot("w.0").proc
	p.send(StopRequested{"SIGTERM"})
	p.want(Kill{proc, policy.SIGKILL, true})
	p.send(SpawnFailed{proc, "fork: try again"})
	p.wantQuit(0)
}

// Running and Refused that cross a stop on their way do not bring a slot back.
func TestLateAnswersAfterStop(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	proc := p.slot("w.0").proc
	p.send(Introduced{proc, 7})
	p.send(StopRequested{"SIGTERM"})
	p.want(Kill{proc, policy.SIGTERM, false})
	p.send(Running{proc}, CannotBecome{proc, "no such file"})
	p.wantState("w.0", StateStopping)
	p.exit("w.0", termed)
	p.wantQuit(0)
}

func TestAbandonedRequestAfterStop(t *testing.T) {
	p := play(t, fleetOf(entryWorker("w", 1)))
	p.loaded()
	request, floor := p.f.floor.pool.request(), p.f.floor.proc
	p.send(StopRequested{"SIGTERM"})
	p.want(Abandon{request}, StopFloor{floor})
	p.send(Introduced{request, 5}, SpawnFailed{request, "late"}, Exited{Proc: request})
	none[Assign](p)
	p.send(Exited{Proc: floor})
	p.wantQuit(0)
}

func TestFloorKilledAfterGrace(t *testing.T) {
	p := upWith(t, 1, 0)
	p.send(StopRequested{"SIGTERM"})
	p.exit("w.0", termed)
	floor := p.f.floor.proc
	if got := p.untilDue(); got != floorStopGrace {
		t.Fatalf("killed after %s", got)
	}
	p.want(Kill{floor, policy.SIGKILL, false})
	p.loseFloor()
	p.wantQuit(0)
}

// Nothing that cannot be killed keeps the fleet from ending, with exit status 1.
func TestUnkillableProcesses(t *testing.T) {
	cfg := fleetOf(entryWorker("w", 1), execWorker("x", 1))
	cfg.Spares = 2
	p := play(t, cfg)
	p.up()
	slow := p.slot("w.0").proc
	p.send(StopRequested{"SIGTERM"})
	p.wait(30 * sec)
	p.wantQuit(1)
	p.wantStatus("failed: 2 spares not ended 10s after SIGKILL")
	p.send(Exited{Proc: slow, Exit: killed})
	if len(p.got) != 0 {
		t.Errorf("got:\n%s", transcribe(p.got))
	}

	p = play(t, fleetOf(execWorker("x", 1)))
	p.send(Introduced{p.slot("x.0").proc, 42}, Running{p.slot("x.0").proc})
	p.send(StopRequested{"SIGTERM"})
	p.wait(15*sec + killGrace)
	p.wantQuit(1)
	p.wantStatus("failed: x.0: does not end 10s after SIGKILL: look at /proc/42/stack and /proc/42/wchan")
	p.wantState("x.0", StateFailed)
}

// A slot that was reported before the stop gets its time again, and then the
// fleet ends without it.
func TestUnkillableBeforeTheStop(t *testing.T) {
	p := play(t, fleetOf(execWorker("x", 1), execWorker("y", 1)))
	p.run("y.0")
	p.send(Exited{Proc: p.slot("x.0").proc, Exit: status1, Left: 1})
	p.wait(time.Hour)
	p.send(StopRequested{"SIGTERM"})
	p.exit("y.0", termed)
	if got := p.untilDue(); got != killGrace {
		t.Fatalf("waited %s", got)
	}
	p.wantQuit(1)
	p.wantStatus("failed: x.0: what it left behind does not end 10s after SIGKILL")
}

func TestUnkillableFloorAtStop(t *testing.T) {
	p := upWith(t, 1, 0)
	p.send(FloorBroken{p.f.floor.proc, "mad"})
	p.wait(time.Hour)
	p.send(StopRequested{"SIGTERM"})
	p.exit("w.0", termed)
	if got := p.untilDue(); got != killGrace {
		t.Fatalf("waited %s", got)
	}
	p.wantQuit(1)
	p.wantStatus("failed: floor: mad; does not end 10s after SIGKILL")

	p = upWith(t, 1, 0)
	p.send(StopRequested{"SIGTERM"})
	p.exit("w.0", termed)
	p.send(Exited{Proc: p.f.floor.proc, Left: 2})
	if got := p.untilDue() + p.untilDue(); got != leftGrace+killGrace {
		t.Fatalf("waited %s", got)
	}
	p.wantQuit(1)
	p.wantStatus("what it left behind does not end")
}

// The cause of a fleet that fails stays, whatever else goes wrong after it.
func TestFirstCauseStays(t *testing.T) {
	p := play(t, fleetOf(entryWorker("w", 1), execWorker("x", 1)))
	p.run("x.0")
	p.send(SpawnFailed{p.f.floor.proc, "no such file"})
	p.wantStatus("failed: floor: no such file; 1 process left")
	p.wait(15*sec + killGrace)
	p.wantQuit(1)
	p.wantStatus("failed: floor: no such file")
}
