// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/verb"
)

// many is a fleet of n slots, with what no terminal should be sent.
func many(n int) *control.Status {
	f := edge()
	f.StatusText = "\x1b[2J\x1b]0;title\a\r\n" + strings.Repeat("long ", 40)
	for i := range n {
		f.Slots = append(f.Slots, control.SlotStatus{
			Name: fmt.Sprintf("a-worker-with-a-long-name.%d", i), State: []string{"ready", "waiting", "failed", "?"}[i%4], MainPID: uint32(4000000 + i),
			Reason: "\x1b[31m\x9b31m\u202e日本語\t" + strings.Repeat("漢字 ", i%60), StatusText: "\xff\xfe\x1bc\n🙂" + strings.Repeat("x", i%200),
			NextStartTimestamp: stamp(noon.Add(time.Duration(i) * time.Second)), MemoryPrivate: uint64(i) << 33, MemoryShared: 1 << 62, NRestarts: 4e9,
			Restarts: map[string]uint64{"exit-code": 1 << 60},
		})
	}
	return f
}

// TestEverySize draws the view in terminals of every width and of every height, in
// every mood: it fits, and sends the terminal nothing but text and colours.
func TestEverySize(t *testing.T) {
	var sizes [][2]int
	for n := range 130 {
		sizes = append(sizes, [2]int{n, 1}, [2]int{n, 24}, [2]int{80, n / 3}, [2]int{7, n / 3})
	}
	colours := regexp.MustCompile("\x1b\\[[0-9;]*m")
	moods := map[string]func(m *model){
		"one": func(*model) {}, "none": func(m *model) { m.fleet = nil }, "empty": func(m *model) { m.fleet.Slots = nil },
		"hostile":  func(m *model) { m.see(many(50), noon); press(m, "end", "s", "s") },
		"question": func(m *model) { m.see(many(3), noon); press(m, "end", "x") },
		"typing":   func(m *model) { press(m, "/", "w", "日") }, "help": func(m *model) { press(m, "?") },
		"refusal": func(m *model) {
			m.did(operation{verb.Stop, "web.0"}, errors.New(strings.Repeat("\x1bno ", 100)))
		},
		"old": func(m *model) { m.see(many(3), noon); m.lose(stuck, noon); m.now = noon.Add(time.Hour) },
	}
	for mood, set := range moods {
		m := seen(80, 24)
		set(m)
		for _, size := range sizes {
			m.width, m.height = size[0], size[1]
			frame := m.frame()
			lines := strings.Split(frame, "\n")
			if len(lines) > max(m.height, 1) {
				t.Fatalf("%s, %v: %d lines:\n%s", mood, size, len(lines), frame)
			}
			for _, line := range lines {
				if ansi.StringWidth(line) > m.width {
					t.Fatalf("%s, %v: longer: %q", mood, size, line)
				}
				for _, r := range colours.ReplaceAllString(line, "") {
					if r < ' ' || 0x7f <= r && r < 0xa0 || r == '\u202e' {
						t.Fatalf("%s, %v: %U in %q", mood, size, r, line)
					}
				}
			}
		}
	}
}

func BenchmarkFrameOfAThousand(b *testing.B) {
	m := seen(120, 40)
	m.see(many(1000), noon)
	for b.Loop() {
		m.frame()
	}
}

// TestSelectionStaysWithItsSlot wherever that goes, and with it what is asked.
func TestSelectionStaysWithItsSlot(t *testing.T) {
	m := seen(80, 24)
	name := func() string { rows := m.rows(); return rows[m.cursor(rows)].Name }
	if name() != "old.0" {
		t.Fatalf("the worst slot does not come first: %s", name())
	}
	press(m, "down", "j", "down", "down") // web.0
	press(m, "r")
	worse := edge()
	worse.Slots[5].State = "failed"
	m.see(worse, noon.Add(time.Second))
	if rows := m.rows(); name() != "web.0" || m.cursor(rows) != 0 && rows[1].Name != "web.0" {
		t.Errorf("selected is %s", name())
	}
	w := press(m, "y")
	if w.operate == nil || *w.operate != (operation{verb.Restart, "web.0"}) {
		t.Errorf("got %+v", w)
	}
	press(m, "home")
	if name() != "old.0" {
		t.Errorf("Home selects %s", name())
	}
	press(m, "/", "n", "i", "f", "enter")
	if name() != "sniffer.0" {
		t.Errorf("filtered, %s is selected", name())
	}
	if press(m, "esc", "pgdown", "pgdown"); name() != "once.0" {
		t.Errorf("the last is %s", name())
	}
	if press(m, "pgup", "k"); name() != "old.0" {
		t.Errorf("the first is %s", name())
	}
}

