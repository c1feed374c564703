// SPDX-License-Identifier: AGPL-3.0-or-later

package gauge

import (
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/memory"
)

func TestText(t *testing.T) {
	r := &memory.Report{
		Fleet: "edge",
		Floors: []memory.FloorReport{
			{Generation: 1, PID: 7, Base: memory.Base{Anonymous: 100 << 20, Files: 20 << 20}},
			{Generation: 2, PID: 8, Problem: "another user's: ask root"},
		},
		Slots: []memory.SlotReport{
			{
				Name: "web.0", State: "ready", PID: 9, Generation: 1, Charged: 12 << 20,
				Share: memory.Share{
					Shared: 90 << 20, Written: 10 << 20, Own: 4 << 10, Files: 6 << 20,
					WrittenIn: map[memory.Kind]uint64{memory.Heap: 6 << 20, memory.Arenas: 4 << 20},
				},
				Why: &memory.Why{
					Interpreter: "3.14.2", Causes: []memory.CauseBytes{{Cause: memory.Counts, Bytes: 8 << 20, Alone: 6 << 20, Key: "floor.immortal"}, {Cause: memory.Unknown, Bytes: 2 << 20}},
					Modules: []memory.OwnerBytes{{Module: "app.models", Bytes: 5 << 20}, {Module: "typing", Bytes: 1 << 20}},
				},
			},
			{Name: "web.1", State: "waiting"},
			{Name: "web.2", State: "ready", PID: 10, Generation: 2, Problem: "another user's: ask root"},
		},
	}
	r.Sum()
	var b strings.Builder
	if err := Write(&b, r, 80); err != nil {
		t.Fatal(err)
	}
	const want = `edge: floor of generation 1, process 7: 100.0M to share, 20.0M of files
edge: floor of generation 2, process 8: another user's: ask root

SLOT   GEN  SHARED  OF FLOOR  WRITTEN  OWN  FILES  CHARGED  WRITTEN IN
web.0    1   90.0M     90.0%    10.0M   4K   6.0M    12.0M  heap 6.0M
web.1  no process: it is waiting
web.2  another user's: ask root

1 process shares 100.0M once. Written since the fork: 10.0M.

web.0 has written 10.0M of its floor (CPython 3.14.2):
  WRITTEN  ALONE  BECAUSE OF                          SHARED WITH
     8.0M   6.0M  reference counts                    floor.immortal
     2.0M      -  free memory, or C's data
  objects of app.models 5.0M, typing 1.0M
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
