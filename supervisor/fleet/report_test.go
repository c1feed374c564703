// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"go/ast"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/verb"
)

// line is what a report says to a program: all but its text.
type line struct {
	change string // of a slot's state ("ready -> waiting"); "" if it does not change
	level  Level
	kind   Kind
	end    End
}

func tellProgram(r Report) line {
	change, _, found := strings.Cut(r.Text, ":")
	if !found || !strings.Contains(change, " -> ") {
		change = ""
	}
	return line{change, r.Level, r.Kind, r.End}
}

// wantTold compares the reports of the last step. A delay may have up to a tenth
// of jitter.
func (p *player) wantTold(wanted ...line) {
	p.t.Helper()
	var got []line
	for i, r := range all[Report](p.got) {
		g := tellProgram(r)
		if i < len(wanted) {
			if want := wanted[i].end.Delay; g.end.Delay >= want && g.end.Delay <= want+want/10 {
				g.end.Delay = want
			}
		}
		got = append(got, g)
	}
	if !slices.Equal(got, wanted) {
		p.t.Fatalf("got  %+v\nwant %+v\nof\n%s", got, wanted, transcribe(p.got))
	}
}

// reportCase is a step in the life of slot w.0, and what is reported of it. The
// fleet has another slot, which is ready.
type reportCase struct {
	name string
	w    Worker
	to   []func(p *player) // the last one is the step
	want []line
}

