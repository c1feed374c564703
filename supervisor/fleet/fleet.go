// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"time"
)

// The limits that are not a matter of the fleet file.
const (
	// forkTimeout is how long a floor may take to fork before it is replaced, and
	// oneMoreFork how much longer for each more that is asked for together: the page
	// tables of a large floor take a second.
	forkTimeout = 10 * time.Second
	oneMoreFork = time.Second

	// killGrace is how long a process may take to end after SIGKILL before it
	// is reported as one that cannot be killed.
	killGrace = 10 * time.Second

	// leftGrace is how long what a process left behind may take to end by itself,
	// before SIGKILL. It is short: the successor waits for it.
	leftGrace = 5 * time.Second

	// minStartInterval separates two starts of one slot, whatever its file
	// says: the rate of starts is bounded.
	minStartInterval = 100 * time.Millisecond

	// floorStopGrace is how long a floor may take to end by itself: its exit
	// handlers are the user's code.
	floorStopGrace = 10 * time.Second

	// probeTimeout is how long a floor may be examined. It takes a second for each million
	// objects or two.
	probeTimeout = 60 * time.Second

	// extendEvery is how often the service manager is asked for more time, and
	// extendBy is how much of it.
	extendEvery = 10 * time.Second
	extendBy    = 30 * time.Second
)

// Backoff of the floor and of spares that do not live; they have no policy of
// their own and use the defaults of a worker.
const (
	floorBackoff    = time.Second
	maxFloorBackoff = 30 * time.Second
)

type phase int

const (
	starting phase = iota
	serving        // READY was sent
	stopping
	ended
)

// SlotID identifies a slot, and WorkerID a worker, for as long as the fleet lives. None is
// ever used twice; 0 is none.
type (
	SlotID   uint64
	WorkerID uint64
)

// Fleet is the state of one fleet. It is not safe for concurrent use: one loop owns it.
// Its parts know the fleet that they belong to, and say through it what is to be done.
type Fleet struct {
	cfg      Config
	workers  []*worker
	slots    []*slot        // of all workers, in the order of the Config
	owners   map[Proc]*slot // the slot that a process belongs to
	floor    *floor         // that of the fleet as it is
	floors   []*floor       // all that something is left of
	phase    phase
	agenda   agenda
	stopping ending
	spawns   Histogram
	random   uint64
	last     ids
	acts     []Action

	changing
	status string
}

// changing is how a fleet becomes another.
type changing struct {
	revision   Revision // of the fleet as it is
	change     *change  // that is under way
	pending    *proposal
	lastChange lastChange
	reloading  bool // the service manager was told, and not yet that it is over
}

// agenda is what the fleet as a whole does at what time.
type agenda struct {
	started       bool // the first Decide has set the deadlines
	isReady       bool // READY was sent
	startDeadline Instant
	stopAt        Instant
	nextPing      Instant
	nextExtend    Instant
	late          lateness
	probe         probe
}

// ending is the end of a fleet that stops.
type ending struct {
	asked bool // StopRequested was seen
	code  int  // what Quit will say
	why   string
}

// New returns the fleet of cfg. Nothing happens before the first Decide.
func New(cfg Config) *Fleet {
	f := &Fleet{
		cfg:    cfg,
		owners: map[Proc]*slot{},
		random: cfg.Seed,
		agenda: agenda{startDeadline: Never, stopAt: Never, nextPing: Never, nextExtend: Never, late: lateness{promised: Never}, probe: noProbe},
	}
	f.last.revision, f.revision = 1, 1
	f.floor = f.newFloor(f.revision, cfg.hasEntries())
	for i := range cfg.Workers {
		w := f.newWorker(&f.cfg.Workers[i])
		for n := range w.config.Count {
			w.slots = append(w.slots, f.newSlot(w, n))
		}
	}
	f.arrange()
	return f
}

// ids are the last that were given. None is given twice.
type ids struct {
	proc       Proc
	slot       SlotID
	worker     WorkerID
	generation int
	revision   Revision
	change     ChangeID
}

