// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// TestProbeOfAStuckLoop gets its answer before who asks for it gives up.
func TestProbeOfAStuckLoop(t *testing.T) {
	b := newBridge(t)
	o := monitors{b.clients}
	began := time.Now()
	_, err := o.Look()
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "stuck") || took < probeTimeout || took > answerTimeout {
		t.Errorf("got %v, after %s", err, took)
	}
}

// TestProbeAtTheEnd is told so, and does not wait.
func TestProbeAtTheEnd(t *testing.T) {
	b := newBridge(t)
	o := monitors{b.clients}
	answers := make(chan error)
	go func() {
		_, err := o.Look()
		answers <- err
	}()
	testutil.Eventually(t, "the probe waits", func() bool {
		b.clients.queue.mu.Lock()
		defer b.clients.queue.mu.Unlock()
		return len(b.clients.queue.looking) == 1
	})
	b.Close()
	if err := <-answers; err == nil || err.Error() != errEnded.Error() {
		t.Errorf("a probe that waited: %v", err)
	}
	if _, err := o.Sample(); err == nil || err.Error() != errEnded.Error() {
		t.Errorf("a scrape that came later: %v", err)
	}
}

func TestSampleIsWhatOperatorsSee(t *testing.T) {
	b := newBridge(t)
	o := monitors{b.clients}
	seen := &Snapshot{Fleet: &control.Status{Name: "edge", Slots: []control.SlotStatus{{Name: "web.0", MainPID: uint32(os.Getpid())}}}}
	seen.Spawns.Counts[1], seen.Spawns.Sum = 2, 3*time.Millisecond
	b.clients.gauge.master = os.Getppid() // so that this process passes for a slot
	go func() {
		testutil.Eventually(t, "the scrape waits", func() bool {
			b.clients.queue.mu.Lock()
			defer b.clients.queue.mu.Unlock()
			return len(b.clients.queue.looking) == 1
		})
		b.Show(seen)
	}()
	s, err := o.Sample()
	if err != nil {
		t.Fatal(err)
	}
	h := s.Spawns
	if s.Fleet.Slots[0].MemoryPrivate == 0 || len(h.Counts) != len(h.Bounds)+1 || h.Bounds[1] != 0.0025 || h.Counts[1] != 2 || h.Sum != 0.003 {
		t.Errorf("got %+v", s)
	}
	if seen.Fleet.Slots[0].MemoryPrivate != 0 {
		t.Error("what others see was changed")
	}
}
