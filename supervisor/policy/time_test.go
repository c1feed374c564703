// SPDX-License-Identifier: AGPL-3.0-or-later

package policy

import (
	"testing"
	"time"
)

func TestInstants(t *testing.T) {
	for _, c := range []struct {
		i    Instant
		d    time.Duration
		want Instant
	}{
		{5, 7, 12},
		{5, Forever, Never},
		{Never, 1, Never},
		{Never, -1, Never},
		{Never - 5, 5, Never},
		{Never - 5, 4, Never - 1},
		{Never - 5, 6, Never},
	} {
		if got := c.i.Add(c.d); got != c.want {
			t.Errorf("%d.Add(%d) = %d, want %d", c.i, c.d, got, c.want)
		}
	}
	if got := Instant(9).Sub(4); got != 5 {
		t.Errorf("9 - 4 = %d", got)
	}
	if got := Never.Sub(4); got != Forever {
		t.Errorf("never - 4 = %d, want forever", got)
	}
	if a, b := Instant(4).Timeout(0), Instant(4).Timeout(2); a != Never || b != 6 {
		t.Errorf("got timeouts %d and %d, want never and 6", a, b)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-5 * sec:                  "0ms",
		0:                         "0ms",
		250 * ms:                  "250ms",
		999*ms + 400*1000:         "999ms",
		999*ms + 600*1000:         "1s",
		sec:                       "1s",
		1500 * ms:                 "1.5s",
		9940 * ms:                 "9.9s",
		9960 * ms:                 "10s",
		59*sec + 400*ms:           "59s",
		59*sec + 600*ms:           "1min",
		125 * sec:                 "2min 5s",
		time.Hour - 300*ms:        "1h",
		200 * time.Minute:         "3h 20min",
		24*time.Hour - sec:        "1d",
		49*time.Hour + 10*sec:     "2d 1h",
		48*time.Hour - time.Hour:  "1d 23h",
		Forever:                   "infinity",
		90 * sec:                  "1min 30s",
		time.Hour + 29*sec:        "1h",
		2*time.Hour - 10*sec:      "2h",
		time.Hour + 2*time.Minute: "1h 2min",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%s) = %q, want %q", d, got, want)
		}
	}
}
