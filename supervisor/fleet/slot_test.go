// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

var (
	status0 = policy.Exit{}
	status1 = policy.Exit{Code: 1}
	killed  = policy.Exit{Signal: policy.SIGKILL}
	termed  = policy.Exit{Signal: policy.SIGTERM}
)

// wantDelay checks a delay of d and up to 10 % more.
func wantDelay(t *testing.T, got, d time.Duration) {
	t.Helper()
	if got < d || got > d+d/10 {
		t.Fatalf("the delay is %s, want %s and up to 10 %% more", got, d)
	}
}

func TestCrashLoopDelays(t *testing.T) {
	for _, w := range []policy.Worker{execWorker("w", 1), entryWorker("w", 1)} {
		p := play(t, fleetOf(w))
		p.up()
		for _, d := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
			p.exit("w.0", status1)
			p.wantState("w.0", StateWaiting)
			wantDelay(t, p.untilDue(), d*sec)
			p.forked()
			p.run("w.0")
		}
	}
}

func TestSlotsThatCrashTogetherReturnApart(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 50)))
	p.up()
	dues := map[policy.Instant]bool{}
	for i := range p.f.slots {
		p.send(Exited{Proc: p.f.slots[i].proc, Exit: status1})
		dues[p.f.slots[i].due] = true
	}
	if len(dues) < 50 {
		t.Errorf("50 slots return at %d points in time", len(dues))
	}
}

// TestBackoffStartsOverAfterReset crashes a slot twice, lets it be ready for a
// while, and looks at the delay after the next crash.
func TestBackoffStartsOverAfterReset(t *testing.T) {
	for _, c := range []struct {
		name              string
		reset, first      time.Duration
		readyFor, want    time.Duration
		failures, crashes int
	}{
		{"default, at once", -1, sec, 0, 4 * sec, 3, 2},
		{"default, just before 30 s", -1, sec, 30*sec - 1, 4 * sec, 3, 2},
		{"default, at 30 s", -1, sec, 30 * sec, sec, 1, 2},
		{"default, last delay 40 s, before", -1, 20 * sec, 40*sec - 1, 80 * sec, 3, 2},
		{"default, last delay 40 s, at", -1, 20 * sec, 40 * sec, 20 * sec, 1, 2},
		{"5 s, just before", 5 * sec, sec, 5*sec - 1, 4 * sec, 3, 2},
		{"5 s, at", 5 * sec, sec, 5 * sec, sec, 1, 2},
		{"0: every slot that was ready", 0, sec, 0, sec, 1, 2},
		{"never", policy.Forever, sec, 1000 * time.Hour, 4 * sec, 3, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := execWorker("w", 1)
			w.Policy.RestartReset, w.Policy.RestartSec, w.Policy.RestartMaxDelay = c.reset, c.first, 1000*sec
			p := play(t, fleetOf(w))
			for range c.crashes {
				p.exit("w.0", status1) // at its gate: was not ready
				p.untilDue()
			}
			p.run("w.0")
			p.wait(c.readyFor)
			p.exit("w.0", status1)
			wantDelay(t, p.slot("w.0").due.Sub(p.now), c.want)
			if got := p.slot("w.0").failures; got != c.failures {
				t.Errorf("%d failures in a row, want %d", got, c.failures)
			}
		})
	}
}

// The time in which left-overs are swept is not time in which a slot was ready.
func TestSweepingIsNotReady(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	p.up()
	p.exit("w.0", status1)
	p.untilDue()
	p.run("w.0")
	p.wait(25 * sec)
	proc := p.slot("w.0").proc
	p.send(Exited{Proc: proc, Exit: status1, Left: 1})
	p.wait(6 * sec)
	p.send(Swept{proc})
	wantDelay(t, p.slot("w.0").due.Sub(p.now), 2*sec)
}

func TestCleanExitsRestartWithoutBackoff(t *testing.T) {
	for _, c := range []struct{ delay, readyFor, want time.Duration }{
		{sec, 0, sec},
		{sec, 400 * ms, 600 * ms},
		{sec, sec - 1, 1},
		{sec, sec, 0},
		{sec, time.Hour, 0},
		{0, 0, minStartInterval},
		{0, minStartInterval - 1, 1},
		{0, minStartInterval, 0},
		{policy.Forever, time.Hour, policy.Forever},
	} {
		w := execWorker("w", 1)
		w.Policy.Restart, w.Policy.RestartSec = policy.RestartAlways, c.delay
		p := play(t, fleetOf(w))
		p.up()
		for range 3 {
			p.wait(c.readyFor)
			p.exit("w.0", status0)
			if c.want == policy.Forever {
				p.wantState("w.0", StateWaiting)
				break
			}
			if c.want > 0 {
				if got := p.untilDue(); got != c.want {
					t.Errorf("%+v: starts again in %s", c, got)
				}
			}
			p.wantState("w.0", StateStarting)
			p.run("w.0")
		}
	}
}

