// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
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

// lateAfter is how late a turn must be for it to say something about the world:
// the unit was frozen, the master stopped, or the machine starved.
const lateAfter = 500 * time.Millisecond

// maxForgiven is how often a process is forgiven that has sent no keep-alive
// since: a machine that is always short of CPU must not hide one that is stuck.
const maxForgiven = 3

type phase int

const (
	starting phase = iota
	serving        // READY was sent
	draining       // it is to stop, and serves until then
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
	cfg      policy.Config
	workers  []*worker
	slots    []*slot        // of all workers, in the order of the Config
	owners   map[Proc]*slot // the slot that a process belongs to
	floor    *floor         // that of the fleet as it is
	floors   []*floor       // all that something is left of
	phase    phase
	agenda   agenda
	stopping ending
	counts
	random uint64
	last   ids
	acts   []Action

	changing
	telling
}

// counts are of all its life.
type counts struct {
	spawns       Histogram
	floorLosses  int // floors that have ended though nobody had asked for it
	loadFailures int // floors that could not be loaded
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
	wasReady      bool // some slot was ready, or listened
	startDeadline policy.Instant
	stopAt        policy.Instant
	drainedAt     policy.Instant // when a fleet that drains stops; policy.Never: it does not drain
	nextPing      policy.Instant
	nextExtend    policy.Instant
	late          lateness
	probe         probe
}

// ending is the end of a fleet that stops.
type ending struct {
	asked bool   // StopRequested was seen
	code  int    // what Quit will say
	why   string // as it will
	cause string // of the stop: what slots are told
}

// New returns the fleet of cfg. Nothing happens before the first Decide.
func New(cfg policy.Config) *Fleet {
	f := &Fleet{
		cfg:    cfg,
		owners: map[Proc]*slot{},
		random: cfg.Seed,
		agenda: agenda{startDeadline: policy.Never, stopAt: policy.Never, drainedAt: policy.Never, nextPing: policy.Never, nextExtend: policy.Never, late: lateness{promised: policy.Never}, probe: noProbe},
	}
	f.last.revision, f.revision = 1, 1
	f.floor = f.newFloor(f.revision, cfg.HasEntries())
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

// Decide takes one event and returns what to do now, in this order. The slice
// is valid until the next call. now must not go back. After Quit, which is the
// last action, nothing is done any more.
func (f *Fleet) Decide(now policy.Instant, ev Event) []Action {
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
func (f *Fleet) Deadline() policy.Instant {
	if f.phase == ended {
		return policy.Never
	}
	d := min(f.agenda.startDeadline, f.agenda.stopAt, f.agenda.drainedAt, f.agenda.nextPing, f.agenda.nextExtend, f.agenda.probe.deadline)
	for _, l := range f.floors {
		d = min(d, l.due, l.deadline, l.pool.due, l.pool.deadline)
	}
	for _, s := range f.slots {
		if !s.frozen {
			d = min(d, s.due, s.deadline, s.beatDue, s.provenAt, s.wellAt, s.recycleAt, s.measureAt)
		}
	}
	for _, w := range f.workers {
		d = min(d, w.demand.lookAt, w.recycleAgain)
	}
	return d
}

// Ended reports whether Quit was said.
func (f *Fleet) Ended() bool { return f.phase == ended }

func (f *Fleet) begin(now policy.Instant) {
	f.agenda.started = true
	f.agenda.startDeadline = now.Timeout(f.cfg.TimeoutStart)
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
func (f *Fleet) advance(now policy.Instant) {
	if now >= f.agenda.nextPing {
		f.do(Ping{})
		f.agenda.nextPing = now.Add(f.cfg.PingEvery)
	}
	switch {
	case now >= f.agenda.stopAt:
		f.timeIsUp(now)
	case now >= f.agenda.drainedAt:
		f.stop(now, 0, f.stopping.why)
	}
	for _, l := range f.floors {
		l.advance(now)
	}
	for _, s := range f.slots {
		s.advance(now)
	}
	if f.phase == stopping {
		f.stopInOrder(now)
	}
	f.changes(now)
	f.release(now)
	for _, l := range f.floors {
		l.pool.advance(now)
	}
	f.agenda.probe.advance(now, f) // of a floor that a request may have ended
	for _, w := range f.workers {
		w.advance(now)
	}
	f.tidy()
	before := f.phase
	f.judge(now)
	f.extend(now)
	if f.phase == serving && (before == starting || f.pending != nil && f.change == nil) {
		f.advance(now) // a change, or a slot to be recycled, has waited for the end of the start
	}
}

// anyOnItsWay reports whether some process is becoming a slot.
func (f *Fleet) anyOnItsWay() bool {
	return slices.ContainsFunc(f.slots, func(s *slot) bool { return s.state == StateStarting && s.assigned && !s.running })
}

// lateness is how a turn is known to be late.
type lateness struct {
	decided  policy.Instant // the now of the last Decide
	promised policy.Instant // its Deadline
}

// forgive moves the deadlines of processes that had no chance to meet them. If
// the master did not run, neither did they, or their words were not read: what
// was left of each deadline when the master last ran is left of it now. Delays
// and the deadlines of the fleet's own plan stay: time has passed.
func (f *Fleet) forgive(now policy.Instant) {
	if f.agenda.late.promised == policy.Never || now.Sub(f.agenda.late.promised) < lateAfter {
		return
	}
	gap := now.Sub(f.agenda.late.decided)
	waiting := f.agenda.startDeadline != policy.Never
	f.agenda.startDeadline = f.agenda.startDeadline.Add(gap)
	for _, l := range f.floors {
		waiting = waiting || min(l.deadline, l.pool.deadline) != policy.Never
		l.deadline = l.deadline.Add(gap)
		l.pool.deadline = l.pool.deadline.Add(gap)
	}
	f.agenda.probe.deadline = f.agenda.probe.deadline.Add(gap)
	for _, s := range f.slots {
		watchdog := s.forgiven < maxForgiven
		waiting = waiting || s.deadline != policy.Never || watchdog && s.beatDue != policy.Never
		if watchdog {
			s.forgiven++
		}
		s.postpone(gap, watchdog)
	}
	if waiting {
		f.reportKind(KindOverslept, Notice, fmt.Sprintf("the master did not run for %s (frozen, stopped, or short of CPU); "+
			"the deadlines of its processes were extended", policy.Span(now.Sub(f.agenda.late.promised))))
	}
}

// hearFirst lets every event of a turn come before a watchdog's end: a process
// that was late only as long as the master was may have said that it lives. The
// Tick that ends the turn judges.
func (f *Fleet) hearFirst(now policy.Instant) {
	for _, s := range f.slots {
		if s.beatDue <= now && !s.frozen {
			s.beatDue = now + 1
		}
	}
}

// promise remembers when the next turn is due.
func (f *Fleet) promise(now policy.Instant) {
	f.agenda.late = lateness{decided: now, promised: f.Deadline()}
}

func (f *Fleet) extend(now policy.Instant) {
	if now < f.agenda.nextExtend {
		return
	}
	if f.phase == starting || f.phase == draining || f.phase == stopping || f.reloading {
		f.do(Extend{By: extendBy})
		f.agenda.nextExtend = now.Add(extendEvery)
		return
	}
	f.agenda.nextExtend = policy.Never
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
