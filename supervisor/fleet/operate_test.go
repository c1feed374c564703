// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

// operate does something to w.0 and wants it to be taken.
func (p *player) operate(v verb.Name) {
	p.t.Helper()
	p.send(operator(v))
	if answers := all[Answer](p.got); len(answers) != 1 || answers[0] != (Answer{ID: 1}) {
		p.t.Fatalf("%s: answered %+v", v, answers)
	}
}

func twoPrograms(t *testing.T, change func(w *policy.Worker)) *player {
	t.Helper()
	w := execWorker("w", 1)
	if change != nil {
		change(&w)
	}
	p := play(t, fleetOf(w, execWorker("other", 1)))
	p.run("other.0")
	p.run("w.0")
	p.wait(sec)
	return p
}

// TestStoppedByHandStaysSo: not even restart = "always" starts it, and a fleet in
// which nothing else is left waits for its operator.
func TestStoppedByHandStaysSo(t *testing.T) {
	p := twoPrograms(t, func(w *policy.Worker) { w.Policy.Restart = policy.RestartAlways })
	p.operate(verb.Stop)
	p.wantState("w.0", StateStopping)
	p.exit("w.0", policy.Exit{Signal: policy.SIGTERM})
	p.wantState("w.0", StateExited)
	p.wantStatus("1/2 ready; 1 stopped")
	p.wait(time.Hour)
	p.exit("other.0", status0)
	none[Stopping](p)
	p.operate(verb.Start)
	p.wantState("w.0", StateStarting)
	p.run("w.0")
	p.wantState("w.0", StateReady)
	p.exit("w.0", status0) // it is as before: always
	p.wantState("w.0", StateWaiting)
}

func TestRestartByHandHasNoBackoff(t *testing.T) {
	p := twoPrograms(t, nil)
	p.operate(verb.Restart)
	p.wantState("w.0", StateStopping)
	p.exit("w.0", status1)
	p.wantState("w.0", StateStarting)
	if s := p.slot("w.0"); s.failures != 0 || s.startOnceEnded {
		t.Errorf("got %+v", s)
	}
	p.run("w.0")
	p.exit("w.0", status1) // by itself
	p.wantState("w.0", StateWaiting)
	p.operate(verb.Restart)
	p.wantState("w.0", StateWaiting) // two starts are never closer than the bound
	if got := p.untilDue(); got != minStartInterval {
		t.Errorf("due in %s, want %s", got, minStartInterval)
	}
	p.wantState("w.0", StateStarting)
}

func TestStopEndsARestartByHand(t *testing.T) {
	p := twoPrograms(t, nil)
	p.operate(verb.Restart)
	p.operate(verb.Stop)
	p.exit("w.0", policy.Exit{Signal: policy.SIGTERM})
	p.wantState("w.0", StateExited)
	p.operate(verb.Stop) // once more changes nothing
	p.wantState("w.0", StateExited)
}

func TestStartWhileItStops(t *testing.T) {
	p := twoPrograms(t, nil)
	p.operate(verb.Stop)
	p.operate(verb.Start)
	p.exit("w.0", policy.Exit{Signal: policy.SIGTERM})
	p.wantState("w.0", StateStarting)
}

func TestResetRevivesWhatGaveUp(t *testing.T) {
	p := twoPrograms(t, func(w *policy.Worker) {
		w.Policy.StartLimitBurst, w.Policy.StartLimitPeriod, w.Policy.RestartSec = 1, time.Hour, 0
	})
	p.exit("w.0", status1)
	p.wantState("w.0", StateFailed)
	p.wantResult("w.0", policy.StartLimitHit)
	p.operate(verb.Reset)
	p.wantState("w.0", StateStarting)
	p.run("w.0")
	p.wantState("w.0", StateReady)
}

func TestStartByHandEndsABackoff(t *testing.T) {
	p := twoPrograms(t, func(w *policy.Worker) { w.Policy.RestartSec, w.Policy.RestartMaxDelay = time.Hour, time.Hour })
	p.exit("w.0", status1)
	p.wait(sec)
	p.wantState("w.0", StateWaiting)
	p.operate(verb.Start)
	p.wantState("w.0", StateStarting)
	if got := p.slot("w.0").failures; got != 1 {
		t.Errorf("%d failures, want 1: only a reset forgets them", got)
	}
}

func TestSignalByHand(t *testing.T) {
	p := twoPrograms(t, nil)
	p.operate(verb.Kill)
	if kills := all[Kill](p.got); len(kills) != 1 || kills[0] != (Kill{p.slot("w.0").proc, policy.SIGHUP, false}) {
		t.Errorf("got %+v", kills)
	}
	p.wantState("w.0", StateReady)
	p.exit("w.0", policy.Exit{Signal: policy.SIGHUP}) // a clean exit, that on-failure does not restart
	p.wantState("w.0", StateExited)
	p.send(operator(verb.Kill))
	if got := all[Answer](p.got)[0].Refusal; got != "w.0 has no process: it is exited" {
		t.Errorf("got %q", got)
	}
	none[Kill](p)
}