func TestCleanExitForgetsFailures(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.Restart = policy.RestartAlways
	p := play(t, fleetOf(w))
	for range 4 {
		p.exit("w.0", status1)
		p.untilDue()
	}
	p.exit("w.0", status0)
	p.untilDue()
	p.exit("w.0", status1)
	wantDelay(t, p.untilDue(), sec)
}

// Two starts of one slot are at least 100 ms apart, whatever ends the first.
func TestMinStartInterval(t *testing.T) {
	for _, entry := range []bool{false, true} {
		w := policy.Worker{Name: "w", Count: 1, Entry: entry, Policy: defaults()}
		w.Policy.Restart, w.Policy.RestartSec = policy.RestartAlways, 0
		for _, e := range []policy.Exit{status0, status1} {
			p := play(t, fleetOf(w))
			p.up()
			p.wait(30 * ms)
			p.exit("w.0", e)
			if got := p.untilDue(); got != 70*ms {
				t.Errorf("entry %t, %+v after 30 ms: starts again in %s, want 70 ms", entry, e, got)
			}
		}
	}
}

// A slot that waits long for a process starts when it gets one: its 100 ms and
// its RestartSec count from there.
func TestWaitingForAForkIsNotRunning(t *testing.T) {
	w := entryWorker("w", 1)
	w.Policy.Restart = policy.RestartAlways
	p := play(t, fleetOf(w))
	p.loaded()
	p.wait(9 * sec)
	p.forked()
	p.run("w.0")
	p.exit("w.0", status0)
	if got := p.untilDue(); got != sec {
		t.Errorf("starts again in %s, want 1 s", got)
	}
}

func TestInfiniteDelayNeverPasses(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.RestartSec, w.Policy.RestartMaxDelay = policy.Forever, policy.Forever
	p := play(t, fleetOf(w))
	p.up()
	p.exit("w.0", status1)
	p.wantState("w.0", StateWaiting)
	p.wantStatus("w.0 restarts in infinity (exit-code 1, 1st in a row)")
	p.wait(1e6 * time.Hour)
	p.wantState("w.0", StateWaiting)
	p.send(StopRequested{"SIGTERM"})
	p.wantQuit(0)
}

func TestShimFailed(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	p.send(SpawnFailed{p.slot("w.0").proc, "fork: resource temporarily unavailable"})
	p.wantState("w.0", StateWaiting)
	p.wantResult("w.0", policy.Resources)
	p.wantStatus("w.0 restarts in 1.1s (resources: fork: resource temporarily unavailable, 1st in a row)")
	wantDelay(t, p.untilDue(), sec)
	p.wantState("w.0", StateStarting)
}

// What never ran is in no list of exit statuses, although its status is 0.
func TestSpawnFailureIsInNoExitList(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.RestartPrevent.Codes = []int{0}
	p := play(t, fleetOf(w))
	p.send(SpawnFailed{p.slot("w.0").proc, "fork"})
	p.wantState("w.0", StateWaiting)
}

func TestSpawnFailedAfterAssign(t *testing.T) {
	for _, w := range []policy.Worker{execWorker("w", 1), entryWorker("w", 1)} {
		p := play(t, fleetOf(w))
		if w.Entry {
			p.loaded()
			p.forked()
		} else {
			p.send(Introduced{p.slot("w.0").proc, 7})
		}
		proc := p.slot("w.0").proc
		p.send(SpawnFailed{proc, "send orders: broken pipe"})
		p.want(Kill{proc, policy.SIGKILL, true})
		p.wantState("w.0", StateKilling)
		p.send(SpawnFailed{proc, "send orders: broken pipe"})
		none[Kill](p)
		p.send(Exited{Proc: proc, Exit: killed})
		p.wantState("w.0", StateWaiting)
		p.wantResult("w.0", policy.Resources)
		if why := p.slot("w.0").why; !strings.Contains(why, "send orders: broken pipe") {
			t.Errorf("reported as %q", why)
		}
	}
}

