// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

// TestStuckWorker: SIGABRT, SIGKILL, result watchdog, restart.
func TestStuckWorker(t *testing.T) {
	p := playBeside(t, notifyWorker())
	proc := p.slot("w.0").proc
	p.wait(30 * sec) // no keep-alive is due before READY=1
	p.wantState("w.0", StateStarting)
	p.ready()
	for range 3 {
		p.wait(5*sec - 1)
		p.say("w.0", Notified{Watchdog: true})
		p.wantNothing()
	}
	if got := p.untilDue(); got != 5*sec {
		t.Fatalf("aborted after %s, want 5 s", got)
	}
	p.want(Kill{proc, policy.SIGABRT, false})
	p.wantState("w.0", StateStopping)
	p.wantWhy("w.0", "no WATCHDOG=1 for 5s (watchdog_sec); sent SIGABRT")
	p.say("w.0", Notified{Watchdog: true}) // too late
	p.wantNothing()
	if got := p.untilDue(); got != 15*sec {
		t.Fatalf("killed after %s, want 15 s", got)
	}
	p.want(Kill{proc, policy.SIGKILL, true})
	p.exit("w.0", killed)
	p.wantResult("w.0", policy.Watchdog)
	p.wantState("w.0", StateWaiting)
	p.wantStatus("w.0 restarts in 1.1s (watchdog, 1st in a row)")
	wantDelay(t, p.untilDue(), sec)
	p.wantState("w.0", StateStarting)
}

// A process that writes its stacks has a second for it before SIGABRT, and before SIGKILL;
// nothing that it says makes it longer.
func TestStuckWorkerWritesItsStacks(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.writes = true
	p.ready()
	proc := p.slot("w.0").proc
	p.untilDue()
	p.want(TakeStacks{proc})
	none[Kill](p)
	p.wantWhy("w.0", "no WATCHDOG=1 for 5s (watchdog_sec); its stacks are taken, SIGABRT follows")
	p.say("w.0", Notified{Watchdog: true, Extend: 100 * sec})
	if got := p.untilDue(); got != stacksGrace {
		t.Errorf("aborted after %s, want %s", got, stacksGrace)
	}
	p.want(Kill{proc, policy.SIGABRT, false})
	p.send(StacksTaken{proc}) // too late
	none[Kill](p)
	p.untilDue()
	p.want(TakeStacks{proc})
	none[Kill](p)
	p.wantState("w.0", StateStopping)
	if got := p.untilDue(); got != stacksGrace {
		t.Errorf("killed after %s, want %s", got, stacksGrace)
	}
	p.want(Kill{proc, policy.SIGKILL, true})
}

// What comes after its stacks have been asked for is not held up by them: its end, and
// a second signal to the master.
func TestStacksHoldNothingUp(t *testing.T) {
	w := notifyWorker()
	w.Policy.TimeoutStop = 100 * ms
	p := playBeside(t, w)
	p.writes = true
	p.ready()
	p.untilDue()
	p.exit("w.0", status1)
	p.wantState("w.0", StateWaiting)
	p.send(StacksTaken{p.slot("w.0").proc})
	p.untilDue()
	p.begin()
	p.ready()
	p.operate(verb.Stop)
	p.untilDue()
	p.want(TakeStacks{p.slot("w.0").proc})
	if got := p.left("w.0"); got != 100*ms {
		t.Errorf("killed in %s, want no more than the time that it had", got)
	}
	p.send(StopRequested{}, StopRequested{})
	p.want(Kill{p.slot("w.0").proc, policy.SIGKILL, true})
}

// However a stuck process ends, it was stuck.
func TestResultOfAStuckWorker(t *testing.T) {
	for _, ev := range []Exited{
		{Exit: status0},
		{Exit: policy.Exit{Signal: policy.SIGABRT, Core: true}},
		{Exit: killed, OOM: true},
		{Exit: status1, Left: 1},
	} {
		w := notifyWorker()
		w.Policy.Restart = policy.RestartOnWatchdog
		p := playBeside(t, w)
		p.ready()
		p.untilDue()
		ev.Proc = p.slot("w.0").proc
		p.send(ev, Swept{ev.Proc})
		p.wantResult("w.0", policy.Watchdog)
		p.wantState("w.0", StateWaiting)
	}
	w := notifyWorker()
	w.Policy.Restart = policy.RestartOnAbort // SIGABRT came from here
	p := playBeside(t, w)
	p.ready()
	p.untilDue()
	p.exit("w.0", policy.Exit{Signal: policy.SIGABRT, Core: true})
	p.wantState("w.0", StateFailed)
}

