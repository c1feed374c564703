// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

// eventsAbout holds every event that names a process. An event type that is
// missing here fails TestEveryEventIsListed.
func eventsAbout(p Proc) []Event {
	return []Event{
		FloorProgress{p, "importing"},
		FloorLoaded{Proc: p},
		FloorBroken{p, "broken"},
		Introduced{p, 4711},
		SpawnFailed{p, "no memory"},
		Unfit{p, "is stopped"},
		Running{p},
		CannotBecome{p, "no such file"},
		Exited{Proc: p},
		Exited{Proc: p, Exit: policy.Exit{Code: 1}},
		Exited{Proc: p, Exit: policy.Exit{Signal: policy.SIGKILL}, Left: 1},
		Swept{p},
		Exited{Proc: p, Exit: policy.Exit{Signal: policy.SIGKILL}, OOM: true, Usage: Usage{1 << 20, sec}},
		Notified{Proc: p, Ready: true, HasStatus: true, Status: "well", Cause: "ValueError: no"},
		Notified{Proc: p, Reloading: true},
		Notified{Proc: p, Stopping: true, Errno: "ENOENT"},
		Notified{Proc: p, Watchdog: true, Interval: sec},
		Notified{Proc: p, Trigger: true},
		Notified{Proc: p, Extend: 1000 * sec},
		FreezeFailed{p, "no such file"},
		StacksTaken{p},
		Measured{Proc: p, Private: 1 << 30},
		Measured{Proc: p, Why: "not permitted"},
		Notified{Proc: p, Recycle: policy.RecycleAsked},
		TaskSaid{Proc: p, Task: "t", State: StateWaiting, Result: policy.ExitCode, Failures: 1, Next: policy.Instant(2000 * sec)},
		TaskSaid{Proc: p, Task: "none", State: StateFailed},
		TaskFault{Proc: p, Task: "t", Blocks: true, Code: Code{"a.py", 1, "f"}},
	}
}

func eventsAboutNone() []Event {
	var all []Event
	for _, name := range append([]verb.Name{"unknown"}, verb.All...) {
		c := verb.Call{Name: name, Signal: int(policy.SIGHUP)}
		all = append(all, Operate{1, "w.0", c, "uid 0"}, Operate{2, "", c, "uid 0"}, Operate{3, "w.99", c, "uid 0"})
		c.Task = "t"
		all = append(all, Operate{13, "w.0", c, "uid 0"})
	}
	all = append(all, Propose{ID: 4, Kind: ChangeRestart, Revision: 9, Who: "uid 0"}, Propose{ID: 5, Kind: ChangeRestart, Revision: 9, Fresh: true},
		Propose{ID: 6, Kind: ChangeRestart, Revision: 9, Slots: []string{"w.0"}}, Propose{ID: 7, Kind: ChangeRestart, Revision: 9, Slots: []string{"w.99"}},
		Propose{ID: 9, Kind: ChangeTrial, Revision: 9, Fresh: true}, Propose{ID: 10, Kind: ChangeScale, Revision: 9, Scale: &policy.Scale{Worker: "w", Count: 3}},
		Propose{ID: 11, Kind: ChangeScale, Revision: 9, Scale: &policy.Scale{Worker: "w", Count: 0}}, Propose{ID: 12, Kind: ChangeReload, Revision: 9, Dry: true, Config: &policy.Config{}},
		Propose{ID: 8, Kind: ChangeReload, Revision: 9, Reloads: true, Config: &policy.Config{TimeoutStart: sec, Workers: []policy.Worker{execWorker("w", 2), entryWorker("n", 1)}}},
		Cancel{ID: 9, Who: "uid 0"})
	return append(all, Tick{}, StopRequested{"SIGTERM"}, Demand{0}, Demand{1}, Demand{2}, Demand{3}, NoDemand{1}, NoDemand{2}, Saturated{}, Saturated{[]Saturation{{"http", 1, true}}}, TaskOrdered{13, "no"}, Inspect{}, Examine{12, 1, "uid 0"}, Examine{13, 99, "uid 0"})
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// implementers lists the types of a file that have this method.
func implementers(t *testing.T, file, method string) []string {
	t.Helper()
	var found []string
	for _, d := range parse(t, file).Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil && fn.Name.Name == method {
			found = append(found, fn.Recv.List[0].Type.(*ast.Ident).Name)
		}
	}
	slices.Sort(found)
	return found
}

// statesIn lists the constants of slot.go that begin with State.
func statesIn(t *testing.T) []string {
	t.Helper()
	var found []string
	ast.Inspect(parse(t, "slot.go"), func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "State") {
			found = append(found, v.Names[0].Name)
		}
		return true
	})
	return found
}

