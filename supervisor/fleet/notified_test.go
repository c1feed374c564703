// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"testing"
	"time"
)

// say lets the process of a slot notify.
func (p *player) say(name string, n Notified) {
	p.t.Helper()
	p.send(n.about(p.slot(name).proc))
}

// notifyWorker is a worker of type=notify with a watchdog of 5 s.
func notifyWorker() Worker {
	w := execWorker("w", 1)
	w.Policy.Notify, w.Policy.Watchdog = true, 5*sec
	return w
}

// playBeside plays a fleet of w and of another worker that keeps it going. Its
// slot w.0 is told and runs.
func playBeside(t *testing.T, w Worker) *player {
	t.Helper()
	p := play(t, fleetOf(w, execWorker("other", 1)))
	p.run("other.0")
	p.begin()
	return p
}

// begin lets w.0 get its process, which runs.
func (p *player) begin() {
	p.t.Helper()
	p.send(Introduced{p.slot("w.0").proc, 7}, Running{p.slot("w.0").proc})
}

func (p *player) ready() {
	p.t.Helper()
	p.say("w.0", Notified{Ready: true})
	p.wantState("w.0", StateReady)
}

// left is how long the slot's deadline lies ahead; Forever if it has none.
func (p *player) left(name string) time.Duration { return p.slot(name).deadline.Sub(p.now) }

// beatLeft is how long the slot's next keep-alive may take.
func (p *player) beatLeft(name string) time.Duration { return p.slot(name).beatDue.Sub(p.now) }

func (p *player) wantWhy(name, want string) {
	p.t.Helper()
	if got := p.slot(name).why; got != want {
		p.t.Fatalf("the reason for the state of %s:\ngot  %s\nwant %s", name, got, want)
	}
}

func TestNotifyWorkerIsReadyWhenItSaysSo(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.wantState("w.0", StateStarting)
	p.wait(30 * sec)
	p.wantState("w.0", StateStarting)
	none[Ready](p)
	p.ready()
	p.want(Ready{})
	if got := p.slot("w.0").readyAt; got != p.now {
		t.Errorf("ready since %d, want %d", got, p.now)
	}
}

// Its word can be read before it is heard that it has left its gate.
func TestReadyBeforeRunning(t *testing.T) {
	p := play(t, fleetOf(notifyWorker()))
	proc := p.slot("w.0").proc
	p.send(Introduced{proc, 7}, Notified{Proc: proc, Ready: true})
	p.wantState("w.0", StateStarting)
	none[Ready](p)
	p.wait(sec)
	p.send(Running{proc})
	p.wantState("w.0", StateReady)
	p.want(Ready{})
	if got := p.beatLeft("w.0"); got != 5*sec {
		t.Errorf("the first keep-alive is due in %s, want 5 s", got)
	}
}

// The successor of a process that was ready before it ran has to say so itself.
func TestReadyIsNotInherited(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.exit("w.0", status1)
	p.untilDue()
	p.send(Introduced{p.slot("w.0").proc, 8})
	p.say("w.0", Notified{Ready: true})
	p.exit("w.0", status1)
	p.untilDue()
	p.begin()
	p.wantState("w.0", StateStarting)
}

func TestReadyTwice(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.ready()
	p.wait(2 * sec)
	before := clone(p.f)
	p.say("w.0", Notified{Ready: true})
	if len(p.got) != 0 || !same(withTime(before, p.f), p.f) {
		t.Errorf("a second READY=1 changed the fleet:\n%s", transcribe(p.got))
	}
}

// withTime is a fleet that has decided as late as another one.
func withTime(f, as *Fleet) *Fleet {
	f.late = as.late
	return f
}

// A worker of type=simple may say what it likes of its start.
func TestReadyOfASimpleWorker(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	p.send(Introduced{p.slot("w.0").proc, 7})
	p.say("w.0", Notified{Ready: true})
	p.wantNothing()
	p.wantState("w.0", StateStarting)
	p.send(Running{p.slot("w.0").proc})
	p.wantState("w.0", StateReady)
	p.say("w.0", Notified{Ready: true})
	p.wantNothing()
	p.exit("w.0", status1)
	p.untilDue()
	p.run("w.0")
}

