// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"strings"
	"time"
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

// refreshStatus says Status when it has changed.
func (f *Fleet) refreshStatus(now Instant) {
	if text := f.describe(now); text != f.status {
		f.status = text
		f.do(Status{Text: text})
	}
}

// describe answers in one line: is it well, and if not, what is next?
func (f *Fleet) describe(now Instant) string {
	switch f.phase {
	case ended:
		return f.lastStatus()
	case stopping:
		left := times(f.live(), "process") + " left"
		if f.stopping.code != 0 {
			return fmt.Sprintf("failed: %s; %s", f.stopping.why, left)
		}
		return "stopping: " + left
	case starting, serving:
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
	return strings.Join(parts, "; ")
}

func (f *Fleet) lastStatus() string {
	if f.stopping.code != 0 {
		return "failed: " + f.stopping.why
	}
	return "stopped: " + f.stopping.why
}

func (l *floor) inStatus(now Instant) string {
	switch l.state {
	case floorLoading:
		return "floor: " + l.doing()
	case floorWaiting:
		return fmt.Sprintf("floor is lost (%s) and loads again in %s, successors wait", l.cause, Span(l.due.Sub(now)))
	case floorEnding:
		return "floor is being replaced: " + l.cause
	case floorNone, floorUp:
	}
	return ""
}

// trouble orders slots for the operator: what gave up first, then what cannot
// go on, then what waits longest for its restart. 0 is no trouble.
func (s *slot) trouble() time.Duration {
	const gaveUp, stuck = Forever, Forever - 1
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

func (s *slot) inStatus(now Instant) string {
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
			next = "restarts in " + Span(s.due.Sub(now))
		}
		return fmt.Sprintf("%s %s (%s, %s in a row)", s.name, next, cause, ordinal(s.failures))
	case StateStarting:
		return fmt.Sprintf("%s starting (attempt %d)", s.name, s.failures+1)
	default:
		return fmt.Sprintf("%s %s (%s)", s.name, s.state, s.why)
	}
}

// cause is the result with what makes it concrete: "exit-code 1".
func (s *slot) cause() string {
	switch s.result {
	case ExitCode, Signalled, CoreDump:
		return fmt.Sprintf("%s %s", s.result, s.exit)
	case Resources:
		return fmt.Sprintf("%s: %s", s.result, s.refusal)
	default:
		return string(s.result)
	}
}

func (c *change) inStatus() string {
	switch c.phase {
	case phaseLoading:
		return fmt.Sprintf("%s: the new floor is being loaded (%s)", c.Kind, c.floor.doing())
	case phaseReturning:
		return fmt.Sprintf("%s %s (%s), going back", c.Kind, c.result, c.why)
	case phaseProving, phaseRolling:
	}
	if c.Kind == ChangeRecycle {
		return fmt.Sprintf("%s is being recycled", c.Slots[0])
	}
	return fmt.Sprintf("%s: %d of %d slots done", c.Kind, c.moved, c.of)
}