// A slot that waits for a process of the floor gives its place in the queue up.
func TestStoppedByHandBeforeItHasAProcess(t *testing.T) {
	cfg := fleetOf(entryWorker("w", 1), execWorker("other", 1))
	cfg.Spares = 0
	p := play(t, cfg)
	p.run("other.0")
	p.loaded()
	p.wantState("w.0", StateStarting)
	p.operate(verb.Restart)
	p.wantState("w.0", StateWaiting)
	p.untilDue()
	p.operate(verb.Stop)
	p.wantState("w.0", StateExited)
	none[Assign](p)
	p.operate(verb.Start)
	p.untilDue()
	p.up()
	p.wantState("w.0", StateReady)
}

func TestWhatCannotBeDone(t *testing.T) {
	p := twoPrograms(t, nil)
	for slot, want := range map[string]string{"": "there is no slot ", "w.9": "there is no slot w.9"} {
		ev := operator(verb.Restart)
		ev.Slot = slot
		p.send(ev)
		if got := all[Answer](p.got)[0].Refusal; got != want {
			t.Errorf("slot %q: %q, want %q", slot, got, want)
		}
	}
	p.send(operator("reboot"))
	if got := all[Answer](p.got)[0].Refusal; got != `there is no verb "reboot"` {
		t.Errorf("an unknown verb: %q", got)
	}
	p.send(StopRequested{"SIGTERM"})
	p.send(operator(verb.Start))
	if got := all[Answer](p.got)[0].Refusal; !strings.Contains(got, "the fleet stops") {
		t.Errorf("in a fleet that stops: %q", got)
	}
}

// TestFrozenSlotIsNotHeldToAnything: neither its watchdog nor a reload passes, and
// when it is thawed what was left of both is left of them.
func TestFrozenSlotIsNotHeldToAnything(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.ready()
	p.wait(2 * sec)
	p.operate(verb.Freeze)
	p.want(Freeze{p.slot("w.0").proc, true})
	p.wantStatus("2/2 ready; 1 frozen")
	if v := p.see().Slots[0]; !v.Frozen || v.Why != "freeze by uid 0" {
		t.Errorf("shown as %+v", v)
	}
	p.operate(verb.Freeze) // once more changes nothing
	none[Freeze](p)
	p.wait(time.Hour)
	p.wantState("w.0", StateReady)
	p.operate(verb.Thaw)
	p.want(Freeze{p.slot("w.0").proc, false})
	if got := p.untilDue(); got != 3*sec {
		t.Errorf("the watchdog has %s left, want 3s", got)
	}
	p.wantState("w.0", StateStopping)
}

// TestFrozenSlotIsThawedToStop: a signal would not reach it, and SIGKILL would
// follow.
func TestFrozenSlotIsThawedToStop(t *testing.T) {
	for name, stop := range map[string]func(p *player){
		"stop":      func(p *player) { p.operate(verb.Stop) },
		"restart":   func(p *player) { p.operate(verb.Restart) },
		"the fleet": func(p *player) { p.send(StopRequested{"SIGTERM"}) },
	} {
		p := twoPrograms(t, nil)
		p.operate(verb.Freeze)
		proc := p.slot("w.0").proc
		stop(p)
		t.Log(name)
		p.want(Freeze{proc, false}, Kill{proc, policy.SIGTERM, false})
		if p.slot("w.0").frozen {
			t.Errorf("%s: it is frozen", name)
		}
	}
}

func TestFreezerThatFails(t *testing.T) {
	p := twoPrograms(t, nil)
	p.operate(verb.Freeze)
	p.send(FreezeFailed{p.slot("w.0").proc, "no such file"})
	if s := p.see().Slots[0]; s.Frozen || s.Why != "freezer: no such file" || s.State != StateReady {
		t.Errorf("shown as %+v", s)
	}
	p.f.cfg.Freezer = false
	p.send(operator(verb.Freeze))
	if got := all[Answer](p.got)[0].Refusal; !strings.Contains(got, "there are no control groups") {
		t.Errorf("without a freezer: %q", got)
	}
	p.exit("w.0", status0)
	p.f.cfg.Freezer = true
	p.send(operator(verb.Freeze))
	if got := all[Answer](p.got)[0].Refusal; got != "w.0 has no process that could be frozen: it is exited" {
		t.Errorf("without a process: %q", got)
	}
}

// Stacks change nothing: of a process that hangs in its stop, too, and in a fleet that
// stops. They are taken once a second at most.
func TestStacksByHand(t *testing.T) {
	p := twoPrograms(t, nil)
	p.writes = true
	proc := p.slot("w.0").proc
	p.operate(verb.Stacks)
	p.want(TakeStacks{proc})
	p.wantState("w.0", StateReady)
	p.operate(verb.Stacks)
	none[TakeStacks](p)
	p.send(StopRequested{})
	p.wait(sec)
	p.operate(verb.Stacks)
	p.want(TakeStacks{proc})
	p.send(StacksTaken{proc})
	p.wantState("w.0", StateStopping)
	p.exit("w.0", status0)
	p.send(operator(verb.Stacks))
	if a := all[Answer](p.got); len(a) != 1 || a[0].Refusal != "w.0 has no process: it is exited" {
		t.Errorf("answered %+v without a process", a)
	}
}

// operator is what one does to w.0.
func operator(v verb.Name) Operate {
	return Operate{ID: 1, Slot: "w.0", Call: verb.Call{Name: v, Signal: int(policy.SIGHUP)}, Who: "uid 0"}
}