// A process without an order has no words, and what ends does not become ready.
func TestReadyTooEarlyOrTooLate(t *testing.T) {
	p := play(t, fleetOf(notifyWorker(), execWorker("other", 1)))
	p.run("other.0")
	p.say("w.0", Notified{Ready: true, HasStatus: true, Status: "early", Interval: sec})
	p.begin()
	p.wantState("w.0", StateStarting)
	if s := p.slot("w.0"); s.status != "" || s.watchdog != 5*sec {
		t.Errorf("words before the order were believed: status %q, watchdog %s", s.status, s.watchdog)
	}
	p.untilDue()
	for _, want := range []State{StateStopping, StateKilling} {
		p.say("w.0", Notified{Ready: true, Reloading: true, Stopping: true, Watchdog: true, Trigger: true})
		p.wantNothing()
		p.wantState("w.0", want)
		p.untilDue()
	}
	p.exit("w.0", status0)
	p.wantResult("w.0", Timeout)
}

func TestNoReadyInTime(t *testing.T) {
	p := playBeside(t, notifyWorker())
	if got := p.untilDue(); got != 90*sec {
		t.Fatalf("the start ends after %s, want 90 s", got)
	}
	p.want(Kill{p.slot("w.0").proc, SIGTERM, false})
	p.wantWhy("w.0", "did not send READY=1 within 1min 30s (timeout_start_sec); sent SIGTERM, SIGKILL follows in 15s")
	p.exit("w.0", status0)
	p.wantResult("w.0", Timeout)
	p.wantState("w.0", StateWaiting)

	p = play(t, fleetOf(notifyWorker())) // this one does not even run
	p.send(Introduced{p.slot("w.0").proc, 7})
	p.untilDue()
	p.wantWhy("w.0", "did not start within 1min 30s (timeout_start_sec); sent SIGTERM, SIGKILL follows in 15s")
}

// TestEndBeforeReady: a clean end before READY=1 is a protocol failure; every
// other end is what it is.
func TestEndBeforeReady(t *testing.T) {
	success := notifyWorker()
	success.Policy.Success.Codes = []int{7}
	running := (*player).begin
	introduced := func(p *player) { p.send(Introduced{p.slot("w.0").proc, 7}) }
	said := func(p *player) {
		introduced(p)
		p.say("w.0", Notified{Ready: true})
	}
	stopped := func(p *player) {
		p.begin()
		p.send(StopRequested{"SIGTERM"})
	}
	left := func(e Exit) Exited { return Exited{Exit: e, Left: 1} }
	ended := func(e Exit) Exited { return Exited{Exit: e} }
	for _, c := range []struct {
		name  string
		w     Worker
		until func(*player)
		end   Exited
		want  Result
		state State
	}{
		{"status 0", notifyWorker(), running, ended(status0), Protocol, StateWaiting},
		{"status 0, leaving", notifyWorker(), running, left(status0), Protocol, StateWaiting},
		{"SIGTERM", notifyWorker(), running, ended(termed), Protocol, StateWaiting},
		{"a success of its own", success, running, ended(Exit{Code: 7}), Protocol, StateWaiting},
		{"told", notifyWorker(), introduced, ended(status0), Protocol, StateWaiting},
		{"at its gate", notifyWorker(), func(*player) {}, ended(status0), Protocol, StateWaiting},
		{"ready before it ran", notifyWorker(), said, ended(status0), Success, StateExited},
		{"status 1", notifyWorker(), running, ended(status1), ExitCode, StateWaiting},
		{"SIGKILL", notifyWorker(), running, ended(killed), Signalled, StateWaiting},
		{"core", notifyWorker(), running, ended(Exit{Signal: SIGTERM, Core: true}), CoreDump, StateWaiting},
		{"ready", notifyWorker(), func(p *player) { p.begin(); p.ready() }, ended(status0), Success, StateExited},
		{"stopped", notifyWorker(), stopped, ended(status0), Success, StateExited},
		{"simple", execWorker("w", 1), introduced, ended(status0), Success, StateExited},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := play(t, fleetOf(c.w, execWorker("other", 1)))
			p.run("other.0")
			c.until(p)
			proc := p.slot("w.0").proc
			c.end.Proc = proc
			p.send(c.end, Swept{proc})
			p.wantResult("w.0", c.want)
			p.wantState("w.0", c.state)
		})
	}
	p := playBeside(t, notifyWorker())
	p.exit("w.0", status0)
	p.wantStatus("w.0 restarts in 1.1s (protocol, 1st in a row)")
}

