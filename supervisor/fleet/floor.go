// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"

	"github.com/decnet/prefork/supervisor/policy"
)

type floorState int

const (
	floorNone    floorState = iota // not needed, or ended for good
	floorWaiting                   // until due
	floorLoading
	floorUp
	floorEnding // told to end, or killed
)

// floor is what loads once and forks workers, one generation after the other. due is set
// only while waiting.
type floor struct {
	fleet    *Fleet
	revision Revision // with which it is loaded
	needed   bool
	retired  bool // another has taken its place
	state    floorState
	loaded   bool // some generation was
	newest   int  // the number of the last that was
	due      policy.Instant
	deadline policy.Instant
	failures int
	pool     pool

	generation
}

// generation is one process of the floor. Each that is loaded is a new one.
type generation struct {
	number    int
	proc      Proc // only while loading, up or ending
	since     policy.Instant
	upAt      policy.Instant // Never until it is up
	forks     int            // that it takes at a time
	killed    bool           // SIGKILL was sent to it, or to what it left behind
	allKilled bool           // SIGKILL was sent to all that came from it
	sweeping  bool           // it has ended; what it left behind has not
	progress  string         // what it does while it loads
	cause     string         // why it cannot be used
}

// newFloor makes a floor that is not loaded yet.
func (f *Fleet) newFloor(revision Revision, needed bool) *floor {
	l := &floor{fleet: f, revision: revision, needed: needed, due: policy.Never, deadline: policy.Never}
	l.pool = pool{floor: l, due: policy.Never, deadline: policy.Never}
	f.floors = append(f.floors, l)
	return l
}

// begin has it loaded, if it is needed and nothing is there.
func (l *floor) begin(now policy.Instant) {
	if l.needed && l.state == floorNone {
		l.state, l.due = floorWaiting, now
	}
}

// ending reports whether it is not to be loaded again.
func (l *floor) ending() bool { return l.retired || l.fleet.phase == stopping }

// retire ends a floor that is not forked from any more. What it forked lives on.
func (l *floor) retire(now policy.Instant) {
	l.retired = true
	l.stop(now)
}

// gone reports whether nothing is left of a floor that is not needed any more.
func (l *floor) gone() bool { return l.retired && l.proc == 0 && l.pool.empty() }

// inWords is its state as who looks at the fleet is told: "" if it is not needed.
func (l *floor) inWords() string {
	if !l.needed {
		return ""
	}
	return [...]string{"ended", "lost", "loading", "loaded", "ending"}[l.state]
}

func (l *floor) doing() string {
	if l.progress == "" {
		return "starting the interpreter"
	}
	return l.progress
}

func (l *floor) advance(now policy.Instant) {
	switch {
	case l.state == floorWaiting && now >= l.due:
		l.load(now)
	case now < l.deadline:
	case l.state == floorEnding && l.killed:
		l.unkillable(now)
	case l.sweeping:
		l.report("", Warning, fmt.Sprintf("floor: what it left behind did not end within %s; sent SIGKILL", policy.Span(leftGrace)))
		l.killAll(now, l.cause)
	case l.state == floorEnding:
		l.end(now, fmt.Sprintf("did not end within %s", policy.Span(floorStopGrace)))
	case l.state == floorLoading:
		l.end(now, fmt.Sprintf("%s did not finish within %s (timeout_start_sec)",
			l.doing(), policy.Span(l.fleet.cfg.TimeoutStart)))
	}
}

func (l *floor) load(now policy.Instant) {
	l.fleet.last.generation++
	l.generation = generation{number: l.fleet.last.generation, proc: l.fleet.newProc(), since: now, upAt: policy.Never}
	l.state, l.due, l.deadline = floorLoading, policy.Never, policy.Never
	if l.fleet.phase == serving || l.fleet.phase == draining {
		l.limitLoading(now)
	}
	l.fleet.do(LoadFloor{Proc: l.proc, Generation: l.number, Revision: l.revision})
}

// limitLoading sets a deadline for a floor that loads while the fleet serves.
// While the fleet starts, its own deadline is enough.
func (l *floor) limitLoading(now policy.Instant) {
	if l.state == floorLoading {
		l.deadline = now.Timeout(l.fleet.cfg.TimeoutStart)
	}
}

func (l *floor) progressed(ev FloorProgress) {
	if ev.Proc == l.proc && l.state == floorLoading {
		l.progress = ev.Text
	}
}

func (l *floor) becameLoaded(now policy.Instant, ev FloorLoaded) {
	if ev.Proc != l.proc || l.state != floorLoading {
		return
	}
	l.state, l.loaded, l.newest, l.upAt, l.deadline = floorUp, true, l.number, now, policy.Never
	l.forks = max(1, ev.Forks)
	l.report(KindFloorLoaded, Info, fmt.Sprintf("floor is loaded, in %s", policy.Span(now.Sub(l.since))))
}

// broke keeps the cause; the end of the process follows and decides.
func (l *floor) broke(now policy.Instant, ev FloorBroken) {
	if ev.Proc == l.proc && ev.Proc != 0 && l.state != floorEnding {
		l.end(now, ev.Text)
	}
}

