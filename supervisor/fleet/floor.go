// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import "fmt"

type floorState int

const (
	floorNone    floorState = iota // not needed, or ended for good
	floorWaiting                   // until due
	floorLoading
	floorUp
	floorEnding // told to end, or killed
)

// floor is the process that loads once and forks workers. due is set only
// while waiting; proc only while loading, up or ending.
type floor struct {
	needed     bool
	state      floorState
	proc       Proc
	generation int
	loaded     bool // some generation was
	killed     bool // SIGKILL was sent to this one, or to what it left behind
	allKilled  bool // SIGKILL was sent to all that came from it
	sweeping   bool // this one has ended; what it left behind has not
	since      Instant
	upAt       Instant // Never until this one is up
	due        Instant
	deadline   Instant
	failures   int
	progress   string // what it does while it loads
	cause      string // why it cannot be used
}

func (l *floor) doing() string {
	if l.progress == "" {
		return "starting the interpreter"
	}
	return l.progress
}

func (f *Fleet) advanceFloor(now Instant) {
	l := &f.floor
	switch {
	case l.state == floorWaiting && now >= l.due:
		f.loadFloor(now)
	case now < l.deadline:
	case l.state == floorEnding && l.killed:
		f.unkillableFloor(now)
	case l.sweeping:
		f.reportFloor("", Warning, fmt.Sprintf("floor: what it left behind did not end within %s; sent SIGKILL", Span(leftGrace)))
		f.killFloor(now, l.cause)
	case l.state == floorEnding:
		f.endFloor(now, fmt.Sprintf("did not end within %s", Span(floorStopGrace)))
	case l.state == floorLoading:
		f.endFloor(now, fmt.Sprintf("%s did not finish within %s (timeout_start_sec)",
			l.doing(), Span(f.cfg.TimeoutStart)))
	}
}

func (f *Fleet) loadFloor(now Instant) {
	l := &f.floor
	l.generation++
	l.proc, l.state, l.killed, l.allKilled = f.newProc(), floorLoading, false, false
	l.since, l.upAt, l.due, l.deadline = now, Never, Never, Never
	l.progress, l.cause = "", ""
	if f.phase == serving {
		f.limitLoading(now)
	}
	f.do(LoadFloor{Proc: l.proc, Generation: l.generation})
}

// limitLoading sets a deadline for a floor that loads while the fleet serves.
// While the fleet starts, its own deadline is enough.
func (f *Fleet) limitLoading(now Instant) {
	if f.floor.state == floorLoading {
		f.floor.deadline = now.timeout(f.cfg.TimeoutStart)
	}
}

func (f *Fleet) floorProgress(ev FloorProgress) {
	if ev.Proc == f.floor.proc && f.floor.state == floorLoading {
		f.floor.progress = ev.Text
	}
}

func (f *Fleet) floorLoaded(now Instant, ev FloorLoaded) {
	l := &f.floor
	if ev.Proc != l.proc || l.state != floorLoading {
		return
	}
	l.state, l.loaded, l.upAt, l.deadline = floorUp, true, now, Never
	f.reportFloor(KindFloorLoaded, Info, fmt.Sprintf("floor is loaded, in %s", Span(now.Sub(l.since))))
}

// floorBroken keeps the cause; the end of the process follows and decides.
func (f *Fleet) floorBroken(now Instant, ev FloorBroken) {
	if ev.Proc == f.floor.proc && ev.Proc != 0 && f.floor.state != floorEnding {
		f.endFloor(now, ev.Text)
	}
}

// endFloor kills a floor that is of no use. What it forked lives on, and the
// helpers that it started end as those of a slot do.
func (f *Fleet) endFloor(now Instant, cause string) {
	l := &f.floor
	l.state, l.killed, l.cause, l.deadline = floorEnding, true, cause, now.Add(killGrace)
	f.signal(l.proc, SIGKILL, false)
}

// killFloor kills a floor and its helpers.
func (f *Fleet) killFloor(now Instant, cause string) {
	l := &f.floor
	l.state, l.killed, l.allKilled, l.cause, l.deadline = floorEnding, true, true, cause, now.Add(killGrace)
	f.signal(l.proc, SIGKILL, true)
}