func TestReload(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.slot("w.0").watchdog = 0 // it is about the reload
	p.ready()
	p.say("w.0", Notified{Reloading: true})
	p.wantState("w.0", StateReady)
	p.wantStatus("2/2 ready")
	p.wait(60 * sec)
	p.say("w.0", Notified{Reloading: true}) // still the same reload
	p.wantNothing()
	if got := p.left("w.0"); got != 30*sec {
		t.Errorf("the reload may take %s more, want 30 s", got)
	}
	p.say("w.0", Notified{Ready: true})
	p.wantWhy("w.0", "reloaded")
	if got := p.f.Deadline(); got != Never {
		t.Errorf("something is due in %s after the reload", got.Sub(p.now))
	}
	p.say("w.0", Notified{Reloading: true})
	if got := p.left("w.0"); got != 90*sec {
		t.Errorf("the next reload may take %s, want 90 s", got)
	}
}

// A reload that does not end is reported, once, and nothing else.
func TestReloadTimeout(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.slot("w.0").watchdog = 0
	p.ready()
	p.say("w.0", Notified{Reloading: true})
	if got := p.untilDue(); got != 90*sec {
		t.Fatalf("the reload ends after %s, want 90 s", got)
	}
	none[Kill](p)
	p.wantState("w.0", StateReady)
	p.wantWhy("w.0", "did not finish its reload within 1min 30s (timeout_start_sec); it is left as it is")
	p.wait(time.Hour)
	p.wantNothing()
	p.say("w.0", Notified{Ready: true}) // late, and of no meaning any more
	p.wantNothing()
	p.exit("w.0", status0)
	p.wantResult("w.0", Success)
}

func TestReloadWithoutTimeout(t *testing.T) {
	w := notifyWorker()
	w.Policy.TimeoutStart, w.Policy.Watchdog = 0, 0
	p := playBeside(t, w)
	p.ready()
	p.say("w.0", Notified{Reloading: true})
	p.wait(1000 * time.Hour)
	p.wantNothing()
	p.say("w.0", Notified{Ready: true})
	p.wantWhy("w.0", "reloaded")
}

// Nothing of a reload is left for what comes after it.
func TestReloadEndsWithReady(t *testing.T) {
	for name, end := range map[string]func(p *player){
		"crash": func(p *player) { p.exit("w.0", status1) },
		"stop":  func(p *player) { p.send(StopRequested{"SIGTERM"}) },
		"stops": func(p *player) { p.say("w.0", Notified{Stopping: true}) },
		"stuck": func(p *player) { p.untilDue() },
		"left":  func(p *player) { p.send(Exited{Proc: p.slot("w.0").proc, Left: 1}) },
	} {
		p := playBeside(t, notifyWorker())
		p.ready()
		p.say("w.0", Notified{Reloading: true})
		end(p)
		if s := p.slot("w.0"); s.state == StateReady || s.reloading || s.beatDue != Never {
			t.Errorf("%s: state %s, reloading %t, a keep-alive is due at %d", name, s.state, s.reloading, s.beatDue)
		}
	}
}

func TestReloadingOnlyWhileReady(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.say("w.0", Notified{Reloading: true})
	p.wantNothing()
	p.ready()
	if p.slot("w.0").reloading {
		t.Error("a start became a reload")
	}
}

