// SPDX-License-Identifier: AGPL-3.0-or-later

package examine

import (
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// Only what was measured is advised, with its price, and if it is worth it.
func TestAdviceOnMemory(t *testing.T) {
	const k, m = 1 << 10, 1 << 20
	plain := func(settled int64) Row {
		return Row{AsFile: true, GCFreeze: true, Floor: 60 * m, Entry: 1 * m, Collected: settled}
	}
	immortal := func(settled, floor int64) Row {
		return Row{Immortal: true, GCFreeze: true, Floor: floor, Entry: 1 * m, Collected: settled}
	}
	worked := func(r Row, settled int64) Row {
		r.Worked, r.WorkedCollected = settled, settled
		return r
	}
	warm := func(r Row) Row {
		r.Warm = true
		return r
	}
	other := func(r Row) Row {
		r.AsFile = false
		return r
	}
	file := func(r Row) Row {
		r.AsFile = true
		return r
	}
	repack := func(r Row) Row {
		r.Repack = true
		return r
	}
	const unset = "floor.warm: Is not set"
	for name, c := range map[string]struct {
		warm string
		rows []Row
		want []string // how each begins
	}{
		"not forked":       {"", nil, nil},
		"not measured":     {"", []Row{plain(0)}, nil},
		"no immortality":   {"", []Row{plain(2 * m), {Immortal: true, GCFreeze: true, Error: "it needs CPython 3.12"}}, []string{unset}},
		"immortal saves":   {"", []Row{plain(2 * m), immortal(1*m, 61*m)}, []string{"floor.immortal = true: Would save 1.0 MB in each worker after a collection (7 workers: 7.0 MB). Its price: the floor has 1.0 MB more", unset}},
		"its price":        {"", []Row{plain(2 * m), immortal(1*m, 70*m)}, []string{unset}},
		"not worth it":     {"", []Row{plain(1 * m), immortal(1*m-99*k, 60*m)}, []string{unset}},
		"of no use":        {"", []Row{file(immortal(1*m, 60*m)), other(plain(1*m + 99*k))}, []string{"floor.immortal = false: Saves nothing that counts here, 99 kB", unset}},
		"of use":           {"", []Row{file(immortal(1*m, 60*m)), other(plain(2 * m))}, []string{unset}},
		"warm saves":       {"app:warm", []Row{file(warm(worked(plain(1*m), 3*m))), other(worked(plain(1*m), 9*m))}, nil},
		"warm is no use":   {"app:warm", []Row{file(warm(worked(plain(1*m), 3*m))), other(worked(plain(1*m), 2*m))}, []string{"floor.warm: Saves nothing that counts here, 0 kB in each worker after work."}},
		"warm fails":       {"app:warm", []Row{file(warm(Row{GCFreeze: true, Collected: 2 * m, WorkError: "no"})), other(plain(2 * m))}, nil},
		"after work":       {"app:warm", []Row{file(warm(worked(plain(2*m), 9*m))), warm(worked(immortal(1*m, 60*m), 4*m)), other(worked(plain(2*m), 10*m))}, []string{"floor.immortal = true: Would save 5.0 MB in each worker after work (7 workers: 35.0 MB)."}},
		"repack saves":     {"app:warm", []Row{file(warm(worked(plain(1*m), 3*m))), warm(repack(other(worked(plain(1*m), 2*m))))}, []string{"floor.repack = true: Would save 1.0 MB in each worker after work"}},
		"repack is no use": {"app:warm", []Row{file(repack(warm(worked(plain(1*m), 3*m)))), warm(other(worked(plain(1*m), 3*m)))}, []string{"floor.repack = false: Saves nothing"}},
		"without freezing": {"", []Row{{AsFile: true, Floor: 60 * m, Collected: 40 * m}, {GCFreeze: true, Collected: 2 * m}}, []string{"floor.gc_freeze = true: Would save 38.0 MB", unset}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &run{file: &fleetfile.File{Floor: &fleetfile.Floor{Warm: c.warm}}, report: &Report{Memory: &Memory{Worker: "web", Slots: 7, Rows: c.rows}}}
			r.adviseMemory()
			var got []string
			for _, a := range r.report.Advice {
				text := a.Key + ": " + a.Text
				if a.Value != "" {
					text = a.Key + " = " + a.Value + ": " + a.Text
				}
				got = append(got, text)
			}
			if len(got) != len(c.want) {
				t.Fatalf("got %q, want %q", got, c.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], c.want[i]) {
					t.Errorf("got %q, want %q", got[i], c.want[i])
				}
			}
		})
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 kB", 1023: "0 kB", 812 << 10: "812 kB", -5 << 10: "-5 kB", 2202010: "2.1 MB", 5 << 28: "1.25 GB"} {
		if got := Size(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}