// SlotInfo is what does not change of a slot.
type SlotInfo struct {
	ID         SlotID
	Revision   Revision
	Name       string // "web.0": at any time it belongs to one slot
	Worker     WorkerID
	WorkerName string
	Index      int // among the slots of its worker
}

// Slots lists the slots, each worker's in order, in the order of the Config.
func (f *Fleet) Slots() (all []SlotInfo) {
	for _, s := range f.slots {
		all = append(all, s.info())
	}
	return all
}

// named returns a slot by its name, nil if there is none.
func (f *Fleet) named(name string) *slot {
	for _, s := range f.slots {
		if s.name == name && s.role == current {
			return s
		}
	}
	return nil
}

// demanding returns a worker that is started on demand by its id, nil if there is none.
func (f *Fleet) demanding(id WorkerID) *worker {
	for _, w := range f.workers {
		if w.id == id && w.config.OnDemand {
			return w
		}
	}
	return nil
}

// Decide takes one event and returns what to do now, in this order. The slice
// is valid until the next call. now must not go back. After Quit, which is the
// last action, nothing is done any more.
func (f *Fleet) Decide(now Instant, ev Event) []Action {
	f.acts = f.acts[:0]
	if !f.agenda.started {
		f.begin(now)
	}
	if f.phase != ended {
		f.forgive(now)
		if _, ok := ev.(Tick); !ok {
			f.hearFirst(now)
		}
		f.handle(now, ev)
		f.advance(now)
		f.refreshStatus(now)
		f.promise(now)
	}
	return f.acts
}

// Deadline is when Decide wants a Tick at the latest: later than the now of the
// last Decide, and Never once the fleet has ended.
func (f *Fleet) Deadline() Instant {
	if f.phase == ended {
		return Never
	}
	d := min(f.agenda.startDeadline, f.agenda.stopAt, f.agenda.nextPing, f.agenda.nextExtend, f.agenda.probe.deadline)
	for _, l := range f.floors {
		d = min(d, l.due, l.deadline, l.pool.due, l.pool.deadline)
	}
	for _, s := range f.slots {
		if !s.frozen {
			d = min(d, s.due, s.deadline, s.beatDue, s.provenAt, s.recycleAt, s.measureAt)
		}
	}
	for _, w := range f.workers {
		d = min(d, w.demand.lookAt, w.recycleAgain)
	}
	return d
}

// Ended reports whether Quit was said.
func (f *Fleet) Ended() bool { return f.phase == ended }

func (f *Fleet) begin(now Instant) {
	f.agenda.started = true
	f.agenda.startDeadline = now.timeout(f.cfg.TimeoutStart)
	if f.cfg.StopAfter > 0 {
		f.agenda.stopAt = now.Add(f.cfg.StopAfter)
	}
	if f.cfg.PingEvery > 0 {
		f.agenda.nextPing = now
	}
	if f.cfg.Extend {
		f.agenda.nextExtend = now
	}
	for _, s := range f.slots {
		s.due, s.since = now, now
	}
	f.floor.begin(now)
}

// advance does what is due. It runs after every event, so that a successor
// starts in the same turn in which its predecessor ended.
func (f *Fleet) advance(now Instant) {
	if now >= f.agenda.nextPing {
		f.do(Ping{})
		f.agenda.nextPing = now.Add(f.cfg.PingEvery)
	}
	if now >= f.agenda.stopAt {
		f.stop(now, 0, "time is up (--stop-after)")
	}
	for _, l := range f.floors {
		l.advance(now)
	}
	for _, s := range f.slots {
		s.advance(now)
	}
	f.changes(now)
	for _, l := range f.floors {
		l.pool.advance(now)
	}
	f.agenda.probe.advance(now, f) // of a floor that a request may have ended
	for _, w := range f.workers {
		w.advance(now)
	}
	f.tidy()
	f.judge(now)
	f.extend(now)
	if f.pending != nil && f.change == nil && f.phase == serving {
		f.advance(now) // it has waited for the end of the start
	}
}