// TestExtend asks for more time in each state, 5 s after it was entered.
func TestExtendTimeout(t *testing.T) {
	simple, endless := notifyWorker(), notifyWorker()
	simple.Policy.Watchdog = 0
	endless.Policy.TimeoutStart, endless.Policy.TimeoutStop, endless.Policy.Watchdog = 0, 0, 0
	nothing := func(*player) {}
	ready := (*player).ready
	reloading := func(p *player) { p.ready(); p.say("w.0", Notified{Reloading: true}) }
	stopping := func(p *player) { p.ready(); p.say("w.0", Notified{Stopping: true}) }
	stopped := func(p *player) { p.ready(); p.send(StopRequested{"SIGTERM"}) }
	aborted := func(p *player) { p.ready(); p.say("w.0", Notified{Trigger: true}) }
	killing := func(p *player) { p.ready(); p.send(StopRequested{"SIGTERM"}, StopRequested{"SIGTERM"}) }
	for _, c := range []struct {
		name     string
		w        Worker
		state    func(*player)
		by, want time.Duration // of the deadline, from then
	}{
		{"starting", simple, nothing, 100 * sec, 100 * sec},
		{"starting, by little", simple, nothing, 10 * sec, 85 * sec},
		{"starting, by as much as is left", simple, nothing, 85 * sec, 85 * sec},
		{"starting, for good", simple, nothing, Forever, Forever},
		{"starting without a timeout", endless, nothing, 10 * sec, Forever},
		{"reloading", simple, reloading, 100 * sec, 100 * sec},
		{"reloading, by little", simple, reloading, 10 * sec, 85 * sec},
		{"stopping by itself", simple, stopping, 20 * sec, 20 * sec},
		{"stopping by itself, by little", simple, stopping, 1, 10 * sec},
		{"stopping", simple, stopped, 20 * sec, 20 * sec},
		{"stopping, by little", simple, stopped, sec, 10 * sec},
		{"stopping without a timeout", endless, stopped, 20 * sec, Forever},
		{"aborted", simple, aborted, 20 * sec, 20 * sec},
		{"killing", simple, killing, 20 * sec, 5 * sec},
		{"ready", simple, ready, 20 * sec, Forever},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := playBeside(t, c.w)
			c.state(p)
			p.wait(5 * sec)
			p.say("w.0", Notified{Extend: c.by})
			if got := p.left("w.0"); got != c.want {
				t.Errorf("%s are left, want %s", got, c.want)
			}
			if got := p.slot("w.0").beatDue; got != Never {
				t.Errorf("a keep-alive is due at %d", got)
			}
		})
	}
}

// As in systemd, more time is more time for the keep-alive as well; the next one
// counts as ever.
func TestExtendDelaysTheKeepAlive(t *testing.T) {
	for _, c := range []struct{ by, want time.Duration }{{60 * sec, 60 * sec}, {2 * sec, 3 * sec}} {
		p := playBeside(t, notifyWorker())
		p.ready()
		p.wait(2 * sec)
		p.say("w.0", Notified{Extend: c.by})
		if got := p.beatLeft("w.0"); got != c.want {
			t.Errorf("extended by %s: a keep-alive is due in %s, want %s", c.by, got, c.want)
		}
		p.say("w.0", Notified{Watchdog: true})
		if got := p.beatLeft("w.0"); got != 5*sec {
			t.Errorf("the next keep-alive is due in %s, want 5 s", got)
		}
	}
}

// What a process announces and what it asks for may come in one datagram: the
// time is for the state that is announced.
func TestExtendWithTheStateThatItIsFor(t *testing.T) {
	for _, n := range []Notified{{Stopping: true}, {Reloading: true}} {
		n.Extend = 500 * sec
		p := playBeside(t, notifyWorker())
		p.ready()
		p.say("w.0", n)
		if got := p.left("w.0"); got != 500*sec {
			t.Errorf("%+v: %s are left, want 500 s", n, got)
		}
	}
	p := playBeside(t, notifyWorker())
	p.say("w.0", Notified{Ready: true, Extend: 500 * sec})
	p.wantState("w.0", StateReady)
	if got := p.left("w.0"); got != Forever {
		t.Errorf("a slot that is ready has %s left", got)
	}
	p.say("w.0", Notified{Trigger: true, Extend: 500 * sec})
	if got := p.left("w.0"); got != 15*sec {
		t.Errorf("SIGKILL follows SIGABRT in %s, want 15 s", got)
	}
}

// A slot may take longer; the fleet says when it is ready all the same.
func TestExtendIsNotForTheFleet(t *testing.T) {
	w := notifyWorker()
	cfg := fleetOf(w)
	cfg.TimeoutStart = 60 * sec
	p := play(t, cfg)
	p.begin()
	p.say("w.0", Notified{Extend: 500 * sec})
	if got := p.untilDue(); got != 60*sec {
		t.Fatalf("the start of the fleet ends after %s, want 60 s", got)
	}
	p.want(Stopping{})
}

