// SPDX-License-Identifier: AGPL-3.0-or-later

package metrics

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
)

var update = flag.Bool("update", false, "write testdata anew")

func edge() *control.Status {
	return &control.Status{
		Name: "edge", ActiveState: "active", StatusText: "2/3 ready", Generation: 2, FloorState: "loaded", FloorLosses: 1, FloorLoadFailures: 3,
		FloorMemory: 104857600, Spares: 1, NotificationsDropped: 7, LinesLost: 8,
		Workers: []control.WorkerStatus{
			{Name: "web", Slots: 2, Ready: 2, Needs: 1}, {Name: "sniffer", Slots: 1, Waiting: 1}, {Name: "io", Slots: 1, Ready: 1},
		},
		Sockets: []control.SocketStatus{
			{Name: "http", Address: "0.0.0.0:8080", Type: "stream", Queue: 37, QueueLimit: 4096, Drops: 12},
			{Name: "http", Address: "/run/edge/web.sock", Type: "stream", QueueLimit: 128, Drops: -1},
			{Name: "far", Address: "@far", Type: "seqpacket", Queue: -1, QueueLimit: -1, Drops: -1},
			{Name: "syslog", Address: "[::]:514", Type: "datagram", Queue: 2304, QueueLimit: 212992, Drops: 3},
		},
		Slots: []control.SlotStatus{
			{Name: "web.0", Worker: "web", State: "ready", MemoryPrivate: 512000, MemoryShared: 98566144},
			{Name: "web.1", Worker: "web", State: "ready", NRestarts: 3, NRecycles: 2, Recycles: map[string]uint64{"age": 2}, CPUUsageNSec: 1_500_000_000, Restarts: map[string]uint64{"signal": 2, "oom-kill": 1}},
			{
				Name: "sniffer.0", Worker: "sniffer", State: "waiting", Failures: 4, NRestarts: 4, NextStartTimestamp: 1795575000_250000,
				Restarts: map[string]uint64{"exit-code": 3, "start-limit-hit": 1},
			},
			{Name: "io.0", Worker: "io", State: "ready", LoopLagUSec: 2500, Tasks: []control.TaskStatus{
				{Name: "poller", State: "waiting", NRestarts: 3, Failures: 2}, {Name: "beat", State: "ready"},
			}},
		},
	}
}

func sample() *Sample {
	return &Sample{Fleet: edge(), Spawns: Histogram{
		Bounds: []float64{0.001, 0.0025, 1, 10}, Counts: []uint64{5, 3, 0, 1, 2}, Sum: 31.0125,
	}}
}

// TestGolden is everything that is exposed, in both formats.
func TestGolden(t *testing.T) {
	for name, format := range map[string]Format{"openmetrics": OpenMetrics, "text": Text} {
		var b bytes.Buffer
		if err := Write(&b, sample(), format); err != nil {
			t.Fatal(err)
		}
		file := "testdata/" + name + ".txt"
		if *update {
			if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || b.String() != string(want) {
			t.Errorf("%s (%v) is not\n%s", file, err, b.String())
		}
	}
}

// TestNames holds the rules of OpenMetrics that a reader would not forgive.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range families {
		switch {
		case seen[f.name]:
			t.Errorf("%s is there twice", f.name)
		case strings.HasSuffix(f.name, "_total"), strings.HasSuffix(f.name, "_info"):
			t.Errorf("%s has the suffix of its kind already", f.name)
		case f.unit != "" && !strings.HasSuffix(f.name, "_"+f.unit):
			t.Errorf("%s does not end in its unit %s", f.name, f.unit)
		case f.unit == "" && (strings.HasSuffix(f.name, "_seconds") || strings.HasSuffix(f.name, "_bytes")):
			t.Errorf("%s has no unit", f.name)
		case !strings.HasPrefix(f.name, "prefork_"), !strings.HasSuffix(f.help, "."), strings.ContainsAny(f.help, "\n\\\""):
			t.Errorf("%s: %s", f.name, f.help)
		}
		seen[f.name] = true
	}
}

func TestLabelsAreEscaped(t *testing.T) {
	s := sample()
	s.Fleet.Name = "a\"b\\c\nd"
	var b bytes.Buffer
	if err := Write(&b, s, OpenMetrics); err != nil {
		t.Fatal(err)
	}
	if want := `prefork_fleet_info{fleet="a\"b\\c\nd"} 1` + "\n"; !strings.Contains(b.String(), want) {
		t.Errorf("no %s in\n%s", want, b.String())
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestWriteSaysWhatTheWriterSays(t *testing.T) {
	if err := Write(brokenWriter{}, sample(), Text); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// TestEveryStateHasALine: a state that is added to fleet is exposed.
func TestEveryStateHasALine(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, sample(), Text); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("StateListening is not the last state")
		}
	}()
	if n := strings.Count(b.String(), "\nprefork_slots{worker=\"web\""); n != int(fleet.StateListening)+1 {
		t.Errorf("%d states", n)
	}
	_ = (fleet.StateListening + 1).String() // there is none
}
