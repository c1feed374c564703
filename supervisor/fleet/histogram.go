// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"slices"
	"time"
)

// Histogram counts durations. Counts has one more than SpawnBounds, each is of
// those that are at most its bound and above the one before.
type Histogram struct {
	Counts [len(SpawnBounds) + 1]uint64
	Sum    time.Duration
}

// SpawnBounds are the bounds of how long slots take from when their process is
// asked for until it runs.
var SpawnBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

func (h *Histogram) add(d time.Duration) {
	i, _ := slices.BinarySearch(SpawnBounds[:], d)
	h.Counts[i]++
	h.Sum += d
}