func TestExtendedStartStillEnds(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.wait(80 * sec)
	p.say("w.0", Notified{Extend: 20 * sec})
	if got := p.untilDue(); got != 20*sec {
		t.Fatalf("the start ends after %s more, want 20 s", got)
	}
	p.wantState("w.0", StateStopping)
	p.wantResult("w.0", Timeout)
}

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
	p.want(Kill{proc, SIGABRT, false})
	p.wantState("w.0", StateStopping)
	p.wantWhy("w.0", "no WATCHDOG=1 for 5s (watchdog_sec); sent SIGABRT, SIGKILL follows in 15s")
	p.say("w.0", Notified{Watchdog: true}) // too late
	p.wantNothing()
	if got := p.untilDue(); got != 15*sec {
		t.Fatalf("killed after %s, want 15 s", got)
	}
	p.want(Kill{proc, SIGKILL, true})
	p.exit("w.0", killed)
	p.wantResult("w.0", Watchdog)
	p.wantState("w.0", StateWaiting)
	p.wantStatus("w.0 restarts in 1.1s (watchdog, 1st in a row)")
	wantDelay(t, p.untilDue(), sec)
	p.wantState("w.0", StateStarting)
}

// However a stuck process ends, it was stuck.
func TestResultOfAStuckWorker(t *testing.T) {
	for _, ev := range []Exited{
		{Exit: status0},
		{Exit: Exit{Signal: SIGABRT, Core: true}},
		{Exit: killed, OOM: true},
		{Exit: status1, Left: 1},
	} {
		w := notifyWorker()
		w.Policy.Restart = RestartOnWatchdog
		p := playBeside(t, w)
		p.ready()
		p.untilDue()
		ev.Proc = p.slot("w.0").proc
		p.send(ev, Swept{ev.Proc})
		p.wantResult("w.0", Watchdog)
		p.wantState("w.0", StateWaiting)
	}
	w := notifyWorker()
	w.Policy.Restart = RestartOnAbort // SIGABRT came from here
	p := playBeside(t, w)
	p.ready()
	p.untilDue()
	p.exit("w.0", Exit{Signal: SIGABRT, Core: true})
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
	p.want(Kill{p.slot("w.0").proc, SIGABRT, false})
}