func reportCases() []reportCase {
	exec, notify, demanded := execWorker("w", 1), notifyWorker(), onDemand(execWorker("w", 1))
	no, limited, sigkill := execWorker("w", 1), execWorker("w", 1), execWorker("w", 1)
	no.Policy.Restart, sigkill.Policy.KillSignal = RestartNo, SIGKILL
	limited.Policy.StartLimitBurst, limited.Policy.StartLimitPeriod = 1, time.Hour
	usage := Usage{MemoryPeak: 5 << 20, CPU: 3 * sec}

	ends := func(e Exited) func(p *player) {
		return send(func(p *player) Event {
			e.Proc, e.Usage = p.slot("w.0").proc, usage
			return e
		})
	}
	swept := send(func(p *player) Event { return Swept{p.slot("w.0").proc} })
	failed := send(func(p *player) Event { return SpawnFailed{p.slot("w.0").proc, "no memory"} })
	demand := send(func(*player) Event { return Demand{1} })
	stop := send(func(*player) Event { return StopRequested{"SIGTERM"} })
	byHand := func(v verb.Name) func(p *player) { return send(func(*player) Event { return operator(v) }) }
	begin, ready := (*player).begin, (*player).ready
	say := func(n Notified) func(p *player) { return func(p *player) { p.say("w.0", n) } }
	does := func(steps ...func(p *player)) []func(p *player) { return steps }
	otherStops := line{"ready -> stopping", Info, KindSlotStops, End{}}
	fleetStops := line{"", Notice, KindFleetStops, End{}}
	fleetReady := line{"", Notice, KindFleetReady, End{}}

	return []reportCase{
		{"told", notify, does(introduce, begin), []line{{"", Debug, "", End{}}}},
		{"runs", exec, does(runW), []line{{"starting -> ready", Info, KindSlotReady, End{}}, fleetReady}},
		{"says READY=1", notify, does(begin, ready), []line{{"starting -> ready", Info, KindSlotReady, End{}}, fleetReady}},
		{"reloads", notify, does(begin, ready, say(Notified{Reloading: true})), []line{{"", Info, "", End{}}}},
		{
			"has reloaded", notify, does(begin, ready, say(Notified{Reloading: true}), say(Notified{Ready: true})),
			[]line{{"", Info, "", End{}}},
		},
		{
			"reloads for too long", notify,
			does(begin, ready, say(Notified{Reloading: true, Interval: Forever}), due),
			[]line{{"", Warning, "", End{}}},
		},
		{"is due", exec, does(runW, crash, due), []line{{"waiting -> starting", Debug, "", End{}}}},
		{
			"finishes", exec, does(runW, ends(Exited{})),
			[]line{{"ready -> exited", Info, KindSlotExited, End{Success, status0, usage, 0, 0}}},
		},
		{
			"finishes before it is heard to run", exec, does(introduce, ends(Exited{})),
			[]line{{"starting -> exited", Info, KindSlotExited, End{Success, status0, usage, 0, 0}}, fleetReady},
		},
		{
			"crashes", exec, does(runW, ends(Exited{Exit: status1})),
			[]line{{"ready -> waiting", Warning, KindSlotRestarts, End{ExitCode, status1, usage, 1, sec}}},
		},
		{
			"crashes again at its start", exec, does(runW, crash, due, introduce, ends(Exited{Exit: status1})),
			[]line{{"starting -> waiting", Warning, KindSlotRestarts, End{ExitCode, status1, usage, 2, 2 * sec}}},
		},
		{
			"ends before READY=1", notify, does(begin, ends(Exited{})),
			[]line{{"starting -> waiting", Warning, KindSlotRestarts, End{Protocol, status0, usage, 1, sec}}},
		},
		{
			"fails", no, does(runW, ends(Exited{Exit: status1})),
			[]line{{"ready -> failed", Err, KindSlotFailed, End{ExitCode, status1, usage, 0, 0}}},
		},
		{
			"fails at its start", no, does(introduce, ends(Exited{Exit: status1})),
			[]line{{"starting -> failed", Err, KindSlotFailed, End{ExitCode, status1, usage, 0, 0}}, fleetReady},
		},
		{
			"gets no process", exec, does(failed),
			[]line{{"starting -> waiting", Warning, KindSlotRestarts, End{Resources, noExit, Usage{}, 1, sec}}},
		},
		{
			"gets no process and fails", no, does(failed),
			[]line{{"starting -> failed", Err, KindSlotFailed, End{Resources, noExit, Usage{}, 0, 0}}, fleetReady},
		},
		{
			"reaches its start limit", limited, does(runW, crash, due),
			[]line{{"waiting -> failed", Err, KindSlotFailed, End{StartLimitHit, noExit, Usage{}, 1, 0}}},
		},
		{
			"out of memory", exec, does(runW, ends(Exited{Exit: killed, OOM: true})),
			[]line{{"ready -> waiting", Warning, KindSlotOOMKilled, End{OOMKill, killed, usage, 1, sec}}},
		},
		{
			"out of memory, and fails", no, does(runW, ends(Exited{Exit: killed, OOM: true})),
			[]line{{"ready -> failed", Err, KindSlotOOMKilled, End{OOMKill, killed, usage, 0, 0}}},
		},
		{
			"does not start in time", exec, does(introduce, due),
			[]line{{"starting -> stopping", Info, KindSlotTimeout, End{Result: Timeout}}},
		},
		{
			"does not come to its gate", exec, does(due),
			[]line{{"starting -> killing", Warning, KindSlotTimeout, End{Result: Timeout}}},
		},
		{
			"does not start in time, and ends", exec, does(introduce, due, ends(Exited{})),
			[]line{{"stopping -> waiting", Warning, KindSlotRestarts, End{Timeout, status0, usage, 1, sec}}},
		},
		{
			"does not start in time, and fails", no, does(introduce, due, ends(Exited{})),
			[]line{{"stopping -> failed", Err, KindSlotFailed, End{Timeout, status0, usage, 0, 0}}, fleetReady},
		},
		{
			"does not start in time, nor end", exec, does(introduce, due, due),
			[]line{{"stopping -> killing", Warning, KindSlotTimeout, End{Result: Timeout}}},
		},
		{
			"does not end from SIGKILL", exec, does(introduce, due, due, due),
			[]line{{"", Err, KindSlotStuck, End{Result: Timeout}}},
		},
		{
			"cannot become the slot", exec, does(introduce, failed),
			[]line{{"starting -> killing", Warning, KindSlotStops, End{Result: Resources}}},
		},
		{
			"is killed at its gate, and restarts", exec, does(due, ends(Exited{Exit: killed})),
			[]line{{"killing -> waiting", Warning, KindSlotRestarts, End{Timeout, killed, usage, 1, sec}}},
		},
		{
			"is killed at its gate, and fails", no, does(due, ends(Exited{Exit: killed})),
			[]line{{"killing -> failed", Err, KindSlotFailed, End{Timeout, killed, usage, 0, 0}}, fleetReady},
		},
		{
			"is stuck", notify, does(begin, ready, due),
			[]line{{"ready -> stopping", Warning, KindSlotWatchdog, End{Result: Watchdog}}},
		},
		{
			"is stuck at its start", notify, does(begin, say(Notified{Trigger: true})),
			[]line{{"starting -> stopping", Warning, KindSlotWatchdog, End{Result: Watchdog}}},
		},
		{
			"is stuck and does not end", notify, does(begin, ready, due, due),
			[]line{{"stopping -> killing", Warning, KindSlotTimeout, End{Result: Watchdog}}},
		},
		{
			"was stuck", notify, does(begin, ready, due, due, ends(Exited{Exit: killed})),
			[]line{{"killing -> waiting", Warning, KindSlotRestarts, End{Watchdog, killed, usage, 1, sec}}},
		},
		{
			"stops by itself", notify, does(begin, ready, say(Notified{Stopping: true})),
			[]line{{"ready -> stopping", Info, KindSlotStops, End{}}},
		},
		{
			"has stopped by itself", notify, does(begin, ready, say(Notified{Stopping: true}), ends(Exited{})),
			[]line{{"stopping -> exited", Info, KindSlotExited, End{Success, status0, usage, 0, 0}}},
		},
		{
			"leaves processes", exec, does(runW, ends(Exited{Exit: status1, Left: 2})),
			[]line{{"ready -> stopping", Info, KindSlotLeft, End{}}},
		},
		{
			"leaves processes at its start", exec, does(introduce, ends(Exited{Left: 2})),
			[]line{{"starting -> stopping", Info, KindSlotLeft, End{}}},
		},
		{
			"leaves processes when it is stopped", exec, does(runW, byHand(verb.Stop), ends(Exited{Exit: termed, Left: 2})),
			[]line{{"", Info, KindSlotLeft, End{}}},
		},
		{
			"leaves processes when it is stopped by SIGKILL", sigkill, does(runW, byHand(verb.Stop), ends(Exited{Exit: killed, Left: 2})),
			[]line{{"killing -> stopping", Info, KindSlotLeft, End{}}},
		},
		{
			"leaves processes that do not end from SIGTERM", exec, does(runW, leave, due),
			[]line{{"stopping -> killing", Warning, KindSlotLeft, End{}}},
		},
		{
			"leaves processes that do not end", exec, does(runW, leave, due, due),
			[]line{{"", Err, KindSlotStuck, End{}}},
		},
		{
			"left processes", exec, does(runW, ends(Exited{Exit: status1, Left: 2}), swept),
			[]line{{"stopping -> waiting", Warning, KindSlotRestarts, End{ExitCode, status1, usage, 1, sec}}},
		},
		{
			"left processes that were killed", exec, does(runW, ends(Exited{Exit: status1, Left: 2}), due, swept),
			[]line{{"killing -> waiting", Warning, KindSlotRestarts, End{ExitCode, status1, usage, 1, sec}}},
		},
		{
			"left processes, and has finished", exec, does(runW, leave, swept),
			[]line{{"stopping -> exited", Info, KindSlotExited, End{Success, status0, Usage{}, 0, 0}}},
		},
		{
			"left processes that were killed, and has finished", exec, does(runW, leave, due, swept),
			[]line{{"killing -> exited", Info, KindSlotExited, End{Success, status0, Usage{}, 0, 0}}},
		},
		{
			"left processes when it was killed", exec, does(due, ends(Exited{Exit: killed, Left: 1})),
			[]line{{"", Warning, KindSlotLeft, End{Result: Timeout}}},
		},
		{
			"gets a demand", demanded, does(demand),
			[]line{{"listening -> waiting", Debug, "", End{}}, {"waiting -> starting", Debug, "", End{}}},
		},
		{
			"listens again", demanded, does(demand, runW, ends(Exited{}), due),
			[]line{{"waiting -> listening", Info, KindSlotListens, End{}}},
		},
		{
			"waits to listen", demanded, does(demand, runW, ends(Exited{})),
			[]line{{"ready -> waiting", Info, KindSlotRestarts, End{Success, status0, usage, 0, 100 * ms}}},
		},
		{
			"is stopped while it listens", demanded, does(stop),
			[]line{fleetStops, {"listening -> exited", Debug, "", End{}}, otherStops},
		},
		{
			"is stopped while it waits", exec, does(runW, crash, stop),
			[]line{fleetStops, {"waiting -> exited", Debug, "", End{}}, otherStops},
		},
		{
			"is stopped", exec, does(runW, stop),
			[]line{fleetStops, {"ready -> stopping", Info, KindSlotStops, End{}}, otherStops},
		},
		{
			"is stopped by SIGKILL", sigkill, does(runW, stop),
			[]line{fleetStops, {"ready -> killing", Warning, KindSlotStops, End{}}, otherStops},
		},
		{
			"is stopped at its start", exec, does(introduce, stop),
			[]line{fleetStops, {"starting -> stopping", Info, KindSlotStops, End{}}, otherStops},
		},
		{
			"is stopped at its gate", exec, does(stop),
			[]line{fleetStops, {"starting -> killing", Warning, KindSlotStops, End{}}, otherStops},
		},
		{
			"is stopped twice", exec, does(runW, stop, stop),
			[]line{
				{"", Warning, "", End{}},
				{"stopping -> killing", Warning, KindSlotStops, End{}},
				{"stopping -> killing", Warning, KindSlotStops, End{}},
			},
		},
		{
			"was stopped", exec, does(runW, stop, ends(Exited{Exit: termed})),
			[]line{{"stopping -> exited", Info, KindSlotExited, End{Success, termed, usage, 0, 0}}},
		},
		{
			"was stopped and is out of memory", exec, does(runW, stop, ends(Exited{Exit: killed, OOM: true})),
			[]line{{"stopping -> exited", Info, KindSlotOOMKilled, End{OOMKill, killed, usage, 0, 0}}},
		},
		{
			"was killed", sigkill, does(runW, stop, ends(Exited{Exit: killed})),
			[]line{{"killing -> exited", Info, KindSlotExited, End{Signalled, killed, usage, 0, 0}}},
		},
		{
			"has finished and is started by hand", exec, does(runW, ends(Exited{}), byHand(verb.Start)),
			[]line{{"exited -> waiting", Notice, "", End{}}},
		},
		{
			"has failed and is reset", no, does(runW, ends(Exited{Exit: status1}), byHand(verb.Reset)),
			[]line{{"failed -> waiting", Notice, "", End{}}},
		},
		{
			"cannot be killed", sigkill, does(runW, stop, func(p *player) { p.exit("other.0", termed) }, due),
			[]line{
				{"", Err, "", End{}},
				{"killing -> failed", Err, KindSlotFailed, End{Exit: noExit}},
				{"", Notice, "", End{}},
			},
		},
	}
}

