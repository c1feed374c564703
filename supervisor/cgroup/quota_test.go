// SPDX-License-Identifier: AGPL-3.0-or-later

package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

// The lowest quota counts, whichever of the groups has it, up to the topmost that is one.
func TestTheLowestQuotaCounts(t *testing.T) {
	for _, c := range []struct {
		name         string
		root, parent string // of cpu.max; none without the controller
		own          string
		want         float64
	}{
		{"no limit", "", "max 100000\n", "max 100000\n", 0},
		{"no controller", "", "", "", 0},
		{"its own", "", "max 100000\n", "150000 100000\n", 1.5},
		{"above it", "", "150000 100000\n", "max 100000\n", 1.5},
		{"both", "", "150000 100000\n", "400000 100000\n", 1.5},
		{"another period", "", "50000 10000\n", "40000 20000\n", 2},
		{"of a container, whose topmost group is not that of the machine", "25000 100000\n", "max 100000\n", "", 0.25},
		{"nonsense", "", "", "many\n", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(path, name, text string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(path, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(dir, "cpu.max", "1000 100000\n") // of a folder that is no group
			path := dir
			for _, group := range []struct{ name, text string }{{"root", c.root}, {"parent", c.parent}, {"own", c.own}} {
				path = filepath.Join(path, group.name)
				if err := os.Mkdir(path, 0o700); err != nil {
					t.Fatal(err)
				}
				write(path, "cgroup.controllers", "")
				if group.text != "" {
					write(path, "cpu.max", group.text)
				}
			}
			if got := least(path); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// Whatever this machine has, it can be asked.
func TestProcessors(t *testing.T) {
	if n := Processors(); n < 0 {
		t.Errorf("got %v", n)
	}
}