// anyOnItsWay reports whether some process is becoming a slot.
func (f *Fleet) anyOnItsWay() bool {
	return slices.ContainsFunc(f.slots, func(s *slot) bool { return s.state == StateStarting && s.assigned && !s.running })
}

// judge looks at the fleet as a whole: is it ready, is it over?
func (f *Fleet) judge(now Instant) {
	n := f.count()
	switch {
	case f.phase == stopping:
	case n.finished() == n.slots && n.held == 0 && f.change == nil:
		f.stop(now, boolInt(n.failed > 0), n.ending())
	case f.phase == starting && f.readyNow(n):
		f.serve(now)
		f.reportKind(KindFleetReady, Notice, fmt.Sprintf("fleet is ready: %d of %d slots", n.ready, n.slots))
	case f.phase == starting && now >= f.agenda.startDeadline:
		f.startTimeout(now, n)
	}
	if f.phase == stopping && f.nothingLeft() {
		f.quit(now)
	}
}

// nothingLeft counts anew: a slot without a process has ended by being stopped.
func (f *Fleet) nothingLeft() bool {
	return f.agenda.probe.proc == 0 && !slices.ContainsFunc(f.floors, func(l *floor) bool { return l.proc != 0 || !l.pool.empty() }) &&
		!slices.ContainsFunc(f.slots, func(s *slot) bool { return s.state != StateExited && s.state != StateFailed })
}

func (f *Fleet) readyNow(n tally) bool {
	switch {
	case f.cfg.ReadyWhen.Floor:
		return !f.floor.needed || f.floor.state == floorUp
	case f.cfg.ReadyWhen.N > 0:
		return n.ready+n.exited >= min(f.cfg.ReadyWhen.N, n.slots-n.failed)
	default:
		return n.ready+n.exited+n.failed == n.slots
	}
}

// serve ends the start.
func (f *Fleet) serve(now Instant) {
	f.phase, f.agenda.startDeadline = serving, Never
	f.floor.limitLoading(now)
	f.sayReady()
}

func (f *Fleet) sayReady() {
	if !f.agenda.isReady {
		f.agenda.isReady = true
		f.do(Ready{})
	}
}

// startTimeout ends the start: one crash-looping worker never takes the others
// down, but a fleet in which nothing is ready has failed.
func (f *Fleet) startTimeout(now Instant, n tally) {
	limit := Span(f.cfg.TimeoutStart)
	if n.ready > 0 {
		f.serve(now)
		f.reportKind(KindFleetDegraded, Warning, fmt.Sprintf("fleet is ready, but degraded: %d of %d slots after %s (timeout_start_sec)",
			n.ready, n.slots, limit))
		return
	}
	why := fmt.Sprintf("no slot was ready within %s (timeout_start_sec)", limit)
	switch s := n.worst; {
	case f.floor.state == floorLoading:
		why = fmt.Sprintf("floor: %s did not finish within %s (timeout_start_sec)", f.floor.doing(), limit)
	case f.floor.cause != "":
		why += "; floor: " + f.floor.cause
	case s != nil:
		why += fmt.Sprintf("; %s: %s", s.name, s.why)
	}
	f.stop(now, 1, why)
}

func (f *Fleet) quit(now Instant) {
	f.phase = ended
	f.refreshStatus(now)
	f.report(Notice, "fleet shut down")
	f.do(Quit{Code: f.stopping.code, Why: f.stopping.why})
}

func (f *Fleet) extend(now Instant) {
	if now < f.agenda.nextExtend {
		return
	}
	if f.phase == starting || f.phase == stopping || f.reloading {
		f.do(Extend{By: extendBy})
		f.agenda.nextExtend = now.Add(extendEvery)
		return
	}
	f.agenda.nextExtend = Never
}

func (f *Fleet) do(a Action) { f.acts = append(f.acts, a) }

func (f *Fleet) report(level Level, text string) { f.reportKind("", level, text) }

func (f *Fleet) reportKind(kind Kind, level Level, text string) {
	f.do(Report{Level: level, Kind: kind, Text: text})
}

func (f *Fleet) newProc() Proc {
	f.last.proc++
	return f.last.proc
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
