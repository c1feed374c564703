// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"

	"github.com/decnet/prefork/supervisor/policy"
)

// stopRequested stops the fleet; asked once more, it kills. One that is to drain first takes
// the second request for the end of that.
func (f *Fleet) stopRequested(now policy.Instant, why string) {
	again := f.stopping.asked
	f.stopping.asked = true
	switch {
	case f.phase == serving && f.cfg.StopDelay > 0:
		f.drain(now, why)
	case f.phase == draining:
		f.stop(now, 0, why+" again: no more delay")
	case again:
		f.killAll(now, why+" again")
	case f.phase == stopping:
		f.report(Notice, why+": already stopping; repeat it to kill what is left")
	default:
		f.stop(now, 0, why)
	}
}

// drain lets the fleet serve on for a while, so that who sends it work hears that it stops
// before that is so. What ends is started again, and a change that is under way goes on;
// none begins.
func (f *Fleet) drain(now policy.Instant, why string) {
	f.phase, f.stopping.why = draining, why
	f.agenda.drainedAt = now.Add(f.cfg.StopDelay)
	if f.cfg.Extend {
		f.agenda.nextExtend = now
	}
	f.dropPending()
	f.endReloading()
	f.do(Draining{})
	f.reportKind(KindFleetDrains, Notice, fmt.Sprintf("fleet drains: %s; it serves on, and stops in %s (stop_delay_sec); repeat it to stop now",
		why, policy.Span(f.cfg.StopDelay)))
}

// vitalEnd is the slot whose end is that of the fleet, and with which status; "" if there is
// none. One that a change is about to replace gets another chance; a failure comes first.
func (f *Fleet) vitalEnd() (code int, why string) {
	for _, s := range f.slots {
		if !s.vital || s.role != current || f.change != nil && f.change.has(s) {
			continue
		}
		if s.state == StateFailed {
			return 1, fmt.Sprintf("%s failed (failure_action = %q): %s", s.name, policy.EndExit, s.why)
		}
		if why == "" {
			why = fmt.Sprintf("%s finished (success_action = %q): %s", s.name, policy.EndExit, s.why)
		}
	}
	return 0, why
}
