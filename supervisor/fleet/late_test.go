// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// frozen lets time pass in which the fleet does not decide.
func (p *player) frozen(d time.Duration, ev Event) {
	p.t.Helper()
	p.now = p.now.Add(d)
	p.send(ev)
}

// overslept are the reports of a master that did not run.
func (p *player) overslept() (found []Report) {
	for _, r := range all[Report](p.got) {
		if r.Kind == KindOverslept {
			found = append(found, r)
		}
	}
	return found
}

// A turn that is late by less than 500 ms is a matter of scheduling.
func TestLateByAlmostHalfASecond(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.ready()
	p.frozen(5*sec+lateAfter-1, Tick{})
	if len(p.overslept()) != 0 {
		t.Error("reported as a master that did not run")
	}
	p.want(Kill{p.slot("w.0").proc, policy.SIGABRT, false})
}

func TestLateByHalfASecond(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.ready()
	p.wait(2 * sec)
	p.frozen(3*sec+lateAfter, Tick{})
	none[Kill](p)
	p.want(Report{Level: Notice, Kind: KindOverslept, Text: "the master did not run for 500ms (frozen, stopped, or short of CPU); " +
		"the deadlines of its processes were extended"})
	if got := p.untilDue(); got != 3*sec {
		t.Errorf("aborted after %s, want the 3 s that were left", got)
	}
	p.want(Kill{p.slot("w.0").proc, policy.SIGABRT, false})
	if len(p.overslept()) != 0 {
		t.Error("reported twice")
	}
}

// Whatever event is the first one after a long time, it finds all deadlines moved.
func TestFirstEventAfterAFreeze(t *testing.T) {
	for _, mk := range []func(p *player) Event{
		func(*player) Event { return Tick{} },
		func(p *player) Event { return Notified{Proc: p.slot("other.0").proc, Watchdog: true} },
		func(p *player) Event { return Exited{Proc: p.slot("other.0").proc} },
	} {
		p := playBeside(t, notifyWorker())
		p.ready()
		p.frozen(time.Minute, mk(p))
		none[Kill](p)
		p.wantState("w.0", StateReady)
		if got := p.beatLeft("w.0"); got != 5*sec {
			t.Errorf("a keep-alive is due in %s, want 5 s", got)
		}
	}
}

// TestFrozen freezes a fleet for an hour, 2 s into each situation that has a
// deadline. Nothing ends, and what was left of the deadline is left.
func TestFrozen(t *testing.T) {
	entry := func(steps ...func(p *player)) func(t *testing.T) *player {
		return func(t *testing.T) *player {
			cfg := fleetOf(entryWorker("w", 1))
			p := play(t, cfg)
			for _, step := range steps {
				step(p)
			}
			return p
		}
	}
	notify := func(steps ...func(p *player)) func(t *testing.T) *player {
		return func(t *testing.T) *player {
			w := notifyWorker()
			w.Policy.Watchdog = 0
			p := playBeside(t, w)
			for _, step := range steps {
				step(p)
			}
			return p
		}
	}
	ready := (*player).ready
	trigger := func(p *player) { p.say("w.0", Notified{Trigger: true}) }
	for _, c := range []struct {
		name string
		make func(t *testing.T) *player
		left time.Duration // after 2 s
	}{
		{"starting", notify(), 88 * sec},
		{"reloading", notify(ready, func(p *player) { p.say("w.0", Notified{Reloading: true}) }), 88 * sec},
		{"aborted", notify(ready, trigger), 13 * sec},
		{"stopping", notify(ready, func(p *player) { p.send(StopRequested{"SIGTERM"}) }), 13 * sec},
		{"killing", notify(ready, trigger, due), 8 * sec},
		{"a watchdog", notify(ready, func(p *player) { p.say("w.0", Notified{Interval: 5 * sec}) }), 3 * sec},
		{"the fleet starts and its floor loads", entry(), 298 * sec},
		{"a floor forks", entry(loaded), 8 * sec},
		{"a floor loads again", entry(up, lose, due), 298 * sec},
		{"a floor is killed", entry(up, func(p *player) { p.send(FloorBroken{p.f.floor.proc, "mad"}) }), 8 * sec},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.make(t)
			p.wait(2 * sec)
			if got := p.f.Deadline().Sub(p.now); got != c.left {
				t.Fatalf("due in %s, want %s", got, c.left)
			}
			p.frozen(time.Hour, Tick{})
			none[Kill](p)
			none[Stopping](p)
			if got := len(p.overslept()); got != 1 {
				t.Errorf("reported %d times, want once", got)
			}
			if got := p.f.Deadline().Sub(p.now); got != c.left {
				t.Errorf("after an hour: due in %s, want %s", got, c.left)
			}
		})
	}
}

