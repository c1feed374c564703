// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/memory"
)

// drawn has so many slots, and as many reports.
func drawn(slots, reports int) (past []memory.Report) {
	for i := range reports {
		r := memory.Report{
			Fleet: "edge", Timestamp: uint64(time.Unix(1_700_000_000, 0).Add(time.Duration(i) * 2 * time.Second).UnixMicro()),
			Floors: []memory.FloorReport{{Generation: 1, PID: 7, Base: memory.Base{Anonymous: 300 << 20}}},
		}
		for n := range slots {
			s := memory.SlotReport{Name: fmt.Sprintf("collector-eu.%d", n), State: "ready", PID: uint32(n + 8), Generation: 1}
			s.Written = uint64(n%7+1) * uint64(i+1) << 20
			s.Shared, s.Own = 300<<20-s.Written, uint64(n%5)*uint64(i)<<20
			r.Slots = append(r.Slots, s)
		}
		r.Slots = append(r.Slots, memory.SlotReport{Name: "gone.0", State: "failed"})
		r.Sum()
		past = append(past, r)
	}
	return past
}

// TestPicturesOfFleets of one slot and of many: each that was measured has its name, as
// long as there is room for it.
func TestPicturesOfFleets(t *testing.T) {
	for _, c := range []struct{ slots, reports, named int }{{1, 1, 1}, {8, 1, 8}, {8, 30, 8}, {64, 1, 64}, {64, 30, 32}, {500, 1, 72}} {
		name := fmt.Sprintf("%d slots, %d reports", c.slots, c.reports)
		past := drawn(c.slots, c.reports)
		text, err := picture(past, true)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if image, err := png.Decode(bytes.NewReader(text)); err != nil || image.Bounds().Dx() != 1920 || image.Bounds().Dy() != 1080 {
			t.Errorf("%s: not a picture of the size of a slide: %v", name, err)
		}
		if dir := os.Getenv("PICTURES"); dir != "" {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-%d.png", c.slots, c.reports)), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err = picture(past, false)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if named := bytes.Count(text, []byte("collector-eu.")); named != c.named || bytes.Contains(text, []byte("gone.0")) {
			t.Errorf("%s: %d names, want %d", name, named, c.named)
		}
	}
	if _, err := picture(drawn(0, 1), true); err == nil {
		t.Error("a picture of nothing")
	}
}

// TestReportsAreDrawn: each is answered when the file has it, and what is wrong is said.
func TestReportsAreDrawn(t *testing.T) {
	var in, out bytes.Buffer
	for _, r := range drawn(2, 3) {
		if err := json.NewEncoder(&in).Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	again := in.String()
	file := filepath.Join(t.TempDir(), "memory.svg")
	if err := drawReports(&in, &out, file); err != nil || out.String() != "\"\"\n\"\"\n\"\"\n" {
		t.Errorf("got %v, %q", err, out.String())
	}
	text, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(text, []byte("seconds since")) {
		t.Errorf("nothing over time: %v", err)
	}
	out.Reset()
	if err := drawReports(strings.NewReader(again), &out, filepath.Join(file, "none.svg")); err != nil || !strings.Contains(out.String(), "not a directory") {
		t.Errorf("got %v, %q", err, out.String())
	}
	if err := drawReports(strings.NewReader("{nonsense"), &out, file); err == nil {
		t.Error("nonsense is drawn")
	}
}

// However long it is watched, no more is kept than can be drawn, the first of it and all
// of the last.
func TestPastIsBounded(t *testing.T) {
	var past []memory.Report
	for i := range 5 * maxPast {
		past = remember(past, memory.Report{Timestamp: uint64(i), Slots: make([]memory.SlotReport, 3)})
	}
	if n := len(past); n > maxPast || n < maxPast/2 || past[0].Timestamp != 0 || past[n-1].Timestamp != 5*maxPast-1 || past[n-2].Slots != nil || len(past[n-1].Slots) != 3 {
		t.Errorf("%d are kept: %v to %v", len(past), past[0], past[len(past)-1])
	}
}
