// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"fmt"
	"testing"
)

// A worker's own memory stays small, and a collection must not unshare the
// floor. The test compares floors with and without gc.freeze(), side by side.
func TestMemoryOfWorkerStaysSmall(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		frozen, thawed := collect(t, python, true), collect(t, python, false)
		t.Logf("private kB: at the gate %d, in its entry %d, after gc.collect() %d; without gc.freeze() %d",
			frozen.gate, frozen.idle, frozen.collected, thawed.collected)
		if 2*frozen.collected > thawed.collected {
			t.Errorf("after a collection %d kB with gc.freeze(), %d without: want less than half", frozen.collected, thawed.collected)
		}
	})
}

type memory struct{ gate, idle, collected int }

func collect(t *testing.T, python string, freeze bool) memory {
	t.Helper()
	z := load(t, python, func(f *LoadRequest) {
		f.GCFreeze = freeze
		f.Preload = []string{"probe", "asyncio", "http.server", "email.message", "decimal", "xml.dom.minidom", "argparse"}
	})
	w := z.fork()
	m := memory{gate: private(t, w.pid)}
	r := w.run("entry=probe:memory")
	if _, err := fmt.Sscan(r.output, &m.idle, &m.collected); err != nil {
		t.Fatalf("%v: %q", err, r.output)
	}
	return m
}
