// SPDX-License-Identifier: AGPL-3.0-or-later

package quantity_test

import (
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/quantity"
)

func TestSizeIsReadAsBySystemd(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "4096": 4096, "200M": 200 << 20, "1.5G": 3 << 29, "1K": 1024, "12B": 12,
		"1G 500M": 1<<30 + 500<<20, "1E": 1 << 60, "10.M": 10 << 20, " 2 T ": 2 << 40, "15E": 15 << 60,
		"infinity": quantity.Infinity, "18446744073709551614": quantity.Infinity - 1,
	} {
		if got, err := quantity.ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "-1", "M", "1X", "500M 1G", "16E", "18446744073709551616", "1K1K", ".5M", "1 k",
		" infinity", "infinity 1K", "18446744073709551615",
	} {
		if got, err := quantity.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestFormatSizeUsesTheLargestUnitThatIsExact(t *testing.T) {
	for want, n := range map[string]uint64{
		"0": 0, "1023": 1023, "1K": 1024, "1025": 1025, "1536M": 3 << 29, "15E": 15 << 60, "infinity": quantity.Infinity,
	} {
		if got := quantity.FormatSize(n); got != want {
			t.Errorf("FormatSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"200M", "1.5G", "1G 500M", "infinity", "15.999999999999999999E", "10.M", "-1"} {
		f.Add(s, uint64(len(s))<<40)
	}
	f.Add("0.9B", quantity.Infinity)
	f.Fuzz(func(t *testing.T, s string, any uint64) {
		n, err := quantity.ParseSize(s)
		if err != nil && !strings.Contains(err.Error(), "; ") {
			t.Errorf("ParseSize(%q): no remedy in %q", s, err)
		}
		if err == nil && n == quantity.Infinity && s != "infinity" {
			t.Errorf("ParseSize(%q) is infinity", s)
		}
		for _, n := range []uint64{n, any} {
			if again, err := quantity.ParseSize(quantity.FormatSize(n)); err != nil || again != n {
				t.Errorf("%d is printed %q and read again as %d, %v", n, quantity.FormatSize(n), again, err)
			}
		}
	})
}