func TestEveryEventIsListed(t *testing.T) {
	listed := map[string]bool{}
	for _, ev := range append(eventsAbout(1), eventsAboutNone()...) {
		listed[strings.TrimPrefix(fmt.Sprintf("%T", ev), "fleet.")] = true
	}
	got, want := slices.Sorted(maps.Keys(listed)), implementers(t, "event.go", "event")
	if !slices.Equal(got, want) {
		t.Errorf("tried against every state: %v\nevent.go has: %v", got, want)
	}
}

// Every action has a line in the transcripts.
func TestEveryActionIsTold(t *testing.T) {
	var told []string
	ast.Inspect(parse(t, "transcribe_test.go"), func(n ast.Node) bool {
		if c, ok := n.(*ast.CaseClause); ok && len(c.List) == 1 {
			if id, ok := c.List[0].(*ast.Ident); ok {
				told = append(told, id.Name)
			}
		}
		return true
	})
	slices.Sort(told)
	if want := implementers(t, "action.go", "action"); !slices.Equal(told, want) {
		t.Errorf("told: %v\naction.go has: %v", told, want)
	}
}

func TestEveryStateHasAName(t *testing.T) {
	for i, constant := range statesIn(t) {
		if got := "state" + State(i).String(); got != strings.ToLower(constant) {
			t.Errorf("%s is called %q", constant, State(i))
		}
	}
}

// situation is a fleet that was driven somewhere by events. Its slot w.0 is in
// state, which is what the name begins with.
type situation struct {
	name string
	make func(t testing.TB) *player
}

// situations holds at least one way into each state of a slot, each state of a
// floor, and each phase of a fleet.
func situations() []situation {
	var all []situation
	all = append(all, execSituations()...)
	all = append(all, entrySituations()...)
	all = append(all, notifySituations()...)
	all = append(all, demandSituations()...)
	all = append(all, changeSituations()...)
	for _, s := range slices.Clone(all) {
		all = append(all, situation{s.name + ", fleet stops", func(t testing.TB) *player {
			p := s.make(t)
			p.send(StopRequested{"SIGTERM"})
			return p
		}})
	}
	return all
}

func drive(cfg policy.Config, steps ...func(p *player)) func(t testing.TB) *player {
	return func(t testing.TB) *player {
		p := play(t, cfg)
		p.run("other.0")
		for _, step := range steps {
			step(p)
		}
		return p
	}
}

var (
	up        = (*player).up
	runW      = func(p *player) { p.run("w.0") }
	due       = func(p *player) { p.untilDue() }
	writes    = func(p *player) { p.writes = true }
	crash     = func(p *player) { p.exit("w.0", status1) }
	finish    = func(p *player) { p.exit("w.0", status0) }
	leave     = send(func(p *player) Event { return Exited{Proc: p.slot("w.0").proc, Left: 1} })
	introduce = send(func(p *player) Event { return Introduced{p.slot("w.0").proc, 7} })
	freeze    = send(func(*player) Event { return operator(verb.Freeze) })
	spareDies = send(func(p *player) Event { return Exited{Proc: p.f.floor.pool.spares[0].proc} })
	lose      = (*player).loseFloor
	loaded    = (*player).loaded
)

func execSituations() []situation {
	cfg := fleetOf(execWorker("w", 1), execWorker("other", 1))
	gives := fleetOf(execWorker("w", 1), execWorker("other", 1))
	gives.Workers[0].Policy.RestartPrevent.Codes = []int{1}
	sigkill := fleetOf(execWorker("w", 1), execWorker("other", 1))
	sigkill.Workers[0].Policy.KillSignal = policy.SIGKILL
	stopW := send(func(*player) Event { return operator(verb.Stop) })
	return []situation{
		{"waiting after a crash", drive(cfg, up, crash)},
		{"starting, shim asked for", drive(cfg)},
		{"starting, told", drive(cfg, introduce)},
		{"ready exec", drive(cfg, runW)},
		{"stopping after a start timeout", drive(cfg, introduce, due)},
		{"killing at the gate", drive(cfg, due)},
		{"stopping, its stacks are taken", drive(cfg, introduce, due, writes, due)},
		{"killing after a stop timeout", drive(cfg, introduce, due, due)},
		{"stopping what it left behind", drive(cfg, runW, leave)},
		{"stopping what it left behind in a stop", drive(cfg, introduce, due, leave)},
		{"killing what it left behind", drive(cfg, runW, leave, due)},
		{"killing what it left behind in vain", drive(cfg, runW, leave, due, due)},
		{"killing by kill_signal", drive(sigkill, runW, stopW)},
		{"stopping what it left behind, killed by kill_signal", drive(sigkill, runW, stopW, leave)},
		{"starting, frozen", drive(cfg, introduce, freeze)},
		{"ready, frozen", drive(cfg, runW, freeze)},
		{"killing in vain", drive(cfg, introduce, due, due, due)},
		{"exited", drive(cfg, runW, finish)},
		{"failed", drive(gives, runW, crash)},
	}
}

