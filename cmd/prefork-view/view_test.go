// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/godbus/dbus/v5"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/verb"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func stamp(at time.Time) uint64 { return uint64(at.UnixMicro()) }

func before(d time.Duration) uint64 { return stamp(noon.Add(-d)) }

// edge is a fleet with a slot of most kinds.
func edge() *control.Status {
	web := func(n int, since time.Duration, private uint64) control.SlotStatus {
		return control.SlotStatus{
			Name: fmt.Sprintf("web.%d", n), Worker: "web", State: "ready", StateTimestamp: before(since), Reason: "running",
			MainPID: uint32(14708 + 2*n), Generation: 2, StatusText: "serving", FreezerState: "running", ControlGroup: "/prefork/web",
			CPUUsageNSec: uint64(n+1) * 1e9, MemoryPrivate: private << 20, MemoryShared: 58 << 20,
		}
	}
	return &control.Status{
		Name: "edge", File: "/etc/prefork/edge.toml", MainPID: 14653, ActiveState: "active",
		StatusText: "3/8 ready; old.0 failed (start-limit-hit); 2 more in trouble", Generation: 2, FloorPID: 14660, FloorMemory: 61 << 20,
		Spares: 1, NRestarts: 12, NotificationsDropped: 3,
		Sockets: []control.SocketStatus{
			{Name: "admin", Address: "@admin", Type: "stream", Queue: 0, QueueLimit: 128, Drops: -1},
			{Name: "http", Address: "0.0.0.0:8080", Type: "stream", Queue: 30, QueueLimit: 2048, Drops: 12},
			{Name: "http", Address: "/run/edge/http", Type: "stream", Queue: 7, QueueLimit: 2048, Drops: -1},
			{Name: "far", Address: "/run/far", Type: "seqpacket", Queue: -1, QueueLimit: -1, Drops: -1},
			{Name: "syslog", Address: "[::]:514", Type: "datagram", Queue: 2304, QueueLimit: 212992},
		},
		Slots: []control.SlotStatus{
			{
				Name: "cold.0", Worker: "cold", State: "ready", StateTimestamp: before(26 * time.Hour), Reason: "running", MainPID: 14801, Generation: 1,
				FreezerState: "frozen", CPUUsageNSec: 5e9, MemoryPrivate: 3 << 20, MemoryShared: 58 << 20,
			},
			{Name: "late.0", Worker: "late", State: "waiting", StateTimestamp: before(time.Second), Reason: "its floor is loaded", NRestarts: 1},
			{Name: "old.0", Worker: "old", State: "failed", StateTimestamp: before(3 * time.Hour), NRestarts: 5, Failures: 5, Result: "exit-code", Reason: "start-limit-hit: 5 starts within 10s (start_limit_burst); gave up"},
			{Name: "once.0", Worker: "once", State: "exited", StateTimestamp: before(time.Minute), Result: "success", Reason: "exited with status 0 after 3s; finished"},
			{
				Name: "sniffer.0", Worker: "sniffer", State: "waiting", StateTimestamp: before(7 * time.Second), Failures: 4, NRestarts: 6, Result: "exit-code",
				NextStartTimestamp: stamp(noon.Add(1300 * time.Millisecond)), Restarts: map[string]uint64{"exit-code": 5, "signal": 1},
				Reason: "exit-code: exited with status 1 after 504ms; its last status: \"no such device eth7\"; starts again in 8.5s (4th failure in a row)",
			},
			web(0, 17*time.Minute, 96), web(1, 17*time.Minute, 12), web(2, 25*time.Second, 11),
		},
	}
}