// end kills a floor that is of no use. What it forked lives on, and the
// helpers that it started end as those of a slot do.
func (l *floor) end(now policy.Instant, cause string) {
	l.state, l.killed, l.cause, l.deadline = floorEnding, true, cause, now.Add(killGrace)
	l.fleet.signal(l.proc, policy.SIGKILL, false)
}

// killAll kills a floor and its helpers.
func (l *floor) killAll(now policy.Instant, cause string) {
	l.state, l.killed, l.allKilled, l.cause, l.deadline = floorEnding, true, true, cause, now.Add(killGrace)
	l.fleet.signal(l.proc, policy.SIGKILL, true)
}

// unkillable lets go of a floor that does not end from SIGKILL, or whose
// left-overs do not, where nothing would be gained by waiting for it.
func (l *floor) unkillable(now policy.Instant) {
	l.deadline = policy.Never
	why := fmt.Sprintf("floor: %s; does not end %s after SIGKILL", l.cause, policy.Span(killGrace))
	if l.sweeping {
		why = fmt.Sprintf("floor: %s; what it left behind does not end %s after SIGKILL", l.cause, policy.Span(killGrace))
	}
	switch {
	case l.fleet.phase == stopping:
		l.fleet.blame(why)
		l.proc, l.state, l.sweeping = 0, floorNone, false
	case l.sweeping:
		l.report("", Err, why+"; not waited for")
		l.nextGeneration(now, l.cause)
	case l.retired:
		l.report("", Err, why+"; not waited for")
	case l.fleet.tries(l):
		l.fleet.change.fail(now, ChangeFailed, why)
	default:
		l.report(KindFloorLost, Err, why+"; successors wait for it")
		if c := l.fleet.change; c != nil && c.floor == l {
			c.fail(now, ChangeFailed, why)
		}
	}
}

// exited takes the end of the floor's process.
func (l *floor) exited(now policy.Instant, ev Exited) {
	how := howItEnded(ev.Exit)
	if ev.Left == 0 {
		l.nextGeneration(now, how)
		return
	}
	if l.cause == "" {
		l.cause = how
	}
	l.sweeping = true
	if l.allKilled {
		l.killAll(now, l.cause)
		return
	}
	l.state, l.killed, l.deadline = floorEnding, false, now.Add(leftGrace)
	l.report("", Info, fmt.Sprintf("floor %s; %s that it left behind got SIGTERM, SIGKILL follows in %s",
		how, times(ev.Left, "process"), policy.Span(leftGrace)))
	l.fleet.signal(l.proc, policy.SIGTERM, true)
}

// nextGeneration ends a generation. The first one that cannot be loaded ends the
// fleet; a later one is loaded again while workers serve on.
func (l *floor) nextGeneration(now policy.Instant, how string) {
	if l.cause == "" {
		l.cause = how
	}
	l.proc, l.deadline, l.sweeping = 0, policy.Never, false
	l.pool.abandon() // its answer would be taken for the next generation's
	switch {
	case l.ending():
	case l.upAt == policy.Never:
		l.fleet.loadFailures++
	default:
		l.fleet.floorLosses++
	}
	switch {
	case l.ending():
		l.state = floorNone
	case l.fleet.tries(l):
		l.state = floorNone
		l.fleet.change.fail(now, ChangeFailed, "floor: "+l.cause)
	case l.fleet.phase == starting && !l.loaded:
		l.state = floorNone
		l.fleet.stop(now, 1, "floor: "+l.cause)
	default:
		l.lost(now)
	}
}

// lost makes the next generation wait, longer each time in a row.
func (l *floor) lost(now policy.Instant) {
	what := "is lost"
	if l.upAt == policy.Never {
		what = "cannot be loaded"
	} else if now.Sub(l.upAt) >= maxFloorBackoff {
		l.failures = 0
	}
	l.failures++
	delay := policy.Backoff(floorBackoff, maxFloorBackoff, l.failures)
	l.state, l.due = floorWaiting, now.Add(delay)
	l.report(KindFloorLost, Err, fmt.Sprintf("floor %s: %s; loading again in %s, workers serve on, successors wait",
		what, l.cause, policy.Span(delay)))
}

// stop ends the floor of a fleet that stops.
func (l *floor) stop(now policy.Instant) {
	l.pool.stop(now)
	l.due = policy.Never
	switch l.state {
	case floorUp:
		l.state, l.deadline = floorEnding, now.Add(floorStopGrace)
		l.fleet.do(StopFloor{Proc: l.proc})
	case floorLoading:
		l.end(now, "stopped")
	case floorWaiting:
		l.state = floorNone
	case floorEnding:
		if l.deadline == policy.Never { // it was reported as one that cannot be killed
			l.deadline = now.Add(killGrace)
		}
	case floorNone:
	}
}

func (l *floor) report(kind Kind, level Level, text string) {
	l.fleet.do(Report{Level: level, Kind: kind, Generation: l.number, Text: text})
}

func howItEnded(e policy.Exit) string {
	if e.Signal != 0 {
		return "killed by " + e.Signal.String()
	}
	return fmt.Sprintf("exited with status %d", e.Code)
}
