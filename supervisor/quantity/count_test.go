// SPDX-License-Identifier: AGPL-3.0-or-later

package quantity

import "testing"

func TestCounts(t *testing.T) {
	for text, want := range map[string]struct {
		text string
		of3  int // on a machine with three processors
	}{
		"0": {"0", 0}, "4": {"4", 4}, "007": {"7", 7}, "1000000": {"1000000", 1000000},
		"cpu": {"cpu", 3}, "1*cpu": {"cpu", 3}, "2*cpu": {"2*cpu", 6}, "cpu+1": {"cpu+1", 4}, "cpu+0": {"cpu", 3},
		"2*cpu+1": {"2*cpu+1", 7}, " 2 * cpu + 1 ": {"2*cpu+1", 7},
	} {
		c, err := ParseCount(text)
		if err != nil || c.String() != want.text || c.Of(3) != want.of3 {
			t.Errorf("%q: got %s, %d and %v, want %s, %d", text, c, c.Of(3), err, want.text, want.of3)
		}
		if again, err := ParseCount(c.String()); err != nil || again != c {
			t.Errorf("%q is read back as %v, %v", c, again, err)
		}
	}
	for _, text := range []string{
		"", " ", "-1", "+1", "1.5", "CPU", "cpus", "0*cpu", "cpu*2", "cpu-1", "cpu/2", "2cpu", "*cpu", "2*", "cpu+", "cpu+-1", "cpu+1+1",
		"2*2*cpu", "1+cpu", "1_0", "c pu", "1000001", "99999999999999999999*cpu", "4 4", "auto", "٣",
	} {
		if c, err := ParseCount(text); err == nil {
			t.Errorf("%q is %s", text, c)
		}
	}
}

func FuzzCount(f *testing.F) {
	f.Add("2*cpu+1")
	f.Add("12")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCount(text)
		if err != nil {
			return
		}
		if again, err := ParseCount(c.String()); err != nil || again != c || c.Of(1<<20) < 0 {
			t.Errorf("%q is %s, and then %v, %v", text, c, again, err)
		}
	})
}
