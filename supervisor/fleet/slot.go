// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"time"
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

// slot is one process of a worker, by an index that survives restarts.
//
// proc is set exactly while the slot has a process or left-overs of one, or (for
// an exec worker) a request for one. due is set only while waiting; deadline
// only while starting, reloading, stopping or killing; beatDue only while
// ready.
type slot struct {
	id            SlotID
	worker, index int
	name          string

	state State
	why   string  // of the state, for the operator
	since Instant // of the state

	proc       Proc
	pid        int
	generation int
	told       bool // it was told to go
	runs       bool // it has left its gate
	saidReady  bool // before that was heard
	reloading  bool // it serves meanwhile
	sweeping   bool // its process has ended; what it left behind has not
	killed     bool // SIGKILL was sent to all of it
	result     Result
	exit       Exit
	refusal    string // why it could not become the slot, in its own words
	usage      Usage
	status     string // STATUS= of its process
	errno      string
	watchdog   time.Duration // of its process

	due      Instant
	deadline Instant
	beatDue  Instant // the next keep-alive
	forgiven int     // times that its delay was, since the last one
	woken    bool    // a connection waits for it to start
	held     bool    // an operator has stopped it
	frozen   bool    // by an operator; its deadline and beatDue do not pass meanwhile
	frozenAt Instant // while it is
	again    bool    // an operator wants it to start once it has ended
	blocked  bool    // due, but there is no floor to fork from

	dueAt     Instant // when its process was asked for
	startedAt Instant
	readyAt   Instant
	endedAt   Instant // once its process has ended
	wasReady  bool
	readyFor  time.Duration // once its process has ended
	failures  int           // in a row
	lastDelay time.Duration // before the last restart, jitter apart
	waits     time.Duration // before the next start
	starts    []Instant     // the last ones, for the start limit

	begun      int                  // starts in all
	restarts   [len(allResults)]int // by the result of the process before
	lastResult Result               // of the last process that has ended
}

func (f *Fleet) policy(s *slot) *Policy { return &f.cfg.Workers[s.worker].Policy }
func (f *Fleet) entry(s *slot) bool     { return f.cfg.Workers[s.worker].Entry }

// setState is the only place that writes a slot's state.
func (f *Fleet) setState(s *slot, to State, level Level, why string) {
	from := s.state
	if from != to {
		s.since = f.now
	}
	s.state, s.why = to, why
	text := why
	if from != to {
		text = fmt.Sprintf("%s -> %s: %s", from, to, why)
	}
	f.do(Report{
		Level: level, Kind: s.kindOf(from), Slot: s.name, PID: s.pid, Generation: s.generation, Text: text,
		End: s.endOf(from),
	})
}

// live tells whether a slot in this state has a process, or waits for one.
func (s State) live() bool {
	return s == StateStarting || s == StateReady || s == StateStopping || s == StateKilling
}

func (f *Fleet) owned(p Proc) *slot {
	id, ok := f.owners[p]
	if !ok || p == 0 {
		return nil
	}
	return &f.slots[id]
}

// advanceSlot does what is due for one slot.
func (f *Fleet) advanceSlot(now Instant, s *slot) {
	if s.frozen {
		return // it cannot do what it is expected to
	}
	switch s.state {
	case StateWaiting:
		if now >= s.due || s.blocked && f.canFork() {
			f.start(now, s)
		}
	case StateStarting:
		if now >= s.deadline {
			f.startSlotTimeout(now, s)
		}
	case StateReady:
		switch {
		case now >= s.beatDue:
			f.abort(now, s, fmt.Sprintf("no WATCHDOG=1 for %s (watchdog_sec)", Span(s.watchdog)))
		case now >= s.deadline:
			f.reloadTimeout(s)
		}
	case StateStopping:
		if now >= s.deadline {
			f.stopTimeout(now, s)
		}
	case StateKilling:
		if now >= s.deadline {
			f.unkillable(now, s)
		}
	case StateListening, StateExited, StateFailed:
	}
}

func (f *Fleet) startSlotTimeout(now Instant, s *slot) {
	s.result = Timeout
	what := "start"
	if s.runs {
		what = "send READY=1"
	}
	f.stopSlot(now, s, fmt.Sprintf("did not %s within %s (timeout_start_sec)%s", what,
		Span(f.policy(s).TimeoutStart), s.words()))
}

