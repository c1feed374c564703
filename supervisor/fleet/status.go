// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// tally counts slots by what matters to the fleet as a whole.
type tally struct {
	slots, ready, listening, exited, failed, troubled int // ready counts listening too
	held                                              int // of exited: stopped by an operator, who may start them
	frozen                                            int

	worst *slot // in trouble; nil if none is
}

func (n tally) finished() int { return n.exited + n.failed }

func (n tally) ending() string {
	if n.failed > 0 {
		return fmt.Sprintf("nothing is left to run: %s failed", times(n.failed, "slot"))
	}
	return "nothing is left to run: every slot has finished"
}

func (f *Fleet) count() tally {
	var n tally
	var worst time.Duration
	for _, s := range f.slots {
		if s.role != current {
			continue
		}
		n.slots++
		switch s.state {
		case StateReady:
			n.ready++
		case StateListening:
			n.ready++
			n.listening++
		case StateExited:
			n.exited++
		case StateFailed:
			n.failed++
		default:
		}
		if s.held && s.state == StateExited {
			n.held++
		}
		if s.frozen {
			n.frozen++
		}
		if t := s.trouble(); t > 0 {
			n.troubled++
			if t > worst {
				n.worst, worst = s, t
			}
		}
	}
	return n
}

// judge looks at the fleet as a whole: is it ready, is it over?
func (f *Fleet) judge(now policy.Instant) {
	n := f.count()
	switch code, vital := f.vitalEnd(); {
	case f.phase == stopping:
	case vital != "":
		f.stop(now, code, vital)
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
	f.watchSockets(n)
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
func (f *Fleet) serve(now policy.Instant) {
	f.phase, f.agenda.startDeadline = serving, policy.Never
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
func (f *Fleet) startTimeout(now policy.Instant, n tally) {
	limit := policy.Span(f.cfg.TimeoutStart)
	if n.ready > 0 {
		f.serve(now)
		f.reportKind(KindFleetDegraded, Warning, fmt.Sprintf("fleet is ready, but degraded: %d of %d slots after %s (timeout_start_sec)",
			n.ready, n.slots, limit))
		return
	}
	why := fmt.Sprintf("no slot was ready within %s (timeout_start_sec)", limit)
	if f.floor.state == floorLoading {
		why = fmt.Sprintf("floor: %s did not finish within %s (timeout_start_sec)", f.floor.doing(), limit)
	} else {
		why += f.blocker(n)
	}
	f.stop(now, 1, why)
}

// timeIsUp ends a fleet that was to run for a while. If nothing of it has ever been
// ready, it has failed.
func (f *Fleet) timeIsUp(now policy.Instant) {
	n := f.count()
	if f.agenda.wasReady || n.exited > 0 {
		f.stop(now, 0, "time is up (--stop-after)")
		return
	}
	f.stop(now, 1, "time is up (--stop-after), and no slot was ready"+f.blocker(n))
}

// blocker says what keeps slots from being ready, as far as it is known.
func (f *Fleet) blocker(n tally) string {
	switch s := n.worst; {
	case f.floor.state == floorLoading:
		return "; floor: " + f.floor.doing()
	case f.floor.cause != "":
		return "; floor: " + f.floor.cause
	case s != nil:
		return fmt.Sprintf("; %s: %s", s.name, s.why)
	}
	return ""
}

func (f *Fleet) quit(now policy.Instant) {
	f.phase = ended
	f.refreshStatus(now)
	f.report(Notice, "fleet shut down")
	f.do(Quit{Code: f.stopping.code, Why: f.stopping.why})
}

// refreshStatus says Status when it has changed.
func (f *Fleet) refreshStatus(now policy.Instant) {
	if text := f.describe(now); text != f.status {
		f.status = text
		f.do(Status{Text: text})
	}
}

// describe answers in one line: is it well, and if not, what is next?
func (f *Fleet) describe(now policy.Instant) string {
	switch f.phase {
	case ended:
		return f.lastStatus()
	case stopping:
		left := times(f.live(), "process") + " left"
		if f.stopping.code != 0 {
			return fmt.Sprintf("failed: %s; %s%s", f.stopping.why, left, f.stopOrder())
		}
		return "stopping: " + left + f.stopOrder()
	case starting, serving, draining:
	}
	n := f.count()
	parts := []string{fmt.Sprintf("%d/%d ready", n.ready, n.slots)}
	if n.listening > 0 {
		parts[0] += fmt.Sprintf(" (%d listening)", n.listening)
	}
	if stopped := n.held; stopped > 0 {
		parts = append(parts, fmt.Sprintf("%d stopped", stopped))
	}
	if n.frozen > 0 {
		parts = append(parts, fmt.Sprintf("%d frozen", n.frozen))
	}
	if finished := n.exited - n.held; finished > 0 {
		parts = append(parts, fmt.Sprintf("%d finished", finished))
	}
	if text := f.orderInStatus(); text != "" {
		parts = append(parts, text)
	}
	if len(f.unserved) > 0 {
		parts = append(parts, fmt.Sprintf("socket %s: no slot is left that serves it, clients wait", strings.Join(f.unserved, ", ")))
	}
	parts = append(parts, f.saturated()...)
	if f.change != nil {
		parts = append(parts, f.change.inStatus())
	}
	if text := f.floor.inStatus(now); text != "" {
		parts = append(parts, text)
	}
	if n.worst != nil {
		parts = append(parts, n.worst.inStatus(now))
	}
	if n.troubled > 1 {
		parts = append(parts, fmt.Sprintf("%d more in trouble", n.troubled-1))
	}
	if f.phase == draining {
		parts = slices.Insert(parts, 0, "draining: stops in "+policy.Span(f.agenda.drainedAt.Sub(now)))
	}
	return strings.Join(parts, "; ")
}

func (f *Fleet) lastStatus() string {
	if f.stopping.code != 0 {
		return "failed: " + f.stopping.why
	}
	return "stopped: " + f.stopping.why
}

func (l *floor) inStatus(now policy.Instant) string {
	switch l.state {
	case floorLoading:
		return "floor: " + l.doing()
	case floorWaiting:
		return fmt.Sprintf("floor is lost (%s) and loads again in %s, successors wait", l.cause, policy.Span(l.due.Sub(now)))
	case floorEnding:
		return "floor is being replaced: " + l.cause
	case floorNone, floorUp:
	}
	return ""
}

// trouble orders slots for the operator: what gave up first, then what cannot
// go on, then what waits longest for its restart. 0 is no trouble.
func (s *slot) trouble() time.Duration {
	const gaveUp, stuck = policy.Forever, policy.Forever - 1
	switch {
	case s.state == StateFailed:
		return gaveUp
	case s.state == StateKilling, s.state == StateStopping:
		return stuck
	case s.failures == 0 && s.state != StateReady:
		return 0
	case s.state == StateWaiting:
		return min(s.lastDelay, stuck-2) + 1
	case s.state == StateStarting:
		return 1
	default:
		if t := s.worstTask(); t != nil {
			return t.trouble()
		}
		return 0
	}
}

// live counts the processes of a fleet that stops.
func (f *Fleet) live() int {
	n := 0
	for _, l := range f.floors {
		n += len(l.pool.spares)
		if l.proc != 0 {
			n++
		}
	}
	for _, s := range f.slots {
		if s.proc != 0 {
			n++
		}
	}
	return n
}

func (s *slot) inStatus(now policy.Instant) string {
	if t := s.worstTask(); t != nil {
		return t.inStatus(now, s.name)
	}
	cause := s.cause()
	switch s.state {
	case StateFailed:
		return fmt.Sprintf("%s failed (%s)", s.name, cause)
	case StateWaiting:
		next := "waits for the floor"
		if !s.blocked {
			next = "restarts in " + policy.Span(s.due.Sub(now))
		}
		return fmt.Sprintf("%s %s (%s, %s in a row)", s.name, next, cause, ordinal(s.failures))
	case StateStarting:
		return fmt.Sprintf("%s starting (attempt %d)", s.name, s.failures+1)
	case StateStopping:
		if s.deadline != policy.Never && (s.hung.next == 0 || s.sweeping) {
			return fmt.Sprintf("%s stopping (%s; SIGKILL in %s)", s.name, s.why, policy.Span(s.deadline.Sub(now)))
		}
	case StateReady, StateKilling, StateExited, StateListening:
	}
	return fmt.Sprintf("%s %s (%s)", s.name, s.state, s.why)
}

// cause is the result with what makes it concrete: "exit-code 1".
func (s *slot) cause() string {
	switch s.result {
	case policy.ExitCode, policy.Signalled, policy.CoreDump:
		text := fmt.Sprintf("%s %s", s.result, s.exit)
		if s.lament != "" {
			text += ": " + s.lament
		}
		return text
	case policy.StartLimitHit:
		return fmt.Sprintf("%s after %s", s.result, s.led)
	case policy.Resources:
		return fmt.Sprintf("%s: %s", s.result, s.refusal)
	default:
		return string(s.result)
	}
}

// endOf is the end of the process that a change of the state is about.
func (s *slot) endOf(from State) End {
	switch {
	case s.state.live():
		return End{Result: s.result}
	case s.state == StateFailed && !from.live(): // it was not started again
		return End{Result: s.result, Exit: policy.NoExit, Failures: s.failures}
	case from.live():
		end := End{Result: s.result, Exit: s.exit, Usage: s.usage, Failures: s.failures}
		if s.state == StateWaiting {
			end.Delay = s.waits
		}
		return end
	default:
		return End{}
	}
}

// describe says how the slot's process ended.
func (s *slot) describe() string {
	p := s.policy()
	text := fmt.Sprintf("exited with status %d", s.exit.Code)
	if s.exit.Signal != 0 {
		text = fmt.Sprintf("killed by %s", s.exit.Signal)
		if s.exit.Core {
			text += " (core dumped)"
		}
	}
	switch {
	case s.result == policy.OOMKill:
		text += " (out of memory)"
	case s.result == policy.Protocol:
		text += " before it sent READY=1"
	case s.result == "" && p.Clean(s.exit) && s.exit != (policy.Exit{}):
		text += " (a clean exit)"
	}
	return text
}

// times counts things: "1 process", "3 processes".
func times(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case what == "process":
		return fmt.Sprintf("%d processes", n)
	default:
		return fmt.Sprintf("%d %ss", n, what)
	}
}

// ordinal numbers things: "1st", "2nd".
func ordinal(n int) string {
	suffix := "th"
	switch {
	case n%100 >= 11 && n%100 <= 13:
	case n%10 == 1:
		suffix = "st"
	case n%10 == 2:
		suffix = "nd"
	case n%10 == 3:
		suffix = "rd"
	}
	return fmt.Sprintf("%d%s", n, suffix)
}