// withBatch is edge with a worker of tasks.
func withBatch() *control.Status {
	f := edge()
	f.StatusText = "4/9 ready; old.0 failed (start-limit-hit); 3 more in trouble"
	f.Slots = append([]control.SlotStatus{{
		Name: "batch.0", Worker: "batch", State: "ready", StateTimestamp: before(time.Hour), Reason: "running", MainPID: 14900, Generation: 2,
		FreezerState: "running", CPUUsageNSec: 4e9, MemoryPrivate: 4 << 20, MemoryShared: 58 << 20,
		Tasks: []control.TaskStatus{
			{Name: "reconcile", State: "ready", StateTimestamp: before(time.Hour), Reason: "running"},
			{
				Name: "enrich", State: "waiting", StateTimestamp: before(2 * time.Second), NRestarts: 3, Failures: 3, Result: "exit-code",
				NextStartTimestamp: stamp(noon.Add(2 * time.Second)),
				Reason:             "exit-code: RuntimeError: no answer after 1.2s; starts again in 4.1s (3rd failure in a row)",
			},
			{Name: "once", State: "exited", StateTimestamp: before(time.Hour), Reason: "returned after 3ms; finished", Result: "success"},
		},
	}}, f.Slots...)
	return f
}

// seen is a view that has seen two samples, a second apart.
func seen(width, height int) *model {
	m := &model{name: "edge", width: width, height: height, now: noon, sight: sight{asked: noon}}
	first, second := edge(), edge()
	for i := range first.Slots {
		if s := &first.Slots[i]; s.CPUUsageNSec > 0 {
			s.CPUUsageNSec -= uint64(i*i) * 3e6
		}
	}
	m.see(first, noon.Add(-time.Second))
	m.see(second, noon)
	return m
}

// press presses keys, by their names, and returns what the last asks for.
func press(m *model, keys ...string) (w want) {
	for _, key := range keys {
		text := ""
		if len([]rune(key)) == 1 {
			text = key
		}
		w = m.key(key, text)
	}
	return w
}

// golden compares a frame without its colours with a file.
func golden(t *testing.T, name, frame string) {
	t.Helper()
	var text strings.Builder
	for line := range strings.Lines(ansi.Strip(frame) + "\n") {
		text.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != text.String() {
		t.Errorf("%v; got\n%swant (see testdata, -update)\n%s", err, text.String(), want)
	}
}

func TestFrames(t *testing.T) {
	for _, c := range []struct {
		name          string
		width, height int
		change        func(m *model)
	}{
		{"80x24", 80, 24, nil},
		{"120x40", 120, 40, nil},
		{"60x15", 60, 15, nil},
		{"30x8", 30, 8, nil},
		{"ascii", 80, 24, func(m *model) { m.plain = true }},
		{"help", 60, 15, func(m *model) { press(m, "?") }},
		{"question", 80, 24, func(m *model) { press(m, "j", "r") }},
		{"refusal", 80, 24, func(m *model) {
			m.did(operation{verb.Stop, "web.0"}, dbus.Error{Name: "org.freedesktop.DBus.Error.AccessDenied", Body: []any{"only root may change a fleet that systemd runs"}})
		}},
		{"filter", 80, 24, func(m *model) { press(m, "/", "w", "e", "b") }},
		{"by-memory", 80, 24, func(m *model) { press(m, "s", "s", "s") }},
		{"gone", 80, 24, func(m *model) { m.lose(gone, noon.Add(time.Second)); m.now = noon.Add(12 * time.Second) }},
		{"never", 80, 24, func(m *model) { *m = model{name: "edge", width: 80, height: 24, now: noon, sight: sight{asked: noon}} }},
		{"events", 80, 24, func(m *model) {
			f := edge()
			f.MainPID, f.FloorPID, f.Generation = 20001, 20002, 1
			f.Slots[7].MainPID, f.Slots[7].StateTimestamp, f.Slots[7].NRestarts = 20010, stamp(noon.Add(time.Second)), 1
			f.Slots[0].FreezerState = "running"
			m.now = noon.Add(2 * time.Second)
			m.see(f, m.now)
		}},
		{"tasks", 80, 24, func(m *model) {
			press(m, "/", "b", "a", "t", "c", "h", "enter")
			m.see(withBatch(), noon)
			press(m, "j", "j", "r")
		}},
		{"tasks-folded", 80, 24, func(m *model) {
			press(m, "/", "b", "a", "t", "c", "h", "enter")
			m.see(withBatch(), noon)
			press(m, "enter")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := seen(c.width, c.height)
			if c.change != nil {
				c.change(m)
			}
			golden(t, c.name, m.frame())
		})
	}
}
