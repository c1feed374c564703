// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"slices"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

// wantKills checks all signals of the last step.
func (p *player) wantKills(want ...Kill) {
	p.t.Helper()
	if got := all[Kill](p.got); !slices.Equal(got, want) {
		p.t.Fatalf("signals %+v, want %+v; all:\n%s", got, want, transcribe(p.got))
	}
}

// playOne brings the slot w.0 up, beside other.0.
func playOne(t *testing.T, set func(p *policy.Policy)) (*player, Proc) {
	t.Helper()
	w := execWorker("w", 1)
	set(&w.Policy)
	p := play(t, fleetOf(w, execWorker("other", 1)))
	p.up()
	return p, p.slot("w.0").proc
}

func asItIs(*policy.Policy) {}

func TestLeftOversAreAskedToEndBeforeTheNextStart(t *testing.T) {
	p, proc := playOne(t, asItIs)
	p.send(Swept{proc}) // of a live process: means nothing
	p.wantState("w.0", StateReady)
	p.send(Exited{Proc: proc, Exit: status1, Left: 2})
	p.wantKills(Kill{proc, policy.SIGTERM, true}, Kill{proc, policy.SIGCONT, true})
	p.wantState("w.0", StateStopping)
	p.wantStatus("w.0 stopping (exited with status 1; 2 processes that it left behind got SIGTERM; SIGKILL in 5s)")
	p.wait(leftGrace - 1)
	p.wantKills()
	p.send(Exited{Proc: proc, Exit: status0}) // a process ends once
	p.send(Introduced{proc, 3}, Running{proc}, SpawnFailed{proc, "late"}, Notified{Proc: proc, Extend: time.Hour})
	p.wantState("w.0", StateStopping)
	p.send(Swept{proc})
	p.wantState("w.0", StateWaiting)
	p.wantResult("w.0", policy.ExitCode)
}

// What ends at once, or was never there, costs the successor nothing.
func TestSuccessorStartsWithTheEndOfWhatWasLeft(t *testing.T) {
	for _, left := range []int{0, 3} {
		p, proc := playOne(t, func(p *policy.Policy) { p.RestartSec = 0 })
		p.wait(time.Second)
		p.send(Exited{Proc: proc, Exit: status1, Left: left})
		if left > 0 {
			none[StartShim](p)
			p.wait(3 * ms)
			none[StartShim](p)
			p.send(Swept{proc})
		}
		if got := len(all[StartShim](p.got)); got != 1 {
			t.Errorf("%d left: %d successors in the turn of the end, want 1", left, got)
		}
	}
}

func TestStubbornLeftOversAreKilled(t *testing.T) {
	p, proc := playOne(t, asItIs)
	p.send(Exited{Proc: proc, Exit: status1, Left: 1})
	if got := p.untilDue(); got != leftGrace {
		t.Fatalf("killed after %s, want %s", got, leftGrace)
	}
	p.wantKills(Kill{proc, policy.SIGKILL, true})
	p.wantState("w.0", StateKilling)
	p.wantStatus("w.0 killing (what it left behind did not end within 5s; sent SIGKILL)")
	if got := p.untilDue(); got != killGrace {
		t.Fatalf("reported after %s", got)
	}
	p.wantKills()
	p.wantState("w.0", StateKilling)
	p.wantStatus("what it left behind does not end 10s after SIGKILL; the slot waits for it")
	p.send(Swept{proc})
	p.wantState("w.0", StateWaiting)
	p.wantResult("w.0", policy.ExitCode) // of its process: a program that it left is not to blame
}

// The limit of a stop holds for all of the slot.
func TestGraceOfLeftOvers(t *testing.T) {
	stop, byHand := StopRequested{"SIGTERM"}, operator(verb.Stop)
	for _, c := range []struct {
		name  string
		limit time.Duration
		after time.Duration // of the stop; < 0: a crash
		ev    Event
		want  time.Duration
	}{
		{"a crash", 15 * sec, -1, nil, 5 * sec},
		{"a crash, with a short limit", 2 * sec, -1, nil, 2 * sec},
		{"a crash, without a limit", 0, -1, nil, 5 * sec},
		{"a crash, with an endless limit", policy.Forever, -1, nil, 5 * sec},
		{"a stop that is quick", 15 * sec, sec, stop, 5 * sec},
		{"a stop that is slow", 15 * sec, 13 * sec, stop, 2 * sec},
		{"a slot's stop that is slow", 15 * sec, 13 * sec, byHand, 2 * sec},
		{"a stop without a limit", policy.Forever, time.Hour, stop, 5 * sec},
		{"a stop with a short limit", 2 * sec, 500 * ms, stop, 1500 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, proc := playOne(t, func(p *policy.Policy) { p.TimeoutStop = c.limit })
			p.exit("other.0", status0)
			if c.ev != nil {
				p.send(c.ev)
				p.wait(c.after)
			}
			p.send(Exited{Proc: proc, Exit: termed, Left: 1})
			p.wantKills(Kill{proc, policy.SIGTERM, true}, Kill{proc, policy.SIGCONT, true})
			if got := p.untilDue(); got != c.want {
				t.Errorf("SIGKILL after %s, want %s", got, c.want)
			}
			p.wantKills(Kill{proc, policy.SIGKILL, true})
		})
	}
}

