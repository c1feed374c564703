// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// idleTidier is one that does nothing by itself.
func idleTidier(t *testing.T) *tidier {
	tidier := &tidier{}
	tidier.due.timer = time.AfterFunc(math.MaxInt64, func() {})
	t.Cleanup(tidier.stop)
	return tidier
}

func (t *tidier) isDue() time.Duration {
	t.due.Lock()
	defer t.due.Unlock()
	if t.due.at.IsZero() {
		return 0
	}
	return max(time.Until(t.due.at), 1)
}

// Whoever collects reads the tables of the runtime, which are let go of afterwards, each
// time.
func TestCollectionsAreTidied(t *testing.T) {
	tidier := idleTidier(t)
	for range 3 {
		tidier.tidy()
		if tidier.isDue() != 0 {
			t.Error("nothing has happened since, and it is due")
		}
		runtime.GC()
		testutil.Eventually(t, "it is due", func() bool { return tidier.isDue() != 0 })
	}
}

// What follows a change does not put it off, and a look brings it forward.
func TestWhenItIsTidied(t *testing.T) {
	tidier := idleTidier(t)
	tidier.within(afterAChange)
	first := tidier.due.at
	tidier.within(afterAChange)
	if tidier.due.at != first {
		t.Error("another change has put it off")
	}
	tidier.within(afterALook)
	if due := tidier.isDue(); due == 0 || due > afterALook {
		t.Errorf("after a look it is due in %s", due)
	}
	tidier.within(afterAChange)
	if due := tidier.isDue(); due > afterALook {
		t.Errorf("a change has put it off by %s", due)
	}
	tidier.tidy()
	if tidier.isDue() != 0 || tidier.littered.Load() {
		t.Error("it has been tidied, and is due")
	}
}
