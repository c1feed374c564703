// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// say lets the process of a slot notify.
func (p *player) say(name string, n Notified) {
	p.t.Helper()
	p.send(n.about(p.slot(name).proc))
}

// notifyWorker is a worker of type=notify with a watchdog of 5 s.
func notifyWorker() policy.Worker {
	w := execWorker("w", 1)
	w.Policy.Notify, w.Policy.Watchdog = true, 5*sec
	return w
}

// playBeside plays a fleet of w and of another worker that keeps it going. Its
// slot w.0 is told and runs.
func playBeside(t *testing.T, w policy.Worker) *player {
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
	f.agenda.late = as.agenda.late
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
	p.wantResult("w.0", policy.Timeout)
}

func TestNoReadyInTime(t *testing.T) {
	p := playBeside(t, notifyWorker())
	if got := p.untilDue(); got != 90*sec {
		t.Fatalf("the start ends after %s, want 90 s", got)
	}
	p.want(Kill{p.slot("w.0").proc, policy.SIGTERM, false})
	p.wantWhy("w.0", "did not send READY=1 within 1min 30s (timeout_start_sec); sent SIGTERM")
	p.exit("w.0", status0)
	p.wantResult("w.0", policy.Timeout)
	p.wantState("w.0", StateWaiting)

	p = play(t, fleetOf(notifyWorker())) // this one does not even run
	p.send(Introduced{p.slot("w.0").proc, 7})
	p.untilDue()
	p.wantWhy("w.0", "did not start within 1min 30s (timeout_start_sec); sent SIGTERM")
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
	left := func(e policy.Exit) Exited { return Exited{Exit: e, Left: 1} }
	ended := func(e policy.Exit) Exited { return Exited{Exit: e} }
	for _, c := range []struct {
		name  string
		w     policy.Worker
		until func(*player)
		end   Exited
		want  policy.Result
		state State
	}{
		{"status 0", notifyWorker(), running, ended(status0), policy.Protocol, StateWaiting},
		{"status 0, leaving", notifyWorker(), running, left(status0), policy.Protocol, StateWaiting},
		{"SIGTERM", notifyWorker(), running, ended(termed), policy.Protocol, StateWaiting},
		{"a success of its own", success, running, ended(policy.Exit{Code: 7}), policy.Protocol, StateWaiting},
		{"told", notifyWorker(), introduced, ended(status0), policy.Protocol, StateWaiting},
		{"at its gate", notifyWorker(), func(*player) {}, ended(status0), policy.Protocol, StateWaiting},
		{"ready before it ran", notifyWorker(), said, ended(status0), policy.Success, StateExited},
		{"status 1", notifyWorker(), running, ended(status1), policy.ExitCode, StateWaiting},
		{"SIGKILL", notifyWorker(), running, ended(killed), policy.Signalled, StateWaiting},
		{"core", notifyWorker(), running, ended(policy.Exit{Signal: policy.SIGTERM, Core: true}), policy.CoreDump, StateWaiting},
		{"ready", notifyWorker(), func(p *player) { p.begin(); p.ready() }, ended(status0), policy.Success, StateExited},
		{"stopped", notifyWorker(), stopped, ended(status0), policy.Success, StateExited},
		{"simple", execWorker("w", 1), introduced, ended(status0), policy.Success, StateExited},
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

func TestStopsByItself(t *testing.T) {
	for _, c := range []struct {
		e      policy.Exit
		result policy.Result
		want   State
	}{
		{status0, policy.Success, StateExited},
		{termed, policy.Success, StateExited},
		{status1, policy.ExitCode, StateWaiting},
		{policy.Exit{Signal: 11}, policy.Signalled, StateWaiting},
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
	p.wantWhy("w.0", "stops by itself (STOPPING=1)")
	if got := p.untilDue(); got != 15*sec {
		t.Fatalf("killed after %s, want 15 s", got)
	}
	p.want(Kill{p.slot("w.0").proc, policy.SIGKILL, true})
	p.exit("w.0", killed)
	p.wantResult("w.0", policy.Timeout)
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
	p.want(Kill{other, policy.SIGTERM, false}, Kill{other, policy.SIGCONT, false})
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
	p.wantResult("w.0", policy.Protocol)
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
		e    policy.Exit
		want string
	}{
		{"nothing", nil, status1, "exit-code: exited with status 1 after 0ms; 1st failure in a row"},
		{
			"a status",
			[]Notified{status("a"), status("b"), {Watchdog: true}},
			status1,
			`exit-code: exited with status 1 after 0ms; its last status: "b"; 1st failure in a row`,
		},
		{
			"an error",
			[]Notified{{Errno: "ENOENT"}},
			status1,
			`exit-code: exited with status 1 after 0ms; its error: ENOENT; 1st failure in a row`,
		},
		{
			"both",
			[]Notified{{HasStatus: true, Status: "no file", Errno: "ENOENT"}},
			status1,
			`exit-code: exited with status 1 after 0ms; its last status: "no file"; its error: ENOENT; 1st failure in a row`,
		},
		{
			"a status that was taken back",
			[]Notified{status("a"), status("")},
			status1,
			"exit-code: exited with status 1 after 0ms; 1st failure in a row",
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
	p.wantWhy("w.0", "did not send READY=1 within 1min 30s (timeout_start_sec); sent SIGTERM")
}