// A process that ends when its time is over leaves no time to what is left.
func TestNoGraceAfterTheLimitOfAStop(t *testing.T) {
	p, proc := playOne(t, asItIs)
	p.send(operator(verb.Stop))
	p.now = p.slot("w.0").deadline
	p.send(Exited{Proc: proc, Exit: termed, Left: 2})
	p.wantKills(Kill{proc, policy.SIGKILL, true})
	p.wantStatus("w.0 killing (killed by SIGTERM (a clean exit); 2 processes that it left behind got SIGKILL)")
}

// What SIGKILL was sent to as a whole is not asked once more.
func TestLeftOversOfWhatWasKilled(t *testing.T) {
	p, proc := playOne(t, asItIs)
	p.send(operator(verb.Stop))
	p.wait(15 * sec)
	p.want(Kill{proc, policy.SIGKILL, true})
	p.send(Exited{Proc: proc, Exit: killed, Left: 1})
	p.wantKills(Kill{proc, policy.SIGKILL, true})
	p.send(Swept{proc})
	p.wantState("w.0", StateExited)
	p.wantResult("w.0", policy.Timeout)
}

// The second request to stop does not wait for the grace.
func TestSecondStopKillsWhatWasLeft(t *testing.T) {
	p := play(t, fleetOf(entryWorker("w", 1), execWorker("x", 1)))
	p.up()
	w, x, floor := p.slot("w.0").proc, p.slot("x.0").proc, p.f.floor.proc
	p.send(Exited{Proc: x, Exit: status1, Left: 1})
	p.send(StopRequested{"SIGTERM"})
	p.send(Exited{Proc: w, Exit: termed, Left: 1}, Exited{Proc: floor, Exit: status0, Left: 1})
	p.wait(sec)
	p.wantKills()
	p.send(StopRequested{"SIGTERM"})
	p.wantKills(Kill{w, policy.SIGKILL, true}, Kill{x, policy.SIGKILL, true}, Kill{floor, policy.SIGKILL, true})
	p.wantStatus("stopping: 3 processes left")
	p.send(StopRequested{"SIGTERM"})
	p.wantKills()
	p.send(Swept{w}, Swept{x}, Swept{floor})
	p.wantQuit(0)
}

// A floor that was killed with all that came from it is not asked once more.
func TestLeftOversOfAKilledFloor(t *testing.T) {
	p := play(t, fleetOf(entryWorker("w", 1)))
	p.up()
	p.send(StopRequested{"SIGTERM"}, StopRequested{"SIGTERM"})
	floor := p.f.floor.proc
	p.want(Kill{floor, policy.SIGKILL, true})
	p.send(Exited{Proc: floor, Exit: killed, Left: 1})
	p.wantKills(Kill{floor, policy.SIGKILL, true})
	p.exit("w.0", killed)
	p.send(Swept{floor})
	p.wantQuit(0)
}

