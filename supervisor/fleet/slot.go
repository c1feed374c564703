// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// State is where a slot is in its life.
type State int

// The states of a slot.
const (
	StateWaiting   State = iota // for its due time, or for the floor
	StateStarting               // for a process, or for it to run
	StateReady                  // it runs
	StateStopping               // asked to end, it or what it left behind
	StateKilling                // SIGKILL was sent, to it or to what it left behind
	StateExited                 // finished, will not restart
	StateFailed                 // gave up
	StateListening              // without a process, until a connection waits
)

var stateNames = [...]string{"waiting", "starting", "ready", "stopping", "killing", "exited", "failed", "listening"}

func (s State) String() string { return stateNames[s] }

// slot is one process of a worker, which survives its restarts.
//
// Each deadline belongs to a state: due to waiting; deadline to starting, stopping and
// killing, and to a reload; beatDue and wellAt to ready. enter keeps it so.
type slot struct {
	fleet  *Fleet
	worker *worker
	id     SlotID
	index  int // among the slots of its worker
	name   string

	origin
	move
	state    State
	why      string         // of the state, for the operator
	since    policy.Instant // of the state
	due      policy.Instant // the next start
	deadline policy.Instant

	run
	record
	hold
}

// origin is what a slot's processes are born of.
type origin struct {
	config   *policy.Worker
	floor    *floor // if it is an entry
	revision Revision
}

// run is one start of a slot. Each start assigns a new one.
type run struct {
	process
	outcome
	said
	beat
	recycling
	meter

	requestedAt policy.Instant // when its process was asked for
	startedAt   policy.Instant // when it was assigned
	readyAt     policy.Instant
	endedAt     policy.Instant // once its process has ended
	unfit       int            // processes that were passed over
	wellAt      policy.Instant // when it has been ready for so long that its failures are over
	wasReady    bool
	readyFor    time.Duration // once its process has ended
}

// process is what the slot has of a process, or of what one left behind, or (for an exec
// worker) of a request for one: from own to release.
type process struct {
	proc       Proc
	pid        int
	generation int            // of the floor that it was forked from
	assigned   bool           // it was told what to become
	running    bool           // it has left its gate
	early      bool           // READY=1 came before that was heard
	reloading  bool           // it serves meanwhile
	sweeping   bool           // it has ended; what it left behind has not
	killed     bool           // SIGKILL was sent to all of it
	hung       hang           // if it does
	stacksDue  policy.Instant // an operator has them taken again from then on
}

// outcome is how a process ended.
type outcome struct {
	result  policy.Result
	exit    policy.Exit
	refusal string // why it could not become the slot, in its own words
	usage   Usage
	what    string // all of it in a line, once the slot has none any more
	led     string // to the result start-limit-hit: the result before
}

// said is what a process says of itself.
type said struct {
	status string // STATUS=
	errno  string
	lag    time.Duration // of the loop of its tasks
	lament string        // why it ends, such as its last exception
}

// beat is the watchdog of a process.
type beat struct {
	watchdog time.Duration  // the interval
	beatDue  policy.Instant // the next keep-alive
	forgiven int            // times that its delay was, since the last one
}

// record is what a slot remembers of its runs.
type record struct {
	failures   int                      // in a row
	lastDelay  time.Duration            // before the last restart, jitter apart
	waits      time.Duration            // before the next start
	starts     []policy.Instant         // the last ones, for the start limit
	startCount int                      // in all
	restarts   [len(policy.Results)]int // by the result of the process before
	lastResult policy.Result            // of the last process that has ended
	recycled   [len(policy.RecycleReasons)]int
	tooLarge   int // processes in a row that had recycle_private when they were measured first
	tasks      []task
	lines      taskLines
}

// hold is what keeps a slot from going its way, or makes it.
type hold struct {
	held           bool           // an operator has stopped it
	startOnceEnded bool           // an operator wants it to start once it has ended
	frozen         bool           // by an operator; its deadline and beatDue do not pass meanwhile
	frozenAt       policy.Instant // while it is
	blocked        bool           // due, but there is no floor to fork from
	woken          bool           // a connection waits for it to start
	vital          bool           // it has ended for good, and the fleet is to end with it
	awaits         []string       // due, but these workers are to be ready first
	goes           bool           // it has started before, or an operator wanted it to: it waits for no other
}