// unkillableFloor lets go of a floor that does not end from SIGKILL, or whose
// left-overs do not, where nothing would be gained by waiting for it.
func (f *Fleet) unkillableFloor(now Instant) {
	l := &f.floor
	l.deadline = Never
	why := fmt.Sprintf("floor: %s; does not end %s after SIGKILL", l.cause, Span(killGrace))
	if l.sweeping {
		why = fmt.Sprintf("floor: %s; what it left behind does not end %s after SIGKILL", l.cause, Span(killGrace))
	}
	switch {
	case f.phase == stopping:
		f.blame(why)
		l.proc, l.state, l.sweeping = 0, floorNone, false
	case l.sweeping:
		f.reportFloor("", Err, why+"; not waited for")
		f.floorExited(now, l.cause)
	default:
		f.reportFloor(KindFloorLost, Err, why+"; successors wait for it")
	}
}

// floorEnded takes the end of the floor's process.
func (f *Fleet) floorEnded(now Instant, ev Exited) {
	l := &f.floor
	how := howItEnded(ev.Exit)
	if ev.Left == 0 {
		f.floorExited(now, how)
		return
	}
	if l.cause == "" {
		l.cause = how
	}
	l.sweeping = true
	if l.allKilled {
		f.killFloor(now, l.cause)
		return
	}
	l.state, l.killed, l.deadline = floorEnding, false, now.Add(leftGrace)
	f.reportFloor("", Info, fmt.Sprintf("floor %s; %s that it left behind got SIGTERM, SIGKILL follows in %s",
		how, times(ev.Left, "process"), Span(leftGrace)))
	f.signal(l.proc, SIGTERM, true)
}

// floorExited ends a generation. The first one that cannot be loaded ends the
// fleet; a later one is loaded again while workers serve on.
func (f *Fleet) floorExited(now Instant, how string) {
	l := &f.floor
	if l.cause == "" {
		l.cause = how
	}
	l.proc, l.deadline, l.sweeping = 0, Never, false
	f.abandonRequest() // its answer would be taken for the next generation's
	switch {
	case f.phase == stopping:
		l.state = floorNone
	case f.phase == starting && !l.loaded:
		l.state = floorNone
		f.stop(now, 1, "floor: "+l.cause)
	default:
		f.floorLost(now)
	}
}

// floorLost makes the next generation wait, longer each time in a row.
func (f *Fleet) floorLost(now Instant) {
	l := &f.floor
	what := "is lost"
	if l.upAt == Never {
		what = "cannot be loaded"
	} else if now.Sub(l.upAt) >= floorBackoffMax {
		l.failures = 0
	}
	l.failures++
	delay := backoff(floorBackoff, floorBackoffMax, l.failures)
	l.state, l.due = floorWaiting, now.Add(delay)
	f.reportFloor(KindFloorLost, Err, fmt.Sprintf("floor %s: %s; loading again in %s, workers serve on, successors wait",
		what, l.cause, Span(delay)))
}

// stopFloor ends the floor of a fleet that stops.
func (f *Fleet) stopFloor(now Instant) {
	l := &f.floor
	l.due = Never
	switch l.state {
	case floorUp:
		l.state, l.deadline = floorEnding, now.Add(floorStopGrace)
		f.do(StopFloor{Proc: l.proc})
	case floorLoading:
		f.endFloor(now, "stopped")
	case floorWaiting:
		l.state = floorNone
	case floorEnding:
		if l.deadline == Never { // it was reported as one that cannot be killed
			l.deadline = now.Add(killGrace)
		}
	case floorNone:
	}
}

func (f *Fleet) reportFloor(kind Kind, level Level, text string) {
	f.do(Report{Level: level, Kind: kind, Generation: f.floor.generation, Text: text})
}

func howItEnded(e Exit) string {
	if e.Signal != 0 {
		return "killed by " + e.Signal.String()
	}
	return fmt.Sprintf("exited with status %d", e.Code)
}