// TestNothingIsDoneWithoutYes: every other key leaves the slot alone.
func TestNothingIsDoneWithoutYes(t *testing.T) {
	for key, verb := range verbs {
		for _, answer := range []string{"n", "enter", "esc", " ", "q", key} {
			m := seen(80, 24)
			if w := press(m, "end", "k", key, answer); w != (want{}) || m.asking != nil {
				t.Errorf("%s, %s: got %+v", key, answer, w)
			}
		}
		m := seen(80, 24)
		w := press(m, "end", "k", key, "y")
		if w.operate == nil || *w.operate != (operation{verb, "web.2"}) {
			t.Errorf("%s, y: got %+v", key, w.operate)
		}
	}
	m := seen(80, 24)
	if press(m, "f"); m.asking != nil || !m.note.bad { // old.0 says nothing of a freezer
		t.Error("a slot is frozen that cannot be")
	}
	if w := press(m, "/", "q", "r"); w != (want{}) || m.filter != "qr" {
		t.Errorf("what is typed is a command: %+v", w)
	}
	if !press(m, "ctrl+c").quit || !press(m, "enter", "q").quit {
		t.Error("q and Ctrl-C do not quit")
	}
}

// TestOrders shows the first slot of each.
func TestOrders(t *testing.T) {
	m := seen(80, 24)
	m.fleet.Slots[3].NRestarts = 100
	for _, first := range []string{"old.0", "cold.0", "web.2", "web.0", "once.0", "late.0", "old.0"} {
		if rows := m.rows(); rows[0].Name != first {
			t.Errorf("%s: %s comes first, want %s", orders[m.order].title, rows[0].Name, first)
		}
		press(m, "s")
	}
}

func TestUsage(t *testing.T) {
	fleet := func(pid uint32, nsec uint64) *control.Status {
		return &control.Status{Slots: []control.SlotStatus{{Name: "w.0", MainPID: pid, CPUUsageNSec: nsec}}}
	}
	u := &usage{}
	for i, c := range []struct {
		at   time.Duration
		pid  uint32
		nsec uint64
		want float64
	}{
		{0, 1, 1e9, -1},
		{time.Second, 1, 15e8, 50},
		{1100 * time.Millisecond, 1, 16e8, 50}, // too soon to tell
		{2 * time.Second, 1, 17e8, 20},
		{3 * time.Second, 2, 18e8, -1}, // another process
		{5 * time.Second, 2, 78e8, 300},
		{6 * time.Second, 2, 1e8, -1}, // it cannot go back
		{7 * time.Second, 2, 0, -1},   // not known
	} {
		f := fleet(c.pid, c.nsec)
		u.add(f, noon.Add(c.at))
		if got := u.of(&f.Slots[0]); got != c.want {
			t.Errorf("%d: got %v, want %v", i, got, c.want)
		}
	}
}

// TestTroubleIsSaid tells how old the view is, and only then.
func TestTroubleIsSaid(t *testing.T) {
	for _, c := range []struct {
		lost  string
		after time.Duration
		want  string
	}{
		{"", time.Second, ""},
		{"", 4 * time.Second, "the master has not answered for 4s"},
		{stuck, 65 * time.Second, "the master has not answered for 65s"},
		{gone, 2 * time.Second, "the master has been gone for 2s"},
		{"no object", time.Second, "no object"},
	} {
		m := seen(80, 24)
		if c.lost != "" {
			m.lose(c.lost, noon)
		}
		m.now = noon.Add(c.after)
		if got := m.trouble(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
		m.see(edge(), m.now)
		if got := m.trouble(); got != "" {
			t.Errorf("it answers, and the view says %q", got)
		}
	}
}

// TestEventsAreBounded keeps the newest.
func TestEventsAreBounded(t *testing.T) {
	m := seen(80, 24)
	for i := range 1000 {
		f := edge()
		f.Slots[5].NRestarts = uint32(i)
		m.see(f, noon.Add(time.Duration(i)*time.Second))
	}
	m.lose(gone, noon.Add(time.Hour))
	m.lose(gone, noon.Add(2*time.Hour)) // it is said once
	if n := len(m.past); n != maxEvents || m.past[n-1].what != gone || m.past[n-2].who != "web.0" {
		t.Errorf("%d events, the last is %+v", len(m.past), m.past[len(m.past)-1])
	}
}

func TestWords(t *testing.T) {
	for _, c := range [][2]string{
		{short(119 * time.Second), "119s"},
		{short(2 * time.Minute), "2min"},
		{short(3 * 24 * time.Hour), "3d"},
		{short(-time.Second), "0s"},
		{long(900 * time.Millisecond), "0s"},
		{long(9900 * time.Millisecond), "9s"},
		{until(noon.Add(100*time.Millisecond), noon), "in 1s"},
		{until(noon, noon), "now"},
		{size(0), "-"},
		{size(700 << 10), "700K"},
		{size(3 << 30), "3.0G"},
		{percent(1234.5), "1234%"},
		{middle("a-worker-with-a-long-name.12", 12), "a-work…me.12"},
		{ascii("► █░ → é…\x1b[1m"), "> #. > ?~\x1b[1m"},
	} {
		if c[0] != c[1] {
			t.Errorf("got %q, want %q", c[0], c[1])
		}
	}
	for locale, want := range map[string]bool{"": false, "C": false, "C.UTF-8": true, "de_DE.utf8": true} {
		if got := isUTF8(func(name string) string { return map[string]string{"LANG": locale}[name] }); got != want {
			t.Errorf("%q: got %v", locale, got)
		}
	}
}
