// SPDX-License-Identifier: AGPL-3.0-or-later

package quantity_test

import (
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/quantity"
)

func TestCPUQuotaIsTimePerSecond(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"20%": 200 * time.Millisecond, "100%": time.Second, "150%": 1500 * time.Millisecond,
		"12.5%": 125 * time.Millisecond, "0.01%": 100 * time.Microsecond, "007.05%": 70500 * time.Microsecond,
		"21474836.47%": 214748364700 * time.Microsecond,
	} {
		if got, err := quantity.ParseCPUQuota(text); err != nil || got != want {
			t.Errorf("ParseCPUQuota(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "%", "20", "0%", "0.00%", "-1%", "+1%", "1.%", ".1%", "1.234%", "1 %", " 1%", "1%%", "1e2%",
		"0x1%", "21474836.48%", "99999999999999999999%", "infinity",
	} {
		if got, err := quantity.ParseCPUQuota(text); err == nil {
			t.Errorf("ParseCPUQuota(%q) = %v, want an error", text, got)
		}
	}
}

func TestFormatCPUQuotaHasNoDecimalsThatSayNothing(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"20%": 200 * time.Millisecond, "12.5%": 125 * time.Millisecond, "7.05%": 70500 * time.Microsecond,
		"0.01%": 199 * time.Microsecond, "1000%": 10 * time.Second,
	} {
		if got := quantity.FormatCPUQuota(d); got != want {
			t.Errorf("FormatCPUQuota(%v) = %q, want %q", d, got, want)
		}
	}
}

func FuzzCPUQuota(f *testing.F) {
	for _, s := range []string{"20%", "12.34%", "0.1%", "21474836.47%", "1.%", "-1%", "00%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := quantity.ParseCPUQuota(s)
		if err != nil {
			if !strings.Contains(err.Error(), "; ") {
				t.Errorf("ParseCPUQuota(%q): no remedy in %q", s, err)
			}
			return
		}
		if d <= 0 || d%(100*time.Microsecond) != 0 {
			t.Fatalf("ParseCPUQuota(%q) = %d", s, d)
		}
		if again, err := quantity.ParseCPUQuota(quantity.FormatCPUQuota(d)); err != nil || again != d {
			t.Errorf("ParseCPUQuota(%q) = %d, printed %q, read again as %d, %v", s, d, quantity.FormatCPUQuota(d), again, err)
		}
	})
}