func entrySituations() []situation {
	cfg := fleetOf(entryWorker("w", 1), execWorker("other", 1))
	cfg.Spares = 1
	broken := send(func(p *player) Event { return FloorBroken{p.f.floor.proc, "mad"} })
	left := send(func(p *player) Event { return Exited{Proc: p.f.floor.proc, Left: 1} })
	return []situation{
		{"waiting for the first floor", drive(cfg)},
		{"waiting for the next floor", drive(cfg, up, lose, spareDies, due, crash, due)},
		{"starting, queued", drive(cfg, loaded)},
		{"starting, queued, floor is lost", drive(cfg, loaded, lose)},
		{"starting, queued, floor is silent", drive(cfg, loaded, due)},
		{"starting, told", drive(cfg, loaded, (*player).forked)},
		{"ready with a spare", drive(cfg, up)},
		{"ready, spare asked for", drive(cfg, loaded, (*player).forked, runW)},
		{"ready, floor is lost", drive(cfg, up, lose)},
		{"ready, floor loads again", drive(cfg, up, lose, due)},
		{"ready, floor is killed", drive(cfg, up, broken)},
		{"ready, floor is killed in vain", drive(cfg, up, broken, due)},
		{"ready, floor left something", drive(cfg, up, left)},
		{"ready, what the floor left is killed", drive(cfg, up, left, due)},
	}
}

func notifySituations() []situation {
	cfg := fleetOf(execWorker("w", 1), execWorker("other", 1))
	cfg.Workers[0].Policy.Notify, cfg.Workers[0].Policy.Watchdog = true, 5*sec
	running := send(func(p *player) Event { return Running{p.slot("w.0").proc} })
	say := func(n Notified) func(p *player) {
		return send(func(p *player) Event {
			n.Proc = p.slot("w.0").proc
			return n
		})
	}
	ready := say(Notified{Ready: true})
	return []situation{
		{"ready with a watchdog, frozen", drive(cfg, introduce, running, ready, freeze)},
		{"starting, runs", drive(cfg, introduce, running)},
		{"starting, was ready before it ran", drive(cfg, introduce, ready)},
		{"ready with a watchdog", drive(cfg, introduce, running, ready)},
		{"ready, reloads", drive(cfg, introduce, running, ready, say(Notified{Reloading: true}))},
		{"stopping by itself", drive(cfg, introduce, running, ready, say(Notified{Stopping: true}))},
		{"stopping after a missed keep-alive", drive(cfg, introduce, running, ready, due)},
		{"killing after a missed keep-alive", drive(cfg, introduce, running, ready, due, due)},
		{"waiting after a protocol failure", drive(cfg, introduce, running, finish)},
	}
}

func demandSituations() []situation {
	w := execWorker("w", 2)
	w.OnDemand = true
	e := entryWorker("w", 2)
	e.OnDemand = true
	demand := send(func(*player) Event { return Demand{1} })
	exec, entry := fleetOf(w, execWorker("other", 1)), fleetOf(e, execWorker("other", 1))
	return []situation{
		{"listening", drive(exec)},
		{"listening for the floor", drive(entry, loaded)},
		{"listening, floor is lost", drive(entry, loaded, lose)},
		{"starting on demand", drive(exec, demand)},
		{"starting from the floor on demand", drive(entry, loaded, demand)},
		{"waiting for the floor on demand", drive(entry, loaded, lose, demand)},
		{"ready on demand", drive(exec, demand, runW)},
		{"ready, a connection may wait", drive(exec, demand, runW, due, demand)},
		{"listening after a clean exit", drive(exec, demand, runW, finish, due)},
		{"waiting to listen after a crash", drive(exec, demand, runW, crash)},
	}
}

