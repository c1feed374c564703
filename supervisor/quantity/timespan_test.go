// SPDX-License-Identifier: AGPL-3.0-or-later

package quantity_test

import (
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/quantity"
)

// The rows are what "systemd-analyze timespan" of systemd 252 prints.
func TestTimeSpanIsReadAsBySystemd(t *testing.T) {
	for text, usec := range map[string]int64{
		"5": 5e6, "1s": 1e6, "1min 30s": 90e6, "1.5s": 1500000, ".5s": 500000,
		"1m30s": 90e6, "500ms": 500e3, "2h": 7200e6, "1d": 86400e6, "1w": 604800e6,
		"1y": 31557600e6, "1M": 2629800e6, "1month": 2629800e6, "5us": 5, "5 µs": 5,
		"5μs": 5, "1 2s": 3e6, "1.5": 1500000, "+5s": 5e6, "1.2 .3": 1500000,
		"1 min": 60e6, "3hr": 10800e6, "1h1h": 7200e6, "0.0000001": 0, "0": 0,
		"1s500ms": 1500000, "1month 2w": 3839400e6, "1.999999999s": 1999999,
		"1\ts": 1e6, "2minutes3seconds4msec5usec": 123004005, "5 +5": 10e6, "1sec2": 3e6,
		" 7s ": 7e6, "1years 1days": 31644000e6,
	} {
		got, err := quantity.ParseTimeSpan(text)
		if want := time.Duration(usec) * time.Microsecond; err != nil || got != want {
			t.Errorf("ParseTimeSpan(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"infinity", " infinity "} {
		if got, err := quantity.ParseTimeSpan(text); err != nil || got != policy.Forever {
			t.Errorf("ParseTimeSpan(%q) = %v, %v, want fleet.Forever", text, got, err)
		}
	}
}

func TestTimeSpanThatSystemdRefusesIsRefused(t *testing.T) {
	for _, text := range []string{
		"", " ", "-5s", "5.s", "1.2.3", "1mins", "1x", "1e3", "99999999999y",
		"18446744073709551615", "infinity 5", "+ 5", "1.+5", "s", ".", "+.5", "++5", "5 -1",
		"infinitys", "1 x",
	} {
		if got, err := quantity.ParseTimeSpan(text); err == nil {
			t.Errorf("ParseTimeSpan(%q) = %v, want an error", text, got)
		}
	}
	// systemd counts in microseconds and can go further than a Duration.
	if got, err := quantity.ParseTimeSpan("293y"); err == nil {
		t.Errorf("ParseTimeSpan(293y) = %v, want an error", got)
	}
}

func TestFormatTimeSpanUsesTheLargestUnits(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0": 0, "1min 30s": 90 * time.Second, "2w 1d 3h": 363 * time.Hour,
		"1s 500ms": 1500 * time.Millisecond, "3us": 3*time.Microsecond + 7, "infinity": policy.Forever,
	} {
		if got := quantity.FormatTimeSpan(d); got != want {
			t.Errorf("FormatTimeSpan(%d) = %q, want %q", d, got, want)
		}
	}
}

func FuzzTimeSpan(f *testing.F) {
	for _, s := range []string{"1min 30s", ".5", "infinity", "1.2 .3", "99999999999y", "5 µs", "1M1m", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := quantity.ParseTimeSpan(s)
		if err != nil {
			if !strings.Contains(err.Error(), "; ") {
				t.Errorf("ParseTimeSpan(%q): no remedy in %q", s, err)
			}
			return
		}
		if d < 0 || d != policy.Forever && d%time.Microsecond != 0 {
			t.Fatalf("ParseTimeSpan(%q) = %d", s, d)
		}
		if again, err := quantity.ParseTimeSpan(quantity.FormatTimeSpan(d)); err != nil || again != d {
			t.Errorf("ParseTimeSpan(%q) = %d, printed %q, read again as %d, %v", s, d, quantity.FormatTimeSpan(d), again, err)
		}
	})
}
