// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/decnet/prefork/supervisor/memory"
)

const countingSource = `
import signal
import prefork
numbers = [float(n) for n in range(100_000)]
keep = []

def count():
    keep.append(list(numbers))
    prefork.ready()
    while True:
        signal.pause()
`

// TestMemoryOfAnImmortalFloor: a worker that uses 100,000 objects of its floor writes
// their reference counts; with an immortal floor it writes none.
func TestMemoryOfAnImmortalFloor(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		if m.Suite == "bookworm" {
			return // its Python has no immortal objects
		}
		m.WriteFile(t, "/opt/app/counting.py", countingSource)
		counts := func(immortal bool) memory.CauseBytes {
			name := map[bool]string{false: "mortal", true: "immortal"}[immortal]
			m.WriteFile(t, "/etc/prefork/"+name+".toml", fmt.Sprintf(`
[floor]
path = ["/opt/app"]
preload = ["counting"]
immortal = %v
[worker.count]
entry = "counting:count"
type = "notify"
`, immortal))
			m.Run(t, "systemctl", "start", "prefork@"+name+".service")
			var r memory.Report
			out := m.Run(t, "prefork", "memory", name, "count", "--why", "--json")
			if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Slots) == 0 || r.Slots[0].Why == nil {
				t.Fatalf("%s: %s: %v: %s", m.Suite, name, err, out)
			}
			for _, c := range r.Slots[0].Why.Causes {
				if c.Cause == memory.Counts {
					return c
				}
			}
			return memory.CauseBytes{}
		}
		if c := counts(false); c.Bytes < 2<<20 || c.Key != "floor.immortal" {
			t.Errorf("%s: mortal: %+v", m.Suite, c)
		}
		if c := counts(true); c.Bytes > 256<<10 || c.Key != "" {
			t.Errorf("%s: immortal: %+v", m.Suite, c)
		}
	})
}
