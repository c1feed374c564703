// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// world is a little machine that a fleet runs on: floors, and processes that
// come to their gate, run, end, ignore signals and leave others behind. What
// happens next is chosen by bytes. It knows what a fleet may ask for and when,
// and nothing of how the fleet decides.
type world struct {
	t     testing.TB
	f     *Fleet
	cfg   policy.Config
	now   policy.Instant
	bytes []byte

	procs    map[Proc]*being
	order    []Proc            // of procs, for a choice that repeats
	requests map[Proc][]Proc   // outstanding, by floor
	watched  map[WorkerID]bool // by worker
	looked   []WorkerID        // workers whose PollSockets is to be answered
	warm     []Proc            // processes that could not be frozen
	measured []Proc            // that are to be measured, or looked at
	recycled ChangeID          // the last that was seen

	revision  Revision // that was last proposed
	reloading bool

	starts   map[SlotID][]policy.Instant
	excused  map[SlotID]int // so many of them, by an operator
	followed followed
	ready    int
	quits    int
	stopped  bool
	drains   bool
	floors   int
	quitCode int
}

type beingKind int

const (
	floorBeing beingKind = iota
	forkBeing
	shimBeing
)

type beingState int

const (
	asked   beingState = iota // for a worker: nothing is there yet
	loading                   // a floor
	atGate
	told
	runs // for a floor: loaded
	left // it has ended, something of it is left
)

type being struct {
	id        Proc
	kind      beingKind
	state     beingState
	slot      SlotID
	frozen    bool
	deaf      bool // ignores the signals that it can
	immortal  bool // does not even end from SIGKILL
	dying     bool // a signal that it heeds, or SIGKILL, was sent
	killed    bool // SIGKILL was sent to all of it
	abandoned bool // its gate is closed; it is not the fleet's any more
	leftAt    policy.Instant
	revision  Revision // of a floor
	forks     int      // that it takes at a time
	more      bool     // another is asked together with the last
}

func (w *world) byte() byte {
	if len(w.bytes) == 0 {
		return 0
	}
	b := w.bytes[0]
	w.bytes = w.bytes[1:]
	return b
}

func pick[T any](w *world, from ...T) T { return from[int(w.byte())%len(from)] }

func newWorld(t testing.TB, data []byte) *world {
	w := &world{t: t, bytes: data, now: policy.Instant(5 * sec), procs: map[Proc]*being{}, starts: map[SlotID][]policy.Instant{}, excused: map[SlotID]int{}, followed: followed{map[string]bool{}, map[string]bool{}}, watched: map[WorkerID]bool{}, requests: map[Proc][]Proc{}, revision: 1}
	w.cfg = w.config()
	w.f = New(w.cfg)
	return w
}

func (w *world) config() policy.Config {
	cfg := policy.Config{
		ReadyWhen:    pick(w, policy.ReadyWhen{}, policy.ReadyWhen{Floor: true}, policy.ReadyWhen{N: 1}, policy.ReadyWhen{N: 3}),
		TimeoutStart: pick(w, 60*sec, 5*sec, 0, policy.Forever),
		Spares:       pick(w, 1, 0, 2),
		Host: policy.Host{
			StopAfter: pick(w, 0, 0, 0, 40*sec),
			PingEvery: pick(w, 0, 5*sec),
			Extend:    w.byte()%2 == 1,
			Freezer:   true,
			Seed:      uint64(w.byte()),
		},
	}
	backward, workers := w.byte()%2 == 0, pick(w, 1, 2, 3, 2, 3, 1, 2, 0)
	for i := range workers {
		worker := policy.Worker{
			Name: fmt.Sprintf("w%d", i), Count: pick(w, 1, 2, 3, 1, 2, 3, 1, 0), Entry: w.byte()%2 == 0, Tasks: []string{"t"}[i%2:], Counted: i == 1,
			OnDemand: w.byte()%4 == 0, Policy: w.policy(), Sockets: []string{"shared", fmt.Sprintf("s%d", i)},
			Roll:    policy.Rolling{Order: pick(w, policy.StartFirst, policy.StopFirst), MaxUnavailable: pick(w, 1, 2, 0), Settle: pick(w, sec, 0, 5*sec)},
			Recycle: w.recycling(),
		}
		w.ordered(&worker, i, workers, backward)
		// As of a file: what a process is born with has keys.
		worker.Keys = []policy.Key{{Name: "after", Class: policy.Live, Sum: uint64(len(fmt.Sprint(worker.After)))}, {Name: "type", Class: policy.Birth, Sum: uint64(boolInt(worker.Oneshot))}, {Name: "entry", Class: policy.Birth, Sum: uint64(boolInt(worker.Entry))}, {Name: "on_demand", Class: policy.Birth, Sum: uint64(boolInt(worker.OnDemand))}}
		cfg.Workers = append(cfg.Workers, worker)
	}
	cfg.StopDelay = pick(w, 0, 5*sec, 0, 60*sec)
	for i := range cfg.Workers {
		cfg.Workers[i].Vital = policy.Vital{FailureAction: pick(w, "", policy.EndNone, policy.EndNone, policy.EndExit), SuccessAction: pick(w, "", policy.EndNone, policy.EndNone, policy.EndExit)}
	}
	return cfg
}