func TestKillModes(t *testing.T) {
	watchdog := func(p *policy.Policy) { p.Notify, p.Watchdog = true, sec }
	for _, c := range []struct {
		name   string
		mode   policy.KillMode
		signal policy.Signal
		end    func(p *player)
		want   []policy.Signal // the first signals
		all    bool
	}{
		{"stop", "", policy.SIGTERM, (*player).stopFleet, []policy.Signal{policy.SIGTERM, policy.SIGCONT}, false},
		{"stop, mixed", policy.KillMixed, policy.SIGINT, (*player).stopFleet, []policy.Signal{policy.SIGINT, policy.SIGCONT}, false},
		{"stop, control-group", policy.KillControlGroup, policy.SIGINT, (*player).stopFleet, []policy.Signal{policy.SIGINT, policy.SIGCONT}, true},
		{"stop by SIGKILL", policy.KillMixed, policy.SIGKILL, (*player).stopFleet, []policy.Signal{policy.SIGKILL}, false},
		{"stop by SIGKILL, control-group", policy.KillControlGroup, policy.SIGKILL, (*player).stopFleet, []policy.Signal{policy.SIGKILL}, true},
		{"stop by SIGCONT", policy.KillMixed, policy.SIGCONT, (*player).stopFleet, []policy.Signal{policy.SIGCONT}, false},
		{"watchdog", policy.KillMixed, policy.SIGTERM, (*player).missBeat, []policy.Signal{policy.SIGABRT, policy.SIGCONT}, false},
		{"watchdog, control-group", policy.KillControlGroup, policy.SIGTERM, (*player).missBeat, []policy.Signal{policy.SIGABRT, policy.SIGCONT}, true},
		{"kill by hand", policy.KillControlGroup, policy.SIGTERM, func(p *player) { p.send(operator(verb.Kill)) }, []policy.Signal{policy.SIGHUP}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := execWorker("w", 1)
			watchdog(&w.Policy)
			w.Policy.KillMode, w.Policy.KillSignal = c.mode, c.signal
			p := play(t, fleetOf(w))
			p.begin()
			p.ready()
			proc := p.slot("w.0").proc
			c.end(p)
			var want []Kill
			for _, sig := range c.want {
				want = append(want, Kill{proc, sig, c.all})
			}
			p.wantKills(want...)
		})
	}
}

func (p *player) stopFleet() {
	p.t.Helper()
	p.send(StopRequested{"SIGTERM"})
}

func (p *player) missBeat() {
	p.t.Helper()
	p.untilDue()
}

// A start that takes too long is ended as a stop ends it.
func TestStartTimeoutSparesNobody(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.KillMode = policy.KillControlGroup
	p := play(t, fleetOf(w))
	proc := p.slot("w.0").proc
	p.send(Introduced{proc, 7})
	p.untilDue()
	p.wantKills(Kill{proc, policy.SIGTERM, true}, Kill{proc, policy.SIGCONT, true})
}

// SIGKILL as kill_signal is for the main process: what it leaves behind ends as
// after any other signal.
func TestKillSignalSIGKILLSparesWhatIsLeft(t *testing.T) {
	p, proc := playOne(t, func(p *policy.Policy) { p.KillSignal = policy.SIGKILL })
	p.send(operator(verb.Restart))
	p.wantState("w.0", StateKilling)
	p.wait(20 * ms)
	p.send(Exited{Proc: proc, Exit: killed, Left: 1})
	p.wantKills(Kill{proc, policy.SIGTERM, true}, Kill{proc, policy.SIGCONT, true})
	p.wantState("w.0", StateStopping)
	if got := p.left("w.0"); got != leftGrace {
		t.Errorf("what is left has %s", got)
	}
	p.send(Swept{proc})
	p.wantState("w.0", StateWaiting)
}

// What is left of a frozen slot could not end.
func TestFrozenLeftOversAreThawed(t *testing.T) {
	p, proc := playOne(t, asItIs)
	p.send(operator(verb.Freeze))
	p.send(Exited{Proc: proc, Exit: killed, Left: 1})
	p.want(Freeze{proc, false}, Kill{proc, policy.SIGTERM, true}, Kill{proc, policy.SIGCONT, true})
}

func TestJitterIsAtMostTenPercent(t *testing.T) {
	f := New(policy.Config{Host: policy.Host{Seed: 7}})
	var least, most time.Duration = policy.Forever, 0
	for range 10000 {
		j := f.jitter(10 * sec)
		least, most = min(least, j), max(most, j)
	}
	if least < 0 || least > 10*ms || most > sec || most < 990*ms {
		t.Errorf("10,000 jitters of 10 s lie between %s and %s, want nearly 0 and 1 s", least, most)
	}
	for _, d := range []time.Duration{0, 1, 9, 10, 100, policy.Forever} {
		for range 100 {
			if j := f.jitter(d); j < 0 || j > d/10 {
				t.Fatalf("the jitter of %d is %d", d, j)
			}
		}
	}
}

func TestOrdinals(t *testing.T) {
	for n, want := range map[int]string{
		1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 10: "10th", 11: "11th", 12: "12th", 13: "13th",
		21: "21st", 22: "22nd", 101: "101st", 111: "111th", 112: "112th", 123: "123rd",
	} {
		if got := ordinal(n); got != want {
			t.Errorf("ordinal(%d) = %q, want %q", n, got, want)
		}
	}
}