func TestRefusalIsShownWithTheExit(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	proc := p.slot("w.0").proc
	p.send(CannotBecome{proc, "too early"}) // not told yet: whatever this is, it is not about the slot
	p.send(Introduced{proc, 7}, CannotBecome{proc, "execve /usr/bin/x: no such file or directory"})
	p.send(Exited{Proc: proc, Exit: policy.Exit{Code: 203}})
	p.wantResult("w.0", policy.ExitCode)
	want := "exit-code: exited with status 203: execve /usr/bin/x: no such file or directory; 1st failure in a row"
	if got := p.slot("w.0").why; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What runs has become the slot; it cannot take that back.
func TestRefusalOfARunningProcess(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	p.run("w.0")
	p.send(CannotBecome{p.slot("w.0").proc, "a lie"})
	p.exit("w.0", status1)
	if why := p.slot("w.0").why; strings.Contains(why, "a lie") {
		t.Errorf("reported as %q", why)
	}
}

func TestRunningOnlyAfterAssign(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	p.send(Running{p.slot("w.0").proc})
	p.wantState("w.0", StateStarting)
	p.run("w.0")
	since := p.slot("w.0").readyAt
	p.wait(sec)
	p.send(Running{p.slot("w.0").proc}, Introduced{p.slot("w.0").proc, 8})
	if got := p.slot("w.0"); got.readyAt != since || got.pid == 8 {
		t.Errorf("a second Running or Introduced was believed")
	}
}

func TestFinishedAndFailedSlots(t *testing.T) {
	prevent := execWorker("w", 1)
	prevent.Policy.RestartPrevent.Codes = []int{0, 9}
	no := execWorker("w", 1)
	no.Policy.Restart = policy.RestartNo
	for _, c := range []struct {
		w    policy.Worker
		e    policy.Exit
		want State
		why  string
	}{
		{execWorker("w", 1), status0, StateExited, `exited with status 0 after 0ms; finished (restart = "on-failure")`},
		{execWorker("w", 1), termed, StateExited, `killed by SIGTERM (a clean exit) after 0ms; finished (restart = "on-failure")`},
		{prevent, status0, StateExited, "exited with status 0 after 0ms; finished (restart_prevent_exit_status)"},
		{prevent, policy.Exit{Code: 9}, StateFailed, "exit-code: exited with status 9 after 0ms; will not be restarted (restart_prevent_exit_status)"},
		{no, policy.Exit{Signal: 6, Core: true}, StateFailed, `core-dump: killed by SIGABRT (core dumped) after 0ms; will not be restarted (restart = "no")`},
	} {
		p := play(t, fleetOf(c.w, execWorker("other", 1)))
		p.run("w.0")
		p.exit("w.0", c.e)
		p.wantState("w.0", c.want)
		if got := p.slot("w.0").why; got != c.why {
			t.Errorf("got %q\nwant %q", got, c.why)
		}
	}
}

func TestForcedRestart(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.Restart = policy.RestartNo
	w.Policy.RestartForce = policy.ExitSet{Codes: []int{0, 9}}
	p := play(t, fleetOf(w))
	p.run("w.0")
	p.exit("w.0", policy.Exit{Code: 9})
	wantDelay(t, p.untilDue(), sec)
	p.run("w.0")
	p.wait(sec)
	p.exit("w.0", status0) // forced too, and clean: at once
	p.wantState("w.0", StateStarting)
}

func TestUnkillableSlotWaits(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	p.send(Introduced{p.slot("w.0").proc, 77})
	p.untilDue()
	p.untilDue()
	if got := p.untilDue(); got != killGrace {
		t.Fatalf("reported after %s", got)
	}
	p.wantState("w.0", StateKilling)
	p.wantStatus("does not end 10s after SIGKILL: look at /proc/77/stack and /proc/77/wchan; the slot waits for it")
	p.exit("w.0", killed)
	p.wantState("w.0", StateWaiting)
}

func TestKillSignalSIGKILL(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.KillSignal = policy.SIGKILL
	p := play(t, fleetOf(w))
	p.up()
	p.send(StopRequested{"SIGTERM"})
	p.wantState("w.0", StateKilling)
	if kills := all[Kill](p.got); len(kills) != 1 {
		t.Errorf("got %d kills, want 1", len(kills))
	}
	p.exit("w.0", killed)
	p.wantQuit(0)
}
