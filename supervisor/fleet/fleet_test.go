// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

func TestReadyWhen(t *testing.T) {
	fail := func(p *player, name string) { p.exit(name, policy.Exit{Code: 9}) }
	finish := func(p *player, name string) { p.exit(name, status0) }
	run := (*player).run
	type step struct {
		do    func(*player, string)
		name  string
		ready bool
	}
	for _, c := range []struct {
		name  string
		when  policy.ReadyWhen
		steps []step
	}{
		{"all", policy.ReadyWhen{}, []step{{run, "w.0", false}, {run, "w.1", false}, {run, "w.2", true}}},
		{"all, one finished", policy.ReadyWhen{}, []step{{finish, "w.0", false}, {run, "w.1", false}, {run, "w.2", true}}},
		{"all, one failed", policy.ReadyWhen{}, []step{{run, "w.1", false}, {run, "w.2", false}, {fail, "w.0", true}}},
		{"two", policy.ReadyWhen{N: 2}, []step{{run, "w.2", false}, {run, "w.0", true}}},
		{"two, one finished", policy.ReadyWhen{N: 2}, []step{{run, "w.2", false}, {finish, "w.0", true}}},
		{"two, two failed", policy.ReadyWhen{N: 2}, []step{{fail, "w.0", false}, {fail, "w.2", false}, {run, "w.1", true}}},
		{"more than there are", policy.ReadyWhen{N: 9}, []step{{run, "w.0", false}, {run, "w.1", false}, {run, "w.2", true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := execWorker("w", 3)
			w.Policy.RestartPrevent.Codes = []int{9}
			cfg := fleetOf(w)
			cfg.ReadyWhen = c.when
			p := play(t, cfg)
			for i, s := range c.steps {
				s.do(p, s.name)
				if got := len(all[Ready](p.got)); got != boolInt(s.ready) {
					t.Fatalf("step %d: %d times ready, want %t", i+1, got, s.ready)
				}
			}
			p.wait(time.Hour)
			none[Ready](p)
		})
	}
}

func TestReadyWhenFloor(t *testing.T) {
	cfg := fleetOf(entryWorker("w", 1))
	cfg.ReadyWhen.Floor = true
	p := play(t, cfg)
	none[Ready](p)
	p.loaded()
	p.want(Ready{})

	cfg = fleetOf(execWorker("w", 1)) // has no floor
	cfg.ReadyWhen.Floor = true
	p = play(t, cfg)
	p.want(Ready{})
}

func TestDegradedStart(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 2), entryWorker("e", 1)))
	p.run("w.0")
	p.send(Introduced{p.slot("w.1").proc, 5})
	p.slot("w.1").deadline = policy.Never
	p.f.promise(p.now)
	if got := p.untilDue(); got != 300*sec {
		t.Fatalf("the start ends after %s", got)
	}
	p.want(Ready{})
	none[Stopping](p)
	p.wantStatus("1/3 ready; floor: starting the interpreter")
	p.run("w.1")
	none[Ready](p)
	if got := p.untilDue(); got != 300*sec {
		t.Fatalf("the floor may load for %s more, want 5 min", got)
	}
	p.want(Kill{p.f.floor.proc, policy.SIGKILL, false})
	p.send(Exited{Proc: p.f.floor.proc, Exit: killed})
	p.wantStatus("floor is lost (starting the interpreter did not finish within 5min (timeout_start_sec)) and loads again in 1s")
}

// A fleet that is ready without its floor still limits how long that loads.
func TestReadyBeforeTheFloor(t *testing.T) {
	cfg := fleetOf(execWorker("w", 1), entryWorker("e", 1))
	cfg.ReadyWhen.N = 1
	p := play(t, cfg)
	p.wait(10 * sec)
	p.run("w.0")
	p.want(Ready{})
	if got := p.untilDue(); got != 300*sec {
		t.Fatalf("the floor may load for %s, want 5 min", got)
	}
	p.want(Kill{p.f.floor.proc, policy.SIGKILL, false})
}

