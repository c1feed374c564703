// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

func TestStartLimit(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.StartLimitBurst, w.Policy.StartLimitPeriod, w.Policy.RestartSec = 3, 10*sec, 0
	p := play(t, fleetOf(w, execWorker("other", 1)))
	p.run("other.0")
	for range 2 {
		p.exit("w.0", status1)
		p.untilDue()
		p.wantState("w.0", StateStarting)
	}
	p.exit("w.0", status1)
	p.untilDue()
	p.wantState("w.0", StateFailed)
	p.wantResult("w.0", policy.StartLimitHit)
	p.wantStatus("w.0 failed (start-limit-hit after exit-code 1)")
	none[Stopping](p)
	p.exit("other.0", status0)
	p.wantQuit(1)
}

func TestStartLimitWindowSlides(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		want  State
	}{{10*sec - 1, StateFailed}, {10 * sec, StateStarting}} {
		w := execWorker("w", 1)
		w.Policy.Restart, w.Policy.StartLimitBurst, w.Policy.StartLimitPeriod = policy.RestartAlways, 2, 10*sec
		p := play(t, fleetOf(w))
		p.run("w.0") // start 1
		p.wait(4 * sec)
		p.exit("w.0", status0) // start 2
		p.run("w.0")
		p.wait(c.after - 4*sec)
		p.exit("w.0", status0)
		p.wantState("w.0", c.want)
	}
}

// The limit counts the starts of processes, not the times at which they were
// asked for.
func TestStartLimitCountsFromAssign(t *testing.T) {
	w := entryWorker("w", 1)
	w.Policy.Restart, w.Policy.StartLimitBurst, w.Policy.StartLimitPeriod = policy.RestartAlways, 1, 10*sec
	p := play(t, fleetOf(w))
	p.loaded()
	p.wait(9 * sec)
	p.up()
	p.wait(3 * sec)
	p.exit("w.0", status0)
	p.wantState("w.0", StateFailed)
}

func TestNoStartLimit(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.StartLimitBurst = 1 // without a period there is no limit
	cfg := fleetOf(w)
	cfg.TimeoutStart = policy.Forever
	p := play(t, cfg)
	for range 100 {
		p.exit("w.0", status1)
		p.untilDue()
		p.wantState("w.0", StateStarting)
	}
}

func TestSlotStartTimeout(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	s := p.slot("w.0")
	proc := s.proc
	p.send(Introduced{proc, 7})
	p.want(Assign{proc, 1, 1})
	if got := p.untilDue(); got != 90*sec {
		t.Fatalf("the start times out after %s, want 90 s", got)
	}
	p.wantState("w.0", StateStopping)
	p.want(Kill{proc, policy.SIGTERM, false})
	p.wantStatus("w.0 stopping (did not start within 1min 30s (timeout_start_sec); sent SIGTERM; SIGKILL in 15s)")
	if got := p.untilDue(); got != 15*sec {
		t.Fatalf("SIGKILL after %s, want 15 s", got)
	}
	p.wantState("w.0", StateKilling)
	p.want(Kill{proc, policy.SIGKILL, true})
	p.send(Exited{Proc: proc, Exit: killed})
	p.wantState("w.0", StateWaiting)
	p.wantResult("w.0", policy.Timeout)
	p.wantStatus("w.0 restarts in 1.1s (timeout, 1st in a row)")
}

// A timeout is a failure, even where the process then ends cleanly.
func TestTimeoutIsNotClean(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	p.send(Introduced{p.slot("w.0").proc, 7})
	p.untilDue()
	p.exit("w.0", termed)
	p.wantResult("w.0", policy.Timeout)
	p.wantState("w.0", StateWaiting)
	if why := p.slot("w.0").why; strings.Contains(why, "clean") {
		t.Errorf("reported as %q", why)
	}
}

// A shim that never comes to its gate is not waited for either.
func TestShimThatDoesNotComeTimesOut(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	proc := p.slot("w.0").proc
	p.untilDue()
	p.wantState("w.0", StateKilling)
	p.want(Kill{proc, policy.SIGKILL, true})
	p.send(Introduced{proc, 9})
	p.want(Kill{proc, policy.SIGKILL, true})
	none[Assign](p)
	p.send(SpawnFailed{proc, "late"}) // there is a process, so its end follows
	p.wantState("w.0", StateKilling)
	p.send(Exited{Proc: proc, Exit: killed})
	p.wantState("w.0", StateWaiting)
}

func TestNoTimeouts(t *testing.T) {
	for _, none := range []time.Duration{0, policy.Forever} {
		w := execWorker("w", 1)
		w.Policy.TimeoutStart, w.Policy.TimeoutStop = none, none
		cfg := fleetOf(w)
		cfg.TimeoutStart = none
		p := play(t, cfg)
		p.send(Introduced{p.slot("w.0").proc, 7})
		p.wait(1e6 * time.Hour)
		p.wantState("w.0", StateStarting)
		p.send(StopRequested{"SIGTERM"})
		p.wait(1e6 * time.Hour)
		p.wantState("w.0", StateStopping)
		p.send(StopRequested{"SIGTERM"})
		p.exit("w.0", killed)
		p.wantQuit(0)
	}
}

// A slot that has recovered has no failures, without another end of its process.
func TestFailuresAreOverAfterRestartReset(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.RestartReset = 20 * sec
	p := play(t, fleetOf(w))
	p.run("w.0")
	p.exit("w.0", status1)
	p.untilDue()
	p.run("w.0")
	p.wait(20*sec - 1)
	if s := p.slot("w.0"); s.failures != 1 || s.why != "running, after 1 failure" {
		t.Errorf("before: %d failures, %q", s.failures, s.why)
	}
	p.wait(1)
	if s := p.see().Slots[0]; s.Failures != 0 || s.Why != "running" {
		t.Errorf("after: %d failures, %q", s.Failures, s.Why)
	}
	if got := p.f.Deadline(); got != policy.Never {
		t.Errorf("something is due in %s", got.Sub(p.now))
	}
}

// What is shown of a slot is of now: no time that has passed, and no word of a process that
// has ended.
func TestNothingStaleIsShown(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	p.run("w.0")
	p.say("w.0", Notified{HasStatus: true, Status: "serving"})
	if got := p.see().Slots[0].Text; got != "serving" {
		t.Fatalf("it says %q", got)
	}
	p.exit("w.0", status1)
	if s := p.see().Slots[0]; s.Text != "" || strings.Contains(s.Why, " in 1") {
		t.Errorf("it says %q, and why %q", s.Text, s.Why)
	}
	p.untilDue()
	p.run("w.0")
	p.operate(verb.Stop)
	p.wait(5 * sec)
	p.wantStatus("sent SIGTERM; SIGKILL in 10s)")
	if s := p.see().Slots[0]; strings.Contains(s.Why, "SIGKILL") {
		t.Errorf("why: %q", s.Why)
	}
}
