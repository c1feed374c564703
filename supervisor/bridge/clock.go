// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"time"

	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/policy"
)

// Clock tells clients the time: it knows one moment on two clocks.
type Clock struct {
	monotonic policy.Instant
	real      time.Time
}

// NewClock knows the present moment.
func NewClock() Clock { return Clock{poll.Now(), time.Now()} }

// Adjust takes a new moment if the clocks have moved against each other: else one
// instant is the same time whenever it is looked at.
func (c *Clock) Adjust(now Clock) {
	const most = 100 * time.Millisecond
	if drift := now.real.Sub(c.real.Add(now.monotonic.Sub(c.monotonic))); drift > most || drift < -most {
		*c = now
	}
}

// At is an instant in microseconds of CLOCK_REALTIME, 0 for one that never comes.
func (c Clock) At(i policy.Instant) uint64 {
	if i == policy.Never {
		return 0
	}
	return uint64(c.real.Add(i.Sub(c.monotonic)).UnixMicro())
}