// TestKindAndEndOfEachChange: a program that reads the log relies on them.
func TestKindAndEndOfEachChange(t *testing.T) {
	for _, c := range reportCases() {
		t.Run(c.name, func(t *testing.T) {
			p := play(t, fleetOf(c.w, execWorker("other", 1)))
			p.run("other.0")
			for _, step := range c.to {
				step(p)
			}
			p.wantTold(c.want...)
		})
	}
}

// Every change of a state that any event makes in any situation is in the table,
// as is each kind of report about a slot.
func TestEveryChangeIsInTheTable(t *testing.T) {
	changes, kinds := map[string]bool{}, map[Kind]bool{}
	for _, c := range reportCases() {
		for _, r := range c.want {
			changes[r.change], kinds[r.kind] = true, true
		}
	}
	for _, s := range situations() {
		base := s.make(t)
		proc := base.slot("w.0").proc
		for _, ev := range append(eventsAbout(proc), eventsAboutNone()...) {
			p := &player{t: t, f: clone(base.f), now: base.now}
			p.send(ev)
			acts := slices.Clone(p.got)
			p.wait(time.Minute)
			for _, r := range all[Report](append(acts, p.got...)) {
				if got := tellProgram(r); !changes[got.change] {
					t.Errorf("%s, %T%+v: %q is not in the table", s.name, ev, ev, got.change)
					changes[got.change] = true
				}
			}
		}
	}
	ofSlots := map[Kind]bool{}
	for _, kind := range kindsIn(t) {
		if strings.HasPrefix(string(kind), "slot-") {
			ofSlots[kind] = true
		}
	}
	maps.DeleteFunc(kinds, func(k Kind, _ bool) bool { return !strings.HasPrefix(string(k), "slot-") })
	if !maps.Equal(kinds, ofSlots) {
		t.Errorf("in the table: %v\naction.go has: %v", kinds, ofSlots)
	}
}