func TestNoWatchdog(t *testing.T) {
	for _, watchdog := range []time.Duration{0, Forever} {
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
	p.wantWhy("w.0", "no WATCHDOG=1 for 20s (watchdog_sec); sent SIGABRT, SIGKILL follows in 15s")
	p.say("w.0", Notified{Interval: sec})
	if got := p.slot("w.0").beatDue; got != Never {
		t.Error("a keep-alive is due from a process that was aborted")
	}

	p.exit("w.0", killed)
	p.untilDue()
	p.begin()
	p.ready()
	if got := p.beatLeft("w.0"); got != 5*sec {
		t.Errorf("after a restart: due in %s, want 5 s", got)
	}
	p.say("w.0", Notified{Interval: Forever})
	if got := p.f.Deadline(); got != Never {
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
	p.wantResult("w.0", Watchdog)
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
		p.want(Kill{p.slot("w.0").proc, SIGABRT, false})
		p.wantState("w.0", StateStopping)
		p.wantWhy("w.0", `sent WATCHDOG=trigger; its last status: "lost the lock"; sent SIGABRT, SIGKILL follows in 15s`)
		p.say("w.0", Notified{Trigger: true})
		p.wantNothing()
		p.exit("w.0", status0)
		p.wantResult("w.0", Watchdog)
		p.wantState("w.0", StateWaiting)
		t.Log(name)
	}
}

func TestStopsByItself(t *testing.T) {
	for _, c := range []struct {
		e      Exit
		result Result
		want   State
	}{
		{status0, Success, StateExited},
		{termed, Success, StateExited},
		{status1, ExitCode, StateWaiting},
		{Exit{Signal: 11}, Signalled, StateWaiting},
	} {
		p := playBeside(t, notifyWorker())
		p.ready()
		p.say("w.0", Notified{Stopping: true})
		none[Kill](p)
		p.wantState("w.0", StateStopping)
		p.wantStatus("1/2 ready")
		p.say("w.0", Notified{Stopping: true})
		p.wantNothing()
		p.wait(10 * sec)
		p.exit("w.0", c.e)
		p.wantResult("w.0", c.result)
		p.wantState("w.0", c.want)
	}
}

func TestStopsByItselfButDoesNotEnd(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.ready()
	p.say("w.0", Notified{Stopping: true})
	p.wantWhy("w.0", "stops by itself (STOPPING=1), SIGKILL follows in 15s")
	if got := p.untilDue(); got != 15*sec {
		t.Fatalf("killed after %s, want 15 s", got)
	}
	p.want(Kill{p.slot("w.0").proc, SIGKILL, true})
	p.exit("w.0", killed)
	p.wantResult("w.0", Timeout)
	p.wantState("w.0", StateWaiting)

	w := notifyWorker()
	w.Policy.TimeoutStop = 0
	p = playBeside(t, w)
	p.ready()
	p.say("w.0", Notified{Stopping: true})
	p.wantWhy("w.0", "stops by itself (STOPPING=1)")
	p.wait(1000 * time.Hour)
	p.wantNothing()
}

// A process that is on its way out is not asked again when the fleet stops, and
// gets no more time.
func TestFleetStopsWhileASlotStopsByItself(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.ready()
	p.say("w.0", Notified{Stopping: true})
	p.wait(5 * sec)
	p.send(StopRequested{"SIGTERM"})
	other := p.slot("other.0").proc
	p.want(Kill{other, SIGTERM, false}, Kill{other, SIGCONT, false})
	if got := len(all[Kill](p.got)); got != 2 {
		t.Errorf("%d signals, want 2", got)
	}
	if got := p.left("w.0"); got != 10*sec {
		t.Errorf("%s are left, want 10 s", got)
	}
}

func TestStoppingBeforeReadyIsOnlyWords(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.say("w.0", Notified{Stopping: true})
	p.wantState("w.0", StateStarting)
	p.exit("w.0", status0)
	p.wantResult("w.0", Protocol)
}

// What a process said last may be read after it has been reaped.
func TestLateWords(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.ready()
	old := p.slot("w.0").proc
	words := Notified{
		Proc: old, Ready: true, Trigger: true, Interval: sec, Extend: 1000 * sec,
		HasStatus: true, Status: "late", Errno: "EIO",
	}
	unheard := func(when string) {
		t.Helper()
		before := clone(p.f)
		p.send(words)
		if len(p.got) != 0 || !same(withTime(before, p.f), p.f) {
			t.Errorf("%s: late words changed the fleet:\n%s", when, transcribe(p.got))
		}
	}
	p.send(Exited{Proc: old, Exit: status1, Left: 1})
	unheard("swept")
	p.send(Swept{old})
	unheard("waiting")
	p.untilDue()
	unheard("starting")
	p.begin()
	unheard("running")
	p.ready()
	unheard("ready")
}

func TestLastWords(t *testing.T) {
	status := func(text string) Notified { return Notified{HasStatus: true, Status: text} }
	for _, c := range []struct {
		name string
		said []Notified
		e    Exit
		want string
	}{
		{"nothing", nil, status1, "exit-code: exited with status 1 after 0ms; starts again in 1.1s (1st failure in a row)"},
		{
			"a status",
			[]Notified{status("a"), status("b"), {Watchdog: true}},
			status1,
			`exit-code: exited with status 1 after 0ms; its last status: "b"; starts again in 1.1s (1st failure in a row)`,
		},
		{
			"an error",
			[]Notified{{Errno: "ENOENT"}},
			status1,
			`exit-code: exited with status 1 after 0ms; its error: ENOENT; starts again in 1.1s (1st failure in a row)`,
		},
		{
			"both",
			[]Notified{{HasStatus: true, Status: "no file", Errno: "ENOENT"}},
			status1,
			`exit-code: exited with status 1 after 0ms; its last status: "no file"; its error: ENOENT; starts again in 1.1s (1st failure in a row)`,
		},
		{
			"a status that was taken back",
			[]Notified{status("a"), status("")},
			status1,
			"exit-code: exited with status 1 after 0ms; starts again in 1.1s (1st failure in a row)",
		},
		{"a clean end", []Notified{status("bye")}, status0, `exited with status 0 after 0ms; finished (restart = "on-failure")`},
	} {
		p := playBeside(t, notifyWorker())
		p.ready()
		for _, n := range c.said {
			p.say("w.0", n)
		}
		p.exit("w.0", c.e)
		if got := p.slot("w.0").why; got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
	p := playBeside(t, notifyWorker())
	p.say("w.0", Notified{HasStatus: true, Status: "old", Errno: "EIO"})
	p.exit("w.0", status1)
	p.untilDue()
	p.begin()
	p.untilDue()
	p.wantWhy("w.0", "did not send READY=1 within 1min 30s (timeout_start_sec); sent SIGTERM, SIGKILL follows in 15s")
}