func TestSimpleWorkerWithWatchdog(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.Watchdog = 3 * sec
	p := playBeside(t, w)
	p.wantState("w.0", StateReady)
	if got := p.untilDue(); got != 3*sec {
		t.Errorf("aborted after %s, want 3 s", got)
	}
	p.want(Kill{p.slot("w.0").proc, policy.SIGABRT, false})
}

func TestNoWatchdog(t *testing.T) {
	for _, watchdog := range []time.Duration{0, policy.Forever} {
		w := notifyWorker()
		w.Policy.Watchdog = watchdog
		p := playBeside(t, w)
		p.ready()
		p.say("w.0", Notified{Watchdog: true})
		p.wait(1e6 * time.Hour)
		p.wantNothing()
	}
}

func TestWatchdogInterval(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.say("w.0", Notified{Interval: 8 * sec}) // before it is ready
	p.wait(20 * sec)
	p.ready()
	if got := p.beatLeft("w.0"); got != 8*sec {
		t.Errorf("set before the slot was ready: due in %s, want 8 s", got)
	}
	p.wait(3 * sec)
	p.say("w.0", Notified{Interval: 2 * sec}) // counts from now, as in systemd
	if got := p.beatLeft("w.0"); got != 2*sec {
		t.Errorf("set while the slot is ready: due in %s, want 2 s", got)
	}
	p.say("w.0", Notified{Interval: 20 * sec})
	p.wait(10 * sec)
	p.say("w.0", Notified{Watchdog: true})
	if got := p.untilDue(); got != 20*sec {
		t.Errorf("aborted after %s, want 20 s", got)
	}
	p.wantWhy("w.0", "no WATCHDOG=1 for 20s (watchdog_sec); sent SIGABRT")
	p.say("w.0", Notified{Interval: sec})
	if got := p.slot("w.0").beatDue; got != policy.Never {
		t.Error("a keep-alive is due from a process that was aborted")
	}

	p.exit("w.0", killed)
	p.untilDue()
	p.begin()
	p.ready()
	if got := p.beatLeft("w.0"); got != 5*sec {
		t.Errorf("after a restart: due in %s, want 5 s", got)
	}
	p.say("w.0", Notified{Interval: policy.Forever})
	if p.untilDue(); p.slot("w.0").failures != 0 { // those of before
		t.Errorf("after restart_reset_sec: %d failures", p.slot("w.0").failures)
	}
	if got := p.f.Deadline(); got != policy.Never {
		t.Errorf("without a watchdog something is due in %s", got.Sub(p.now))
	}
}

func TestWatchdogIntervalWithoutAWatchdog(t *testing.T) {
	w := notifyWorker()
	w.Policy.Watchdog = 0
	p := playBeside(t, w)
	p.ready()
	p.say("w.0", Notified{Interval: 2 * sec})
	if got := p.untilDue(); got != 2*sec {
		t.Errorf("aborted after %s, want 2 s", got)
	}
}

func TestKeepAliveDuringReload(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.ready()
	p.say("w.0", Notified{Reloading: true})
	if got := p.untilDue(); got != 5*sec {
		t.Errorf("aborted after %s, want 5 s", got)
	}
	p.wantResult("w.0", policy.Watchdog)
}

// Who is asked to end need not say that it lives.
func TestNoKeepAliveWhileStopping(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.ready()
	p.send(StopRequested{"SIGTERM"})
	p.wait(15*sec - 1)
	none[Kill](p)
}

func TestTrigger(t *testing.T) {
	w := notifyWorker()
	w.Policy.Watchdog = 0 // it needs none
	for name, until := range map[string]func(p *player){
		"ready":    (*player).ready,
		"starting": func(*player) {},
	} {
		p := playBeside(t, w)
		until(p)
		p.say("w.0", Notified{Trigger: true, HasStatus: true, Status: "lost the lock"})
		p.want(Kill{p.slot("w.0").proc, policy.SIGABRT, false})
		p.wantState("w.0", StateStopping)
		p.wantWhy("w.0", `sent WATCHDOG=trigger; its last status: "lost the lock"; sent SIGABRT`)
		p.say("w.0", Notified{Trigger: true})
		p.wantNothing()
		p.exit("w.0", status0)
		p.wantResult("w.0", policy.Watchdog)
		p.wantState("w.0", StateWaiting)
		t.Log(name)
	}
}
