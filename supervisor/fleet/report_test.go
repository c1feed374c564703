// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"go/ast"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
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
	for _, file := range []string{"action.go"} {
		ast.Inspect(parse(t, file), func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Kind") {
				found = append(found, Kind(strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`)))
			}
			return true
		})
	}
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
		e     policy.Exit
		oom   bool
		want  policy.Result
	}{
		{"killed for memory", ready, killed, true, policy.OOMKill},
		{"killed for memory before it was ready", func(*player) {}, killed, true, policy.OOMKill},
		{"killed", ready, killed, false, policy.Signalled},
		{"another process was killed for memory", ready, status1, true, policy.ExitCode},
		{"the same, and it ended well", ready, status0, true, policy.Success},
		{"the same, and it aborted", ready, policy.Exit{Signal: policy.SIGABRT, Core: true}, true, policy.CoreDump},
		{"killed for memory after its watchdog", stuck, killed, true, policy.Watchdog},
		{"killed for memory after its start timeout", late, killed, true, policy.Timeout},
		{"killed for memory while it stops", stop, killed, true, policy.OOMKill},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := playBeside(t, notifyWorker())
			c.state(p)
			p.send(Exited{Proc: p.slot("w.0").proc, Exit: c.e, OOM: c.oom})
			p.wantResult("w.0", c.want)
			about := p.slot("w.0").why
			if got := strings.Contains(about, "(out of memory)"); got != (c.want == policy.OOMKill) {
				t.Errorf("reported as %q", about)
			}
		})
	}
	p := playBeside(t, notifyWorker())
	p.ready()
	p.send(Exited{Proc: p.slot("w.0").proc, Exit: killed, OOM: true})
	p.wantStatus("w.0 restarts in 1.1s (oom-kill, 1st in a row)")
	p.wantWhy("w.0", "oom-kill: killed by SIGKILL (out of memory) after 0ms; 1st failure in a row")
}

// What the last process used is told once, with its end.
func TestUsageIsOfTheLastProcess(t *testing.T) {
	p := playBeside(t, execWorker("w", 1))
	p.send(Exited{Proc: p.slot("w.0").proc, Exit: status1, Usage: Usage{1 << 20, sec}})
	p.untilDue()
	p.send(SpawnFailed{p.slot("w.0").proc, "no memory"})
	p.wantTold(line{"starting -> waiting", Warning, KindSlotRestarts, End{policy.Resources, policy.NoExit, Usage{}, 2, 2 * sec}})
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
	p.send(Exited{Proc: p.f.floor.pool.spares[0].proc, Exit: killed})
	wants(p, Warning, KindSpareFailed)
	p.loseFloor()
	p.wait(3 * sec) // it loads again
	p.frozen(time.Hour, Tick{})
	wants(p, Notice, KindOverslept)
	p.send(StopRequested{"SIGTERM"})
	wants(p, Notice, KindFleetStops)

	drains := fleetOf(execWorker("w", 1))
	drains.StopDelay = 5 * sec
	p = play(t, drains)
	p.run("w.0")
	p.send(StopRequested{"SIGTERM"})
	wants(p, Notice, KindFleetDrains)

	hang := execWorker("x", 1)
	hang.Policy.TimeoutStart = 0
	p = play(t, fleetOf(execWorker("w", 1), hang))
	p.run("w.0")
	p.untilDue()
	wants(p, Warning, KindFleetDegraded)
	p = play(t, fleetOf(entryWorker("w", 1)))
	p.loseFloor()
	wants(p, Err, KindFleetFails)

	p = play(t, fleetOf(execWorker("w", 1)))
	p.run("w.0")
	p.send(Propose{ID: 1, Kind: ChangeRestart, Revision: 2, Who: "uid 0"})
	wants(p, Notice, KindChangeBegins)
	p.send(Cancel{2, "uid 0"})
	wants(p, Notice, KindChangeFailed)
	p.send(Propose{ID: 3, Kind: ChangeReload, Revision: 3, Config: &p.f.cfg, Who: "uid 0"})
	wants(p, Notice, KindChangeDone)

	server := execWorker("w", 1)
	server.Sockets, server.Policy.Restart = []string{"http"}, policy.RestartNo
	p = play(t, fleetOf(server, execWorker("x", 1)))
	p.run("w.0")
	p.run("x.0")
	p.exit("w.0", status0)
	wants(p, Warning, KindSocketUnserved)

	for _, kind := range kindsIn(t) {
		ofTasks := strings.HasPrefix(string(kind), "task-") || kind == KindLoopBlocked
		if !strings.HasPrefix(string(kind), "slot-") && !ofTasks && !seen[kind] {
			t.Errorf("%s is never reported here", kind)
		}
	}
}
