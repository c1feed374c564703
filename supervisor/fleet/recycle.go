// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// A slot is recycled when its process is to be replaced though nothing is wrong with it:
//
//	ready ── old, grown, has asked ──> wanted ── its turn ──> a change of that slot alone
//	                                     ^                       │
//	                                     └── failed, put off ────┤
//	                                                             └──> a successor has its place
//
// The change is rolled as a restart is. There is one at a time in a fleet, it begins only
// when nobody else changes the fleet, and gives way to whatever an operator wants: the
// slot is wanted then as before. One that fails leaves the process that serves.

const (
	// recycleBackoff is the delay after a recycling that has failed, of the whole worker:
	// what its successors lack, those of its other slots lack too. It doubles.
	recycleBackoff    = 30 * time.Second
	maxRecycleBackoff = time.Hour
)

// A process with recycle_private is measured this often: a measurement costs, and what
// grows fast must be seen in time. All are measured at the same times.
const (
	minMeasureEvery = 4 * time.Second
	maxMeasureEvery = 32 * time.Second // a power of two times the other
)

// wish is why a process is to be recycled; "" is not.
type wish struct {
	reason  policy.RecycleReason
	because string // for the operator: "212M private (recycle_private = 200M)"
	atOnce  bool   // it had too much memory when it was measured first
}

// recycling is when and why a process is to be recycled. It belongs to a slot that is ready.
type recycling struct {
	wish
	recycleAt   policy.Instant // when it becomes wanted
	wantedSince policy.Instant // Never: it is not wanted
}

// meter is what is known of the memory of a process with recycle_private.
type meter struct {
	measureAt  policy.Instant
	measuring  bool           // Measure was asked for and is not answered
	private    uint64         // when it was last measured; 0 before that
	measuredAt policy.Instant // the same; when it was ready before that
}

func newRun() run {
	r := run{beat: beat{beatDue: policy.Never}, wellAt: policy.Never}
	r.forget()
	return r
}

// forget is for a process that is not ready any more, or is looked at anew.
func (r *run) forget() {
	r.recycling = recycling{recycleAt: policy.Never, wantedSince: policy.Never}
	r.meter = meter{measureAt: policy.Never}
}

// ages begins to look at a process that is ready, or begins anew by another file.
func (s *slot) ages(now policy.Instant) {
	asked := s.wish
	s.forget()
	r := &s.config.Recycle
	switch {
	case asked.reason == policy.RecycleRequests || asked.reason == policy.RecycleAsked:
		s.wish, s.recycleAt = asked, max(now+1, s.readyAt.Add(policy.MinRecycleAge))
	case r.After > 0:
		s.recycleAt = max(now+1, s.readyAt.Add(r.After).Add(s.fleet.jitter(r.After)))
	}
	if r.Private > 0 {
		s.measuredAt = s.readyAt
		s.measureAt = max(s.readyAt.Add(s.firstMeasure()), onGrid(now, minMeasureEvery))
	}
}

// firstMeasure is how long after it is ready a process is measured first. Where it is at
// once too large each time, a limit is below what a worker needs: it is recycled less and
// less often then.
func (s *slot) firstMeasure() time.Duration {
	return policy.Backoff(policy.MinRecycleAge, maxRecycleBackoff, 1+s.tooLarge)
}

// onGrid is the next point in time that is a multiple of a duration.
func onGrid(now policy.Instant, every time.Duration) policy.Instant {
	return now - now%policy.Instant(every) + policy.Instant(every)
}

// wear does what is due of a process that is ready.
func (s *slot) wear(now policy.Instant) {
	if now >= s.recycleAt {
		s.recycleAt, s.wantedSince = policy.Never, now
		if s.reason == "" {
			s.wish = wish{reason: policy.RecycleAge, because: fmt.Sprintf("after %s (recycle_after)", policy.Span(s.config.Recycle.After))}
		}
	}
	if now >= s.measureAt {
		s.measureAt, s.measuring = policy.Never, true
		s.fleet.do(Measure{Proc: s.proc})
	}
}

// wishes wants a slot to be recycled, not before its process has been ready for a while.
func (s *slot) wishes(now policy.Instant, reason policy.RecycleReason, because string) {
	if s.reason != "" || s.state != StateReady && s.state != StateStarting {
		return
	}
	s.wish = wish{reason: reason, because: because}
	if s.state == StateReady {
		s.recycleAt = max(now, s.readyAt.Add(policy.MinRecycleAge))
	}
}

// asks takes the wish of a process to be replaced.
func (s *slot) asks(now policy.Instant, reason policy.RecycleReason) {
	if n := s.config.Recycle.Requests; reason == policy.RecycleRequests && n > 0 {
		s.wishes(now, reason, fmt.Sprintf("after %s (recycle_requests)", times(n, "request")))
		return
	}
	s.wishes(now, policy.RecycleAsked, "its process has asked for it")
}