// tell gives the fleet an event and plays what it does. Twice the same fleet and
// the same event must be twice the same.
func (w *world) tell(ev Event) {
	w.t.Helper()
	twin, queued := clone(w.f), w.starting()
	acts := slices.Clone(w.f.Decide(w.now, ev))
	w.checkRecycling(w.f)
	w.lookAtOrder(queued)
	if again := twin.Decide(w.now, ev); !sameActions(acts, again) || !same(w.f, twin) {
		w.fail("%T%+v decided once:\n%sand once:\n%s", ev, ev, transcribe(acts), transcribe(again))
	}
	if err := check(w.f, w.now); err != nil {
		w.fail("after %T%+v: %v", ev, ev, err)
	}
	w.continued(acts)
	w.unserved()
	for i, a := range acts {
		if w.quits > 0 {
			w.fail("%s after Quit", tellAction(a))
		}
		w.act(a)
		if _, ok := a.(Quit); ok && i != len(acts)-1 {
			w.fail("Quit is not the last action")
		}
	}
	for len(w.warm) > 0 {
		id := w.warm[0]
		w.warm = w.warm[1:]
		w.tell(FreezeFailed{id, "no such file"})
	}
	for len(w.looked) > 0 {
		worker := w.looked[0]
		w.looked = w.looked[1:]
		w.tell(pick[Event](w, Demand{worker}, NoDemand{worker}))
	}
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("at %s: %s", time.Duration(w.now), fmt.Sprintf(format, args...))
}

func (w *world) act(a Action) {
	w.t.Helper()
	if w.stopped {
		switch a.(type) {
		case LoadFloor, Fork, StartShim, Assign, Probe, Stopping, Watch, PollSockets:
			w.fail("%s after the stop", tellAction(a))
		}
	}
	switch a := a.(type) {
	case LoadFloor:
		w.loadFloor(a)
	case Fork:
		w.fork(a)
	case StartShim:
		w.vacant(a.Slot)
		w.born(&being{id: a.Proc, kind: shimBeing, slot: a.Slot})
		w.started(a.Slot)
	case Assign:
		w.assign(a)
	case Probe:
		w.probe(a)
	case Abandon:
		w.abandon(a.Proc)
	case StopFloor:
		w.living(a.Proc).dying = true
	case Kill:
		w.kill(a)
	case Ready:
		if w.ready++; w.ready > 1 && !w.reloading {
			w.fail("READY=1 for the second time")
		}
		w.reloading = false
	case Reloading:
		w.reloading = true
	case Watch:
		if w.watched[a.Worker] {
			w.fail("%s, which is", tellAction(a))
		}
		w.watched[a.Worker] = true
	case Unwatch:
		if !w.watched[a.Worker] {
			w.fail("%s, which is not", tellAction(a))
		}
		delete(w.watched, a.Worker)
	case PollSockets:
		if w.watched[a.Worker] {
			w.fail("%s, which is watched", tellAction(a))
		}
		w.looked = append(w.looked, a.Worker)
	case Draining:
		if w.drains || w.stopped || w.reloading || w.cfg.StopDelay == 0 && w.revision == 1 {
			w.fail("%s", tellAction(a))
		}
		w.drains = true
	case Stopping:
		if w.reloading {
			w.fail("STOPPING=1 while the service manager waits for READY=1")
		}
		w.stopped = true
	case Quit:
		w.quit(a)
	case Freeze:
		w.freeze(a)
	case LimitSlot:
		w.living(a.Proc)
	case Measure:
		w.measured = append(w.measured, w.living(a.Proc).id)
	case TakeStacks:
		w.takeStacks(a)
	case OrderTask:
		w.living(a.Proc)
	case Extend, Status, Report, Ping:
	}
}