// kindsIn lists the constants of action.go that begin with Kind.
func kindsIn(t *testing.T) []Kind {
	t.Helper()
	var found []Kind
	ast.Inspect(parse(t, "action.go"), func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Kind") {
			found = append(found, Kind(strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`)))
		}
		return true
	})
	return found
}

// The kernel's word counts for a process that ended by SIGKILL and of which
// nothing else is known.
func TestOutOfMemory(t *testing.T) {
	ready := func(p *player) { p.ready() }
	stuck := func(p *player) { p.ready(); p.untilDue() }
	late := func(p *player) { p.untilDue() }
	stop := func(p *player) { p.ready(); p.send(StopRequested{"SIGTERM"}) }
	for _, c := range []struct {
		name  string
		state func(p *player)
		e     Exit
		oom   bool
		want  Result
	}{
		{"killed for memory", ready, killed, true, OOMKill},
		{"killed for memory before it was ready", func(*player) {}, killed, true, OOMKill},
		{"killed", ready, killed, false, Signalled},
		{"another process was killed for memory", ready, status1, true, ExitCode},
		{"the same, and it ended well", ready, status0, true, Success},
		{"the same, and it aborted", ready, Exit{Signal: SIGABRT, Core: true}, true, CoreDump},
		{"killed for memory after its watchdog", stuck, killed, true, Watchdog},
		{"killed for memory after its start timeout", late, killed, true, Timeout},
		{"killed for memory while it stops", stop, killed, true, OOMKill},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := playBeside(t, notifyWorker())
			c.state(p)
			p.send(Exited{Proc: p.slot("w.0").proc, Exit: c.e, OOM: c.oom})
			p.wantResult("w.0", c.want)
			about := p.slot("w.0").why
			if got := strings.Contains(about, "(out of memory)"); got != (c.want == OOMKill) {
				t.Errorf("reported as %q", about)
			}
		})
	}
	p := playBeside(t, notifyWorker())
	p.ready()
	p.send(Exited{Proc: p.slot("w.0").proc, Exit: killed, OOM: true})
	p.wantStatus("w.0 restarts in 1.1s (oom-kill, 1st in a row)")
	p.wantWhy("w.0", "oom-kill: killed by SIGKILL (out of memory) after 0ms; starts again in 1.1s (1st failure in a row)")
}

// What the last process used is told once, with its end.
func TestUsageIsOfTheLastProcess(t *testing.T) {
	p := playBeside(t, execWorker("w", 1))
	p.send(Exited{Proc: p.slot("w.0").proc, Exit: status1, Usage: Usage{1 << 20, sec}})
	p.untilDue()
	p.send(SpawnFailed{p.slot("w.0").proc, "no memory"})
	p.wantTold(line{"starting -> waiting", Warning, KindSlotRestarts, End{Resources, noExit, Usage{}, 2, 2 * sec}})
}

func TestKindsOfTheFleet(t *testing.T) {
	seen := map[Kind]bool{}
	wants := func(p *player, level Level, kind Kind) {
		t.Helper()
		for _, r := range all[Report](p.got) {
			if r.Kind == kind && r.Slot == "" && r.Level == level {
				seen[kind] = true
				return
			}
		}
		t.Errorf("no report of kind %s and level %d in\n%s", kind, level, transcribe(p.got))
	}
	cfg := fleetOf(entryWorker("w", 1), execWorker("x", 1))
	cfg.Spares = 1
	p := play(t, cfg)
	p.loaded()
	wants(p, Info, KindFloorLoaded)
	p.forked()
	p.run("w.0")
	p.untilDue() // of the fork for a spare: the floor is silent
	p.loseFloor()
	wants(p, Err, KindFloorLost)
	p.untilDue()
	p.loaded()
	p.run("x.0")
	wants(p, Notice, KindFleetReady)
	p.forked()
	p.send(Exited{Proc: p.f.pool.spares[0].proc, Exit: killed})
	wants(p, Warning, KindSpareFailed)
	p.loseFloor()
	p.wait(3 * sec) // it loads again
	p.frozen(time.Hour, Tick{})
	wants(p, Notice, KindOverslept)
	p.send(StopRequested{"SIGTERM"})
	wants(p, Notice, KindFleetStops)

	hang := execWorker("x", 1)
	hang.Policy.TimeoutStart = 0
	p = play(t, fleetOf(execWorker("w", 1), hang))
	p.run("w.0")
	p.untilDue()
	wants(p, Warning, KindFleetDegraded)
	p = play(t, fleetOf(entryWorker("w", 1)))
	p.loseFloor()
	wants(p, Err, KindFleetFails)

	for _, kind := range kindsIn(t) {
		if !strings.HasPrefix(string(kind), "slot-") && !seen[kind] {
			t.Errorf("%s is never reported here", kind)
		}
	}
}