// enter is the only place that writes a slot's state. No deadline survives it but until,
// which is due of a slot that waits and the deadline of one that has a process.
func (s *slot) enter(now policy.Instant, to State, until policy.Instant, kind Kind, level Level, why string) {
	s.enterUntil(now, to, until, kind, level, why, why)
}

// enterUntil is enter where another text is told than why, which is kept: with what follows
// in so much time, which is wrong when it is read later.
func (s *slot) enterUntil(now policy.Instant, to State, until policy.Instant, kind Kind, level Level, why, told string) {
	from := s.state
	s.due, s.deadline, s.beatDue, s.provenAt, s.wellAt = policy.Never, policy.Never, policy.Never, policy.Never, policy.Never
	s.reloading, s.blocked, s.woken, s.vital, s.awaits = false, false, false, false, nil
	if to != StateReady {
		s.forget() // what it has asked for while it started is still wanted
	}
	switch to {
	case StateWaiting:
		s.due = until
	case StateStarting, StateStopping, StateKilling:
		s.deadline = until
	case StateReady, StateExited, StateFailed, StateListening:
	}
	s.state, s.why = to, why
	if from != to {
		s.since = now
		told = fmt.Sprintf("%s -> %s: %s", from, to, told)
	}
	s.report(kind, level, told, s.endOf(from))
}

// remark says something about a slot that stays in its state.
func (s *slot) remark(kind Kind, level Level, why string) {
	s.why = why
	s.report(kind, level, why, End{Result: s.result})
}

func (s *slot) report(kind Kind, level Level, text string, end End) {
	s.fleet.do(Report{Level: level, Kind: kind, Slot: s.name, PID: s.pid, Generation: s.generation, Text: text, End: end})
}

// advance does what is due.
func (s *slot) advance(now policy.Instant) {
	if s.frozen {
		return // it cannot do what it is expected to
	}
	switch s.state {
	case StateWaiting:
		if now >= s.due || s.blocked && s.floor.pool.canFork() {
			s.start(now)
		}
	case StateStarting:
		if now >= s.deadline {
			s.startTimeout(now)
		}
	case StateReady:
		s.wear(now)
		if now >= s.wellAt {
			s.recovered()
		}
		switch {
		case now >= s.provenAt:
			s.proven(now)
		case now >= s.beatDue:
			s.abort(now, fmt.Sprintf("no WATCHDOG=1 for %s (watchdog_sec)", policy.Span(s.watchdog)))
		case now >= s.deadline:
			s.reloadTimeout()
		}
	case StateStopping:
		if now >= s.deadline {
			s.stopTimeout(now)
		}
	case StateKilling:
		if now >= s.deadline {
			s.unkillable(now)
		}
	case StateListening, StateExited, StateFailed:
	}
}

func (s *slot) startTimeout(now policy.Instant) {
	s.result = policy.Timeout
	what := "start"
	switch {
	case s.running && s.config.Oneshot:
		what = "end"
	case s.running:
		what = "send READY=1"
	}
	s.stop(now, KindSlotTimeout, fmt.Sprintf("did not %s within %s (timeout_start_sec)%s", what,
		policy.Span(s.policy().TimeoutStart), s.lastWords()))
}

// start gives a slot that is due a process, or makes it wait for one.
func (s *slot) start(now policy.Instant) {
	if names := s.waitsFor(); names != nil {
		s.wait(names)
		return
	}
	listen := s.config.OnDemand && !s.woken
	if s.config.Entry && !s.floor.pool.canFork() && !(listen && s.floor.loaded) {
		s.due, s.blocked = policy.Never, true
		return
	}
	if listen {
		s.goes = true
		s.enter(now, StateListening, policy.Never, KindSlotListens, Info, "a connection starts it")
		s.fleet.agenda.wasReady = true
		return
	}
	if !s.mayStart(now) {
		s.hitStartLimit(now)
		return
	}
	s.startCount++
	s.goes = true
	if i := slices.Index(policy.Results[:], s.lastResult); i >= 0 {
		s.restarts[i]++
	}
	s.startOnceEnded = false
	s.run = newRun()
	s.exit, s.requestedAt, s.startedAt = policy.NoExit, now, now
	s.forgetTasks(now)
	if s.config.Entry {
		s.enter(now, StateStarting, policy.Never, "", Debug, "due") // the floor has a deadline of its own
		s.floor.pool.queue = append(s.floor.pool.queue, s)
		s.floor.pool.serve(now)
		return
	}
	s.enter(now, StateStarting, now.Timeout(s.policy().TimeoutStart), "", Debug, "due")
	p := s.fleet.newProc()
	s.own(p)
	s.fleet.do(StartShim{Proc: p, Slot: s.id})
}