// changeSituations holds each phase of a change, of programs and of entries.
func changeSituations() []situation {
	exec := fleetOf(execWorker("w", 2), execWorker("other", 1))
	entry := fleetOf(entryWorker("w", 2), execWorker("other", 1))
	stopFirst := fleetOf(execWorker("w", 2), execWorker("other", 1))
	for _, cfg := range []*policy.Config{&exec, &entry, &stopFirst} {
		cfg.Spares = 1
		cfg.Workers[0].Roll = policy.Rolling{Order: policy.StartFirst, Settle: sec}
	}
	stopFirst.Workers[0].Roll.Order = policy.StopFirst
	restart := func(fresh bool, slots ...string) func(*player) {
		return send(func(*player) Event {
			return Propose{ID: 1, Kind: ChangeRestart, Revision: 2, Fresh: fresh, Slots: slots, Who: "uid 0"}
		})
	}
	newFloor := send(func(p *player) Event { return FloorLoaded{Proc: p.f.change.floor.proc} })
	next := func(p *player) { // the successor of w.0 is ready
		p.forkedBy(p.f.change.floor)
		s := p.slot("w.0").next
		if !s.assigned {
			p.send(Introduced{s.proc, 500})
		}
		p.send(Running{s.proc})
	}
	nextFails := send(func(p *player) Event { return Exited{Proc: p.slot("w.0").next.proc, Exit: status1} })
	moved := func(p *player) { p.wait(sec) }
	return []situation{
		{"ready, its successor starts", drive(exec, up, restart(false))},
		{"ready, its successor settles", drive(exec, up, restart(false), next)},
		{"ready, its predecessor ends", drive(exec, up, restart(false), next, moved)},
		{"ready, its successor has failed", drive(exec, up, restart(false), next, nextFails)},
		{"ready, the next floor loads", drive(entry, up, restart(true))},
		{"ready, its successor waits for the next floor", drive(entry, up, restart(true), newFloor)},
		{"ready, its successor of the next floor settles", drive(entry, up, restart(true), newFloor, next)},
		{"ready, all is moved back", drive(exec, up, restart(false), next, moved, send(func(*player) Event { return Cancel{1, "uid 0"} }))},
		{"stopping for its successor", drive(stopFirst, up, restart(false))},
		{"starting after its predecessor", drive(stopFirst, up, restart(false), func(p *player) { p.exit("w.0", termed) })},
		{"ready, a newer change waits", drive(exec, up, restart(false), next, moved, restart(false, "other.0"))},
		{"waiting, to be replaced on the spot", drive(exec, up, crash, restart(false, "w.1"))},
	}
}

func TestEveryStateIsTried(t *testing.T) {
	tried := map[string]bool{}
	for _, s := range situations() {
		tried[s.make(t).slot("w.0").state.String()] = true
		if got := s.make(t).slot("w.0").state.String(); !strings.Contains(s.name, ", fleet stops") && !strings.HasPrefix(s.name, got) {
			t.Errorf("%q: the slot is %s", s.name, got)
		}
	}
	if got, want := len(tried), len(statesIn(t)); got != want {
		t.Errorf("%d states are tried, there are %d", got, want)
	}
	floors := map[floorState]bool{}
	for _, s := range situations() {
		floors[s.make(t).f.floor.state] = true
	}
	if len(floors) != int(floorEnding)+1 {
		t.Errorf("%d floor states are tried, there are %d", len(floors), floorEnding+1)
	}
}

// TestEveryEventInEveryState gives each situation each event about each process
// that could be meant. The invariants must hold, two fleets must decide the
// same, and after a stop the fleet must end.
func TestEveryEventInEveryState(t *testing.T) {
	n := 0
	for _, s := range situations() {
		base := s.make(t)
		procs := []Proc{0, base.f.floor.proc, base.f.floor.pool.request(), base.f.last.proc + 1}
		for i := range base.f.slots {
			procs = append(procs, base.f.slots[i].proc)
		}
		for _, l := range base.f.floors {
			procs = append(procs, l.proc, l.pool.request())
		}
		for _, sp := range base.f.floor.pool.spares {
			procs = append(procs, sp.proc)
		}
		slices.Sort(procs)
		evs := eventsAboutNone()
		for _, proc := range slices.Compact(procs) {
			evs = append(evs, eventsAbout(proc)...)
		}
		for _, ev := range evs {
			n++
			name := fmt.Sprintf("%s, %T%+v", s.name, ev, ev)
			p, twin := &player{t: t, f: clone(base.f), now: base.now, writes: true}, clone(base.f)
			p.send(ev)
			if again := twin.Decide(base.now, ev); !sameActions(p.got, again) || !same(p.f, twin) {
				t.Errorf("%s: decided once:\n%sand once:\n%s", name, transcribe(p.got), transcribe(again))
			}
			if p.f.phase != stopping {
				p.send(StopRequested{"SIGINT"})
			}
			drain(t, name, p)
		}
	}
	t.Logf("%d pairs of a situation and an event", n)
}

func TestUnknownEventPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an unknown event did not panic")
		}
	}()
	New(fleetOf(execWorker("w", 1))).Decide(0, nil)
}