func TestNothingReadyAtStartTimeout(t *testing.T) {
	crash := execWorker("w", 1)
	crash.Policy.RestartSec, crash.Policy.RestartMaxDelay = time.Hour, time.Hour
	hang := execWorker("w", 1)
	hang.Policy.TimeoutStart = policy.Forever
	entry := entryWorker("w", 1)
	entry.Policy.TimeoutStart = policy.Forever
	for _, c := range []struct {
		name string
		w    policy.Worker
		do   func(p *player)
		why  string
		quit bool // at once: there is no process left
	}{
		{
			"in backoff", crash, func(p *player) { p.exit("w.0", status1) },
			"no slot was ready within 5min (timeout_start_sec); w.0: exit-code: exited with status 1; 1st failure in a row", true,
		},
		{"hangs", hang, func(*player) {}, "no slot was ready within 5min (timeout_start_sec)", false},
		{
			"floor loads", entryWorker("w", 1), func(p *player) { p.send(FloorProgress{p.f.floor.proc, "importing numpy (1 of 3)"}) },
			"floor: importing numpy (1 of 3) did not finish within 5min (timeout_start_sec)", false,
		},
		{"floor ends", entry, func(p *player) {
			p.loaded()
			p.forked()
			p.wait(299 * sec)
			p.send(FloorBroken{p.f.floor.proc, "gone mad"})
		}, "no slot was ready within 5min (timeout_start_sec); floor: gone mad", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := play(t, fleetOf(c.w))
			c.do(p)
			for p.f.phase == starting {
				p.now = p.f.Deadline()
				p.send(Tick{})
			}
			none[Ready](p)
			p.want(Stopping{})
			if !strings.HasPrefix(p.f.stopping.why, c.why) {
				t.Errorf("got %q, want %q", p.f.stopping.why, c.why)
			}
			if p.f.Ended() != c.quit {
				t.Errorf("ended: %t, want %t", p.f.Ended(), c.quit)
			}
			p.wait(time.Hour)
			if !p.f.Ended() {
				t.Error("the fleet does not end")
			}
		})
	}
}

func TestEndOfTheFleet(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 2)))
	p.up()
	p.exit("w.0", status0)
	none[Stopping](p)
	p.exit("w.1", status0)
	p.wantQuit(0)

	w := execWorker("w", 2)
	w.Policy.Restart = policy.RestartNo
	p = play(t, fleetOf(w))
	p.exit("w.0", status0)
	p.exit("w.1", status1)
	none[Ready](p)
	p.wantQuit(1)
	p.wantStatus("failed: nothing is left to run: 1 slot failed")
}

// READY=1 comes before every exit 0, also when nothing was ever ready.
func TestReadyBeforeQuit(t *testing.T) {
	cfg := fleetOf(execWorker("w", 1))
	cfg.ReadyWhen.N = 1
	p := play(t, cfg)
	p.send(StopRequested{"SIGTERM"})
	p.want(Ready{}, Stopping{})
	p.exit("w.0", killed)
	p.wantQuit(0)

	for _, cfg := range []policy.Config{{}, fleetOf(), fleetOf(execWorker("w", 0)), fleetOf(entryWorker("w", 0))} {
		p = play(t, cfg)
		p.want(Ready{}, Stopping{}, Quit{Code: 0, Why: "nothing is left to run: every slot has finished"})
		none[LoadFloor](p)
	}
}

// A fleet whose slots have all finished ends its floor and spares before it quits.
func TestEndWithFloorAndSpares(t *testing.T) {
	cfg := fleetOf(entryWorker("w", 1))
	cfg.Spares = 1
	p := play(t, cfg)
	p.up()
	floor, spare := p.f.floor.proc, p.f.floor.pool.spares[0].proc
	p.exit("w.0", status0)
	p.want(Stopping{}, Kill{spare, policy.SIGKILL, true}, StopFloor{floor})
	p.wantStatus("stopping: 2 processes left")
	p.send(Exited{Proc: spare, Exit: killed})
	p.send(Exited{Proc: floor})
	p.wantQuit(0)
}

func TestNothingAfterQuit(t *testing.T) {
	cfg := fleetOf()
	cfg.PingEvery, cfg.Extend = sec, true
	p := play(t, cfg)
	p.wantQuit(0)
	if got := p.f.Deadline(); got != policy.Never {
		t.Errorf("deadline %d, want never", got)
	}
	p.now = p.now.Add(time.Hour)
	p.send(Tick{}, StopRequested{"SIGTERM"})
	if len(p.got) != 0 {
		t.Errorf("got:\n%s", transcribe(p.got))
	}
}

func TestStopAfter(t *testing.T) {
	cfg := fleetOf(execWorker("w", 1))
	cfg.StopAfter = 5 * sec
	p := play(t, cfg)
	p.run("w.0")
	if got := p.untilDue(); got != 5*sec {
		t.Fatalf("stops after %s", got)
	}
	p.want(Stopping{}, Kill{p.slot("w.0").proc, policy.SIGTERM, false})
	p.exit("w.0", termed)
	p.wantQuit(0)
}