func (w *world) born(b *being) {
	w.t.Helper()
	if w.procs[b.id] != nil || b.id == 0 {
		w.fail("process %d is used twice", b.id)
	}
	w.procs[b.id] = b
	w.order = append(w.order, b.id)
	b.deaf, b.immortal = w.byte()%5 == 4, w.byte()%31 == 30
}

func (w *world) dead(id Proc) {
	delete(w.procs, id)
	w.order = slices.DeleteFunc(w.order, func(p Proc) bool { return p == id })
	w.answered(id)
}

// answered forgets a request to a floor.
func (w *world) answered(id Proc) {
	delete(w.requests, id)
	for floor, all := range w.requests {
		w.requests[floor] = slices.DeleteFunc(all, func(p Proc) bool { return p == id })
	}
}

// living is a process that the fleet may name.
func (w *world) living(id Proc) *being {
	w.t.Helper()
	b := w.procs[id]
	if b == nil || b.abandoned {
		w.fail("process %d is not there", id)
	}
	return b
}

func (w *world) loadFloor(a LoadFloor) {
	w.t.Helper()
	w.floors++
	if a.Generation != w.floors {
		w.fail("generation %d, want %d", a.Generation, w.floors)
	}
	for _, b := range w.procs {
		if b.kind == floorBeing && b.revision == a.Revision && (b.state != left || w.now.Sub(b.leftAt) < killGrace) {
			w.fail("a second floor while %d is there", b.id)
		}
	}
	w.born(&being{id: a.Proc, kind: floorBeing, state: loading, revision: a.Revision})
}

func (w *world) fork(a Fork) {
	w.t.Helper()
	l := w.living(a.Floor)
	if l.kind != floorBeing || l.state != runs {
		w.fail("fork from %d, which cannot", a.Floor)
	}
	n := len(w.requests[a.Floor])
	if n > 0 && !l.more || n >= max(1, l.forks) {
		w.fail("fork %d while %v are outstanding", a.Proc, w.requests[a.Floor])
	}
	l.more = a.More
	w.born(&being{id: a.Proc, kind: forkBeing})
	w.requests[a.Floor] = append(w.requests[a.Floor], a.Proc)
}

// assign makes a process the slot, once, and only if the slot has no other.
func (w *world) assign(a Assign) {
	w.t.Helper()
	b := w.living(a.Proc)
	if b.state != atGate {
		w.fail("process %d in state %d is told to go", a.Proc, b.state)
	}
	for _, other := range w.procs {
		if other != b && other.kind != floorBeing && other.slot == a.Slot && (other.kind == shimBeing || other.state >= told) {
			w.fail("slot %d has process %d and gets %d", a.Slot, other.id, a.Proc)
		}
	}
	if b.kind == shimBeing && b.slot != a.Slot {
		w.fail("shim %d of slot %d becomes slot %d", b.id, b.slot, a.Slot)
	}
	if b.kind == forkBeing {
		w.started(a.Slot)
	}
	b.slot, b.state = a.Slot, told
}

func (w *world) abandon(id Proc) {
	w.t.Helper()
	b := w.living(id)
	if b.state != asked || b.kind != forkBeing {
		w.fail("process %d is abandoned", id)
	}
	b.abandoned = true
	w.answered(id)
}

func (w *world) kill(a Kill) {
	w.t.Helper()
	b := w.living(a.Proc)
	switch {
	case b.state == left && !a.All:
		w.fail("signal to process %d, which has ended", a.Proc)
	case a.Signal == policy.SIGCONT:
		return
	case b.state == left && b.killed && a.Signal != policy.SIGKILL:
		w.fail("%s, which has got SIGKILL", tellAction(a))
	case a.Signal == policy.SIGKILL:
		b.dying, b.frozen = true, b.frozen && !a.All
		b.killed = b.killed || a.All
	default:
		w.inOrder(b)
		b.dying = b.dying || !b.deaf
	}
}

// quit may leave behind only what cannot be killed: with status 1, or long ago.
func (w *world) quit(a Quit) {
	w.t.Helper()
	w.quits++
	w.quitCode = a.Code
	if a.Code == 0 && w.ready == 0 {
		w.fail("Quit 0 without READY=1")
	}
	for _, b := range w.procs {
		gone := b.abandoned || b.kind == floorBeing && b.state == left && w.now.Sub(b.leftAt) >= killGrace
		if !gone && a.Code == 0 {
			w.fail("Quit 0 while process %d is there", b.id)
		}
	}
}
