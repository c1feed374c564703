// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// TestProbeOfAStuckLoop gets its answer before who asks for it gives up.
func TestProbeOfAStuckLoop(t *testing.T) {
	o := monitors{newOperators(t)}
	began := time.Now()
	_, err := o.Look()
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "stuck") || took < probeTimeout || took > answerTimeout {
		t.Errorf("got %v, after %s", err, took)
	}
}

// TestProbeAtTheEnd is told so, and does not wait.
func TestProbeAtTheEnd(t *testing.T) {
	o := monitors{newOperators(t)}
	answers := make(chan error)
	go func() {
		_, err := o.Look()
		answers <- err
	}()
	testutil.Eventually(t, "the probe waits", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.looking) == 1
	})
	o.end()
	if err := <-answers; err == nil || err.Error() != endedText {
		t.Errorf("a probe that waited: %v", err)
	}
	if _, err := o.Sample(); err == nil || err.Error() != endedText {
		t.Errorf("a scrape that came later: %v", err)
	}
}

func TestSampleIsWhatOperatorsSee(t *testing.T) {
	o := monitors{newOperators(t)}
	seen := &sight{fleet: &control.Fleet{Name: "edge", Slots: []control.Slot{{Name: "web.0", MainPID: uint32(os.Getpid())}}}}
	seen.spawns.Counts[1], seen.spawns.Sum = 2, 3*time.Millisecond
	o.master, o.measuring = os.Getppid(), make(chan struct{}, 1) // so that this process passes for a slot
	go func() {
		testutil.Eventually(t, "the scrape waits", func() bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			return len(o.looking) == 1
		})
		o.show(seen)
	}()
	s, err := o.Sample()
	if err != nil {
		t.Fatal(err)
	}
	h := s.Spawns
	if s.Fleet.Slots[0].MemoryPrivate == 0 || len(h.Counts) != len(h.Bounds)+1 || h.Bounds[1] != 0.0025 || h.Counts[1] != 2 || h.Sum != 0.003 {
		t.Errorf("got %+v", s)
	}
	if seen.fleet.Slots[0].MemoryPrivate != 0 {
		t.Error("what others see was changed")
	}
}

// TestMetricsListenWhereTheFileSays, or say in one line what to do.
func TestMetricsListenWhereTheFileSays(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // a test's
	path := filepath.Join(t.TempDir(), "metrics.sock")
	for _, c := range []struct{ listen, want string }{
		{path, ""},
		{path, ""}, // the file that is left is nobody's
		{"@prefork-test-metrics", ""},
		{taken.Addr().String(), "bind: address already in use; listen elsewhere, or stop who listens there"},
		{"192.0.2.1:80", "bind: cannot assign requested address; listen on an address that this machine has"},
		{"/nowhere/metrics.sock", "no such file or directory; listen elsewhere"},
	} {
		file, err := fleetfile.Parse("edge", "/etc/prefork/edge.toml", []byte(fmt.Sprintf("[metrics]\nlisten = %q\n", c.listen)))
		if err != nil {
			t.Fatal(err)
		}
		m := &master{file: file, operators: newOperators(t)}
		err = m.openMetrics()
		prefix := "/etc/prefork/edge.toml: metrics.listen: " + c.listen + ": "
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.listen, err)
		case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), prefix) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %s%s", c.listen, err, prefix, c.want)
		}
		m.operators.end()
		m.closeMetrics()
	}
	if found, _ := filepath.Glob(path); found != nil {
		t.Error("the socket's file is left")
	}
}