// mayStart keeps the times of the last StartLimitBurst starts: the limit is
// hit if all of them lie within the period.
func (s *slot) mayStart(now policy.Instant) bool {
	p := s.policy()
	if p.StartLimitBurst == 0 || p.StartLimitPeriod == 0 {
		return true
	}
	if len(s.starts) >= p.StartLimitBurst {
		if now < s.starts[0].Add(p.StartLimitPeriod) {
			return false
		}
		s.starts = slices.Delete(s.starts, 0, 1)
	}
	s.starts = append(s.starts, now)
	return true
}

func (s *slot) own(p Proc) {
	s.proc = p
	s.fleet.owners[p] = s
}

// release lets go of the slot's process: it has been reaped, or never was.
func (s *slot) release() {
	delete(s.fleet.owners, s.proc)
	s.process = process{}
}

// assign lets a process that waits at its gate become the slot. This is its start: the
// slot may have waited long for a process.
func (s *slot) assign(now policy.Instant, p Proc, pid, generation int) {
	s.own(p)
	s.pid, s.generation, s.assigned, s.startedAt = pid, generation, true, now
	if n := len(s.starts); n > 0 {
		s.starts[n-1] = now
	}
	s.watchdog = s.policy().Watchdog
	s.deadline = now.Timeout(s.policy().TimeoutStart)
	s.fleet.do(Assign{Proc: p, Slot: s.id, Count: s.config.Count})
}

// introduced: the process that was asked for waits at its gate.
func (s *slot) introduced(now policy.Instant, ev Introduced) {
	switch {
	case s.assigned || s.sweeping:
	case s.state == StateKilling:
		s.pid = ev.PID
		s.fleet.signal(ev.Proc, policy.SIGKILL, true)
	case s.state == StateStarting:
		s.assign(now, ev.Proc, ev.PID, 0)
	}
}

// cannotBecome keeps why, for the exit that follows.
func (s *slot) cannotBecome(why string) {
	if s.assigned && !s.running {
		s.refusal = why
	}
}

// spawnFailed: it gets no process, or the one that it has must end.
func (s *slot) spawnFailed(now policy.Instant, why string) {
	if s.sweeping {
		return
	}
	s.result, s.refusal = policy.Resources, why
	switch {
	case !s.assigned && s.pid == 0:
		s.conclude(now, why)
	case s.state != StateKilling:
		s.kill(now, KindSlotStops, why)
	}
}

// runs: its process has left its gate.
func (s *slot) runs(now policy.Instant) {
	if s.state != StateStarting || !s.assigned || s.running {
		return // it was stopped meanwhile
	}
	s.running, s.refusal = true, ""
	s.fleet.spawns.add(now.Sub(s.requestedAt))
	if s.config.Oneshot {
		s.remark("", Debug, "running, its end is awaited")
		return
	}
	if s.policy().Notify && !s.early {
		s.remark("", Debug, "running, READY=1 is awaited")
		return
	}
	s.becomeReady(now)
}

func (s *slot) becomeReady(now policy.Instant) {
	s.readyAt, s.wasReady = now, true
	why := "running"
	if s.failures > 0 {
		why = fmt.Sprintf("running, after %s", times(s.failures, "failure"))
	}
	s.enter(now, StateReady, policy.Never, KindSlotReady, Info, why)
	s.beats(now)
	s.ages(now)
	if s.failures > 0 {
		s.wellAt = now.Add(s.policy().ResetAfter(s.lastDelay))
	}
	if s.moving {
		s.provenAt = now.Add(s.config.Roll.Settle)
	}
	if s.config.OnDemand {
		s.worker.demand.lookAt = now.Add(settleTime)
	}
	s.fleet.agenda.wasReady = true
}