// Who runs a fleet for a while wants to know whether it can be run.
func TestStopAfterOfAFleetThatWasNeverReadyFails(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.Notify = true
	cfg := fleetOf(w)
	cfg.StopAfter = 5 * sec
	p := play(t, cfg)
	p.begin()
	p.exit("w.0", policy.Exit{Code: 203})
	p.wait(5*sec - 1)
	p.begin()
	p.wait(1)
	if want := "time is up (--stop-after), and no slot was ready; w.0: "; !strings.HasPrefix(p.f.stopping.why, want) {
		t.Errorf("got %q, want %q", p.f.stopping.why, want)
	}
	p.exit("w.0", termed)
	p.wantQuit(1)
}

func TestPing(t *testing.T) {
	cfg := fleetOf(execWorker("w", 1))
	cfg.PingEvery = 5 * sec
	p := play(t, cfg)
	p.want(Ping{})
	p.run("w.0")
	p.wait(5*sec - 1)
	none[Ping](p)
	p.wait(1)
	p.want(Ping{})
	p.wait(60 * sec)
	if got := len(all[Ping](p.got)); got != 12 {
		t.Errorf("%d pings in a minute, want 12", got)
	}
	p.send(StopRequested{"SIGTERM"})
	p.wait(5 * sec)
	p.want(Ping{})
}

// Extend is sent while the fleet starts and while it stops, not in between.
func TestExtend(t *testing.T) {
	w := execWorker("w", 1)
	w.Policy.TimeoutStop = policy.Forever
	cfg := fleetOf(w)
	cfg.Extend = true
	p := play(t, cfg)
	p.want(Extend{extendBy})
	p.wait(35 * sec)
	if got := len(all[Extend](p.got)); got != 3 {
		t.Errorf("%d extensions in 35 s of starting, want 3", got)
	}
	p.run("w.0")
	p.wait(time.Hour)
	none[Extend](p)
	p.send(StopRequested{"SIGTERM"})
	p.want(Extend{extendBy})
	p.wait(35 * sec)
	if got := len(all[Extend](p.got)); got != 3 {
		t.Errorf("%d extensions in 35 s of stopping, want 3", got)
	}
}

func TestStatusNamesTheWorst(t *testing.T) {
	no := execWorker("no", 1)
	no.Policy.Restart = policy.RestartNo
	p := play(t, fleetOf(execWorker("w", 3), no))
	p.up()
	p.wantStatus("4/4 ready")
	p.exit("w.0", status1)
	p.wantStatus("3/4 ready; w.0 restarts in 1.1s (exit-code 1, 1st in a row)")
	p.exit("w.1", policy.Exit{Signal: 11})
	p.wantStatus("2/4 ready; w.0 restarts in 1.1s (exit-code 1, 1st in a row); 1 more in trouble")
	p.wait(2 * sec)
	p.wantStatus("2/4 ready; w.0 starting (attempt 2); 1 more in trouble")
	p.exit("w.1", policy.Exit{Signal: 11})
	p.wantStatus("2/4 ready; w.1 restarts in 2")
	p.wantStatus("(signal SIGSEGV, 2nd in a row); 1 more in trouble")
	p.send(Exited{Proc: p.slot("w.2").proc, Exit: status0, Left: 1})
	p.wantStatus("1/4 ready; w.2 stopping (")
	p.exit("no.0", status1)
	p.wantStatus("0/4 ready; no.0 failed (exit-code 1); 3 more in trouble")
	p.send(Swept{p.slot("w.2").proc})
	p.wantStatus("0/4 ready; 1 finished; no.0 failed")
}

// Events about processes that the fleet does not hold change nothing.
func TestUnknownProcessesChangeNothing(t *testing.T) {
	cfg := fleetOf(execWorker("w", 2), entryWorker("e", 2))
	cfg.Spares = 1
	p := play(t, cfg)
	p.up()
	before := clone(p.f)
	for _, proc := range []Proc{0, p.f.last.proc + 1, 1 << 60} {
		for _, ev := range eventsAbout(proc) {
			p.send(ev)
			if len(p.got) != 0 || !same(before, p.f) {
				t.Errorf("%T about process %d changed the fleet:\n%s", ev, proc, transcribe(p.got))
			}
		}
	}
}
