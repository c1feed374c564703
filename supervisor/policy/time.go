// SPDX-License-Identifier: AGPL-3.0-or-later

package policy

import (
	"fmt"
	"math"
	"time"
)

// Instant is a point in time: nanoseconds of CLOCK_MONOTONIC. It is a plain
// number so that a fleet's state can be handed to another program.
type Instant int64

// Never is the deadline that does not pass.
const Never Instant = math.MaxInt64

// Forever is a duration that never passes ("infinity" in a fleet file).
const Forever time.Duration = 1<<63 - 1

// Add returns the instant d after i, or Never if there is none.
func (i Instant) Add(d time.Duration) Instant {
	if i == Never || d == Forever || int64(d) > int64(Never)-int64(i) {
		return Never
	}
	return i + Instant(d)
}

// Sub returns the time from j to i, which is Forever if i is Never.
func (i Instant) Sub(j Instant) time.Duration {
	if i == Never {
		return Forever
	}
	return time.Duration(i - j)
}

// Timeout is Add for a timeout, of which there is none if d is 0.
func (i Instant) Timeout(d time.Duration) Instant {
	if d <= 0 {
		return Never
	}
	return i.Add(d)
}

// Span prints d as systemd prints time spans, to the precision that an operator
// needs: "250ms", "1.5s", "8s", "2min 5s", "3h 20min".
func Span(d time.Duration) string {
	switch {
	case d == Forever:
		return "infinity"
	case d.Round(time.Millisecond) < time.Second:
		return fmt.Sprintf("%dms", max(d, 0).Round(time.Millisecond).Milliseconds())
	case d.Round(100*time.Millisecond) < 10*time.Second:
		if d = d.Round(100 * time.Millisecond); d%time.Second != 0 {
			return fmt.Sprintf("%.1fs", d.Seconds())
		}
		return fmt.Sprintf("%ds", d/time.Second)
	case d.Round(time.Second) < time.Minute:
		return fmt.Sprintf("%ds", d.Round(time.Second)/time.Second)
	case d.Round(time.Second) < time.Hour:
		return twoUnits(d.Round(time.Second), time.Minute, "min", time.Second, "s")
	case d.Round(time.Minute) < 24*time.Hour:
		return twoUnits(d.Round(time.Minute), time.Hour, "h", time.Minute, "min")
	default:
		return twoUnits(d.Round(time.Hour), 24*time.Hour, "d", time.Hour, "h")
	}
}

func twoUnits(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	if rest := d % big / small; rest != 0 {
		return fmt.Sprintf("%d%s %d%s", d/big, bigName, rest, smallName)
	}
	return fmt.Sprintf("%d%s", d/big, bigName)
}