// start gives a slot that is due a process, or makes it wait for one.
func (f *Fleet) start(now Instant, s *slot) {
	listen := f.onDemand(s) && !s.woken
	if f.entry(s) && !f.canFork() && !(listen && f.floor.loaded) {
		s.due, s.blocked = Never, true
		return
	}
	s.due, s.blocked, s.woken = Never, false, false
	if listen {
		f.listen(s)
		return
	}
	if !f.startAllowed(now, s) {
		f.giveUp(s, StartLimitHit, fmt.Sprintf("%d starts within %s (start_limit_burst)",
			f.policy(s).StartLimitBurst, Span(f.policy(s).StartLimitPeriod)))
		return
	}
	s.begun++
	if i := slices.Index(allResults[:], s.lastResult); i >= 0 {
		s.restarts[i]++
	}
	s.again = false
	s.dueAt, s.startedAt, s.wasReady, s.readyFor = now, now, false, 0
	s.result, s.exit, s.refusal = "", noExit, ""
	s.usage, s.status, s.errno = Usage{}, "", ""
	f.setState(s, StateStarting, Debug, "due")
	if !f.entry(s) {
		p := f.newProc()
		f.own(s, p)
		s.deadline = now.timeout(f.policy(s).TimeoutStart)
		f.do(StartShim{Proc: p, Slot: s.id})
		return
	}
	f.pool.queue = append(f.pool.queue, s.id)
	f.serveQueue(now)
}