// measured takes how much memory a process has of its own.
func (s *slot) measured(now policy.Instant, ev Measured) {
	limit := s.config.Recycle.Private
	if !s.measuring || limit == 0 {
		return
	}
	s.measuring = false
	switch {
	case ev.Why != "":
		s.report("", Warning, "its memory cannot be measured, so that recycle_private has no effect: "+ev.Why, End{})
	case ev.Private >= limit:
		have, most := mebibytes(ev.Private), mebibytes(limit)
		because := fmt.Sprintf("%s private (recycle_private = %s)", have, most)
		atOnce := s.private == 0 && now.Sub(s.readyAt) < 2*s.firstMeasure()
		if atOnce {
			because = fmt.Sprintf("%s private, %s after it was ready (recycle_private = %s: too low?)", have, policy.Span(now.Sub(s.readyAt)), most)
		}
		s.wishes(now, policy.RecyclePrivate, because)
		s.atOnce = atOnce && s.reason == policy.RecyclePrivate
	default:
		s.tooLarge = 0
		s.measureAt = onGrid(now, s.measureEvery(now, ev.Private, limit))
		s.private, s.measuredAt = ev.Private, now
	}
}

// measureEvery is half of the time in which a process reaches its limit if it goes on to
// grow as it did.
func (s *slot) measureEvery(now policy.Instant, private, limit uint64) time.Duration {
	every := maxMeasureEvery
	if private > s.private {
		pace := float64(private-s.private) / max(1e-3, now.Sub(s.measuredAt).Seconds())
		left := float64(limit-private) / pace
		for every > minMeasureEvery && every.Seconds() > left/2 {
			every /= 2
		}
	}
	return every
}

// mebibytes prints a size as an operator writes it.
func mebibytes(n uint64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/(1<<20)), ".0") + "M"
}

// recycle begins to recycle the slot that has waited longest, if nothing else changes the
// fleet.
func (f *Fleet) recycle(now policy.Instant) {
	for _, w := range f.workers {
		if now >= w.recycleAgain {
			w.recycleAgain = policy.Never
		}
	}
	if f.change != nil || f.pending != nil || f.phase != serving {
		return
	}
	var next *slot
	for _, s := range f.slots {
		if s.canBeRecycled() && (next == nil || s.wantedSince < next.wantedSince) {
			next = s
		}
	}
	if next == nil {
		return
	}
	f.last.change++
	c := &change{
		proposal: proposal{Propose{Kind: ChangeRecycle, Revision: f.revision, Slots: []string{next.name}}, f.last.change},
		fleet:    f, cfg: f.cfg, floor: f.floor, recycles: next.wish,
		todo: []*slot{next}, untried: []*worker{next.worker}, of: 1,
	}
	f.change = c
	next.remark("", Info, "is being recycled: "+next.because)
	c.advance(now)
}

// canBeRecycled reports whether a slot is wanted, and nothing speaks against it now. What
// does ends with an event. While a floor is lost, its spares are for those that crash.
func (s *slot) canBeRecycled() bool {
	return s.wantedSince != policy.Never && s.role == current && s.state == StateReady && !s.frozen && !s.reloading &&
		s.worker.recycleAgain == policy.Never && !s.worker.drains(s.index) && (!s.config.Entry || s.floor.state == floorUp)
}

// isRecycled ends a recycling: a process was ready for long enough in the slot's place.
func (s *slot) isRecycled(c *change, place string) {
	s.recycled[slices.Index(policy.RecycleReasons[:], c.recycles.reason)]++
	s.worker.recycleFailures = 0
	s.remark(KindSlotRecycled, Notice, "recycled: "+c.recycles.because+place)
}

// yields ends a recycling for what somebody wants.
func (f *Fleet) yields(now policy.Instant, to string) {
	if c := f.change; c != nil && c.Kind == ChangeRecycle {
		c.fail(now, ChangeSuperseded, to)
	}
}

// putOff ends a recycling that has come to nothing.
func (c *change) putOff(now policy.Instant, result, why string) {
	f := c.fleet
	f.change = nil
	s := f.named(c.Slots[0])
	if s == nil {
		return
	}
	if result == ChangeSuperseded {
		if s.state == StateReady && s.reason != "" { // else it was replaced already
			s.remark("", Info, fmt.Sprintf("is recycled later (%s): %s", c.recycles.because, why))
		}
		return
	}
	w := s.worker
	w.recycleFailures++
	delay := policy.Backoff(recycleBackoff, maxRecycleBackoff, w.recycleFailures)
	delay += f.jitter(delay)
	w.recycleAgain = now.Add(delay)
	text := fmt.Sprintf("not recycled (%s): %s: %s", c.recycles.because, result, strings.TrimPrefix(why, s.name+": "))
	if s.state == StateReady {
		s.remark(KindSlotNotRecycled, Warning, fmt.Sprintf("%s; its process goes on, next attempt in %s", text, policy.Span(delay)))
		return
	}
	s.report(KindSlotNotRecycled, Warning, text, End{})
}

// byReason is nil for a slot that was never recycled.
func (r *record) byReason() (by map[policy.RecycleReason]int) {
	for i, n := range r.recycled {
		if n > 0 && by == nil {
			by = map[policy.RecycleReason]int{}
		}
		if n > 0 {
			by[policy.RecycleReasons[i]] = n
		}
	}
	return by
}
