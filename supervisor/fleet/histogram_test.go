// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// TestSpawnsAreCounted: how long a start takes is counted when its process runs,
// and a restart by the result that it follows.
func TestSpawnsAreCounted(t *testing.T) {
	p := play(t, fleetOf(execWorker("w", 1)))
	p.wait(3 * time.Millisecond)
	p.run("w.0")
	p.exit("w.0", status1)
	p.untilDue()
	p.wait(time.Millisecond)
	p.run("w.0")
	v := p.see()
	want := Histogram{Sum: 4 * time.Millisecond}
	want.Counts[0], want.Counts[2] = 1, 1 // at most 1 ms, and 2.5 to 5 ms
	if v.Spawns != want {
		t.Errorf("got %+v, want %+v", v.Spawns, want)
	}
	if by := v.Slots[0].ByResult; len(by) != 1 || by[policy.ExitCode] != 1 {
		t.Errorf("restarts by result: %v", by)
	}
	var h Histogram
	h.add(time.Hour)
	if h.Counts[len(SpawnBounds)] != 1 {
		t.Errorf("an hour is counted as %+v", h)
	}
}