// startAllowed keeps the times of the last StartLimitBurst starts: the limit is
// hit if all of them lie within the period.
func (f *Fleet) startAllowed(now Instant, s *slot) bool {
	p := f.policy(s)
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

func (f *Fleet) own(s *slot, p Proc) {
	s.proc = p
	f.owners[p] = s.id
}

// release lets go of the slot's process: it has been reaped, or never was.
func (f *Fleet) release(s *slot) {
	delete(f.owners, s.proc)
	s.proc, s.pid, s.generation, s.told, s.runs, s.saidReady, s.sweeping, s.killed = 0, 0, 0, false, false, false, false, false
}

// tell names the process that waits at its gate and says go. This is its start:
// the slot may have waited long for a process.
func (f *Fleet) tell(now Instant, s *slot, p Proc, pid, generation int) {
	f.own(s, p)
	s.pid, s.generation, s.told, s.startedAt = pid, generation, true, now
	if n := len(s.starts); n > 0 {
		s.starts[n-1] = now
	}
	s.watchdog = f.policy(s).Watchdog
	s.deadline = now.timeout(f.policy(s).TimeoutStart)
	f.do(Go{Proc: p, Slot: s.id})
}

func (f *Fleet) running(now Instant, ev Running) {
	s := f.owned(ev.Proc)
	if s == nil || s.state != StateStarting || !s.told || s.runs {
		return // it was stopped meanwhile, or is not ours
	}
	s.runs, s.refusal = true, ""
	f.spawns.add(now.Sub(s.dueAt))
	if f.policy(s).Notify && !s.saidReady {
		f.setState(s, StateStarting, Debug, "running, READY=1 is awaited")
		return
	}
	f.becomeReady(now, s)
}

func (f *Fleet) becomeReady(now Instant, s *slot) {
	s.deadline, s.readyAt, s.wasReady = Never, now, true
	why := "running"
	if s.failures > 0 {
		why = fmt.Sprintf("running, after %s", times(s.failures, "failure"))
	}
	f.setState(s, StateReady, Info, why)
	f.beat(now, s)
	if f.onDemand(s) {
		f.demands[s.worker].lookAt = now.Add(settleTime)
	}
}

// leaveReady ends what holds only while the slot is ready.
func (f *Fleet) leaveReady(s *slot) {
	s.beatDue, s.reloading = Never, false
}

func (f *Fleet) refused(ev Refused) {
	if s := f.owned(ev.Proc); s != nil && s.told && !s.runs {
		s.refusal = ev.Text // shown with the exit that follows
	}
}

// early is the result where the exit alone does not tell it: the kernel ended
// the process for its memory, or it ended cleanly before it was ready.
func (f *Fleet) early(s *slot, ev Exited) Result {
	switch {
	case ev.OOM && ev.Exit.Signal == SIGKILL:
		return OOMKill
	case s.state == StateStarting && f.policy(s).Notify && !s.saidReady && f.policy(s).clean(ev.Exit):
		return Protocol
	default:
		return ""
	}
}

// settle decides what becomes of a slot that has no process any more.
func (f *Fleet) settle(now Instant, s *slot) {
	what := f.describe(s)
	if s.refusal != "" {
		what += ": " + s.refusal
	}
	if s.wasReady {
		what += fmt.Sprintf(" after %s", Span(s.readyFor))
	}
	if s.result == Timeout {
		what += ", timed out"
	}
	if s.result != "" || !f.policy(s).clean(s.exit) {
		what += s.words()
	}
	f.conclude(now, s, what)
}

// conclude applies the restart policy to the result of the slot's last process.
func (f *Fleet) conclude(now Instant, s *slot, what string) {
	if s.result == "" {
		s.result = f.policy(s).result(s.exit)
	}
	s.lastResult = s.result
	s.deadline = Never
	again, rule := f.policy(s).shouldRestart(s.result, s.exit)
	switch {
	case f.phase == stopping, s.held:
		f.setState(s, StateExited, Info, what)
	case s.again:
		f.again(now, s, Info, f.sooner(now, s), what)
	case s.result == Success && f.onDemand(s) && !f.policy(s).RestartPrevent.has(s.exit):
		f.again(now, s, Info, f.listenDelay(now, s), what)
	case again && s.result == Success:
		f.again(now, s, Info, f.cleanDelay(now, s), what)
	case again:
		f.backOff(now, s, what)
	case s.result == Success:
		f.setState(s, StateExited, Info, fmt.Sprintf("%s; finished (%s)", what, rule))
	default:
		f.setState(s, StateFailed, Err, fmt.Sprintf("%s: %s; will not be restarted (%s)", s.result, what, rule))
	}
	f.release(s)
}

// cleanDelay: a clean exit restarts without backoff, but never faster than once
// per RestartSec.
func (f *Fleet) cleanDelay(now Instant, s *slot) time.Duration {
	s.failures = 0
	return max(0, s.startedAt.Add(max(f.policy(s).RestartSec, minStartInterval)).Sub(now))
}

func (f *Fleet) backOff(now Instant, s *slot, what string) {
	p := f.policy(s)
	if s.wasReady && s.readyFor >= p.resetAfter(s.lastDelay) {
		s.failures = 0
	}
	s.failures++
	s.lastDelay = backoff(p.RestartSec, p.RestartMaxDelay, s.failures)
	delay := s.lastDelay + min(f.jitter(s.lastDelay), Forever-s.lastDelay)
	delay = max(delay, s.startedAt.Add(minStartInterval).Sub(now))
	f.again(now, s, Warning, delay, fmt.Sprintf("%s: %s", s.result, what))
}

// again makes the slot wait for its next start.
func (f *Fleet) again(now Instant, s *slot, level Level, delay time.Duration, what string) {
	s.due, s.waits = now.Add(delay), delay
	next := "starts again"
	if f.onDemand(s) {
		next = "listens again"
	}
	if delay > 0 {
		next += " in " + Span(delay)
	} else {
		next += " now"
	}
	if s.failures > 0 {
		next += fmt.Sprintf(" (%s failure in a row)", ordinal(s.failures))
	}
	f.setState(s, StateWaiting, level, what+"; "+next)
}

// giveUp ends a slot that could have been started again.
func (f *Fleet) giveUp(s *slot, r Result, why string) {
	s.result, s.lastResult = r, r
	f.setState(s, StateFailed, Err, fmt.Sprintf("%s: %s; gave up", r, why))
}

// ended settles a slot that had no process when the fleet stopped.
func (f *Fleet) ended(s *slot) {
	s.due, s.deadline, s.blocked, s.woken = Never, Never, false, false
	f.setState(s, StateExited, Debug, "stopped")
}
