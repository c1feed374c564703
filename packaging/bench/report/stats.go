// SPDX-License-Identifier: AGPL-3.0-or-later

package report

import (
	"fmt"
	"math"
	"slices"
)

// Series is what was measured of one thing, in the order in which it was.
type Series []float64

// Quantile is the value below which a share q of them is, between two of them
// where it falls between.
func (s Series) Quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// Median is the middle one.
func (s Series) Median() float64 { return s.Quantile(0.5) }

// enough samples have deciles; of fewer the least and the most are told.
const enough = 20

// Spread is the first and the last decile, or the least and the most of a few.
func (s Series) Spread() (low, high float64) {
	if len(s) >= enough {
		return s.Quantile(0.1), s.Quantile(0.9)
	}
	return s.Quantile(0), s.Quantile(1)
}

// Variation is the coefficient of variation: the standard deviation as a share
// of the mean.
func (s Series) Variation() float64 {
	var sum, squares float64
	for _, x := range s {
		sum += x
	}
	mean := sum / float64(len(s))
	if len(s) == 0 || mean == 0 {
		return 0
	}
	for _, x := range s {
		squares += (x - mean) * (x - mean)
	}
	return math.Sqrt(squares/float64(len(s))) / mean
}

// String is the median, with the spread beside it.
func (s Series) String() string {
	if len(s) == 0 {
		return "-"
	}
	low, high := s.Spread()
	if low == high {
		return short(low)
	}
	return fmt.Sprintf("%s (%s–%s)", short(s.Median()), short(low), short(high))
}

// short keeps three digits that matter.
func short(x float64) string {
	switch size := math.Abs(x); {
	case x == math.Trunc(x) || size >= 1000:
		return fmt.Sprintf("%.0f", x)
	case size >= 100:
		return fmt.Sprintf("%.1f", x)
	case size >= 1:
		return fmt.Sprintf("%.2f", x)
	default:
		return fmt.Sprintf("%.3f", x)
	}
}