// A freeze is forgiven each time, and only then: who is silent while the master
// runs is ended.
func TestFrozenAgainAndAgain(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.ready()
	for range 3 {
		p.wait(sec)
		p.frozen(time.Minute, Tick{})
		none[Kill](p)
	}
	if got := p.untilDue(); got != 2*sec {
		t.Errorf("aborted after %s, want the 2 s that were left", got)
	}
}

// Delays pass while the master does not run, as does what the fleet has planned.
func TestDelaysPassWhileFrozen(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1), entryWorker("e", 1)))
	p.up()
	p.exit("w.0", status1)
	p.loseFloor()
	p.frozen(time.Minute, Tick{})
	p.wantState("w.0", StateStarting)
	p.want(LoadFloor{p.f.floor.proc, 2, 1})
	if len(p.overslept()) != 0 {
		t.Error("there was nobody to forgive")
	}

	cfg := fleetOf(notifyWorker())
	cfg.StopAfter, cfg.PingEvery = 30*sec, 20*sec
	p = play(t, cfg)
	p.begin()
	p.ready()
	p.frozen(time.Minute, Tick{})
	p.want(Ping{}, Stopping{}, Kill{p.slot("w.0").proc, policy.SIGTERM, false})
	if got := len(all[Kill](p.got)); got != 2 { // and SIGCONT
		t.Errorf("%d signals, want 2", got)
	}

	p = play(t, fleetOf(onDemand(execWorker("w", 2))))
	p.serves("w.0")
	p.frozen(time.Minute, Tick{})
	p.wantDemands(PollSockets{1})
}

// Delays stay where they are also when there is something to forgive.
func TestDelaysAreNotMoved(t *testing.T) {
	w := notifyWorker()
	crash := execWorker("crash", 1)
	crash.Policy.RestartSec, crash.Policy.RestartMaxDelay = 100*sec, 100*sec
	p := play(t, fleetOf(w, crash))
	p.run("crash.0")
	p.begin()
	p.ready()
	p.exit("crash.0", status1)
	at := p.slot("crash.0").due
	p.frozen(time.Minute, Tick{})
	if got := p.slot("crash.0").due; got != at {
		t.Errorf("the restart was moved by %s", got.Sub(at))
	}
}

// A fleet that waits for nothing is not late.
func TestNothingPromised(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	p.run("w.0")
	p.frozen(1e6*time.Hour, Tick{})
	p.wantNothing()
	p.exit("w.0", status1)
	if len(p.overslept()) != 0 {
		t.Error("reported as a master that did not run")
	}
}

// A turn that is late by less than what is forgiven: whoever has sent its
// keep-alive meanwhile is heard before anyone is judged.
func TestWhatWaitedIsHeardFirst(t *testing.T) {
	w := execWorker("w", 3)
	w.Policy.Watchdog = 5 * sec
	p := play(t, fleetOf(w))
	p.up()
	p.now = p.now.Add(5*sec + lateAfter - ms)
	p.send(Notified{Proc: p.slot("w.0").proc, Watchdog: true})
	p.send(Notified{Proc: p.slot("w.1").proc, Watchdog: true})
	p.now++
	p.send(Tick{})
	p.wantState("w.0", StateReady)
	p.wantState("w.1", StateReady)
	p.wantState("w.2", StateStopping)
	p.want(Kill{p.slot("w.2").proc, policy.SIGABRT, false})
}

// A machine that is late again and again hides a stuck process for a while only.
func TestForgivenessEnds(t *testing.T) {
	w := execWorker("w", 2)
	w.Policy.Watchdog = 5 * sec
	p := play(t, fleetOf(w))
	p.up()
	late := 0
	for ; p.slot("w.0").state == StateReady && late < 100; late++ {
		p.send(Notified{Proc: p.slot("w.1").proc, Watchdog: true})
		p.now = p.now.Add(5*sec + lateAfter)
		p.send(Tick{})
	}
	if late != maxForgiven+1 {
		t.Errorf("aborted at the late turn %d, want %d", late, maxForgiven+1)
	}
	p.wantState("w.1", StateReady)
}
