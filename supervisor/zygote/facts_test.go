// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
)

// facts is what probe.facts prints.
type facts struct {
	FDs     map[string]string
	Signals map[string]string
	Env     map[string]string

	PID, PPID, SID, PGID int

	Cmdline, Comm string
	IDs           []int
	Groups        []int
	CapEff        string
	NoNewPrivs    string `json:"no_new_privs"`
	Nice          int
	NoFile        []int
	Umask         int
	Cwd           string
	Random        float64
	Numpy         *float64
	GC            bool
	Frozen        int
	Argv, Path    []string
	Loaded        bool
	Early         []string
	SlotAtImport  *string `json:"slot_at_import"`
	Args          string
	Fleet         string `json:"prefork_fleet"`
	Worker        string `json:"prefork_worker"`
	Slot          string `json:"prefork_slot"`
	Index         int    `json:"prefork_index"`
	Generation    int    `json:"prefork_generation"`
}

func parseFacts(t *testing.T, r result) facts {
	t.Helper()
	var f facts
	if err := json.NewDecoder(strings.NewReader(r.output)).Decode(&f); err != nil {
		t.Fatalf("facts: %v: status %#x, gate %q, output %q", err, r.status, r.failed, r.output)
	}
	return f
}

// handed is what probe.handed prints.
type handed struct {
	Sockets, Stored map[string][]int
	WatchdogSec     *float64 `json:"watchdog_sec"`
	OfChild         *float64 `json:"of_child"`
	OOMScoreAdj     int      `json:"oom_score_adj"`
	Env             map[string]string
	PID             int
}

func parseHanded(t *testing.T, r result) handed {
	t.Helper()
	var h handed
	if err := json.Unmarshal([]byte(r.output), &h); err != nil {
		t.Fatalf("handed: %v: status %#x, gate %q, output %q", err, r.status, r.failed, r.output)
	}
	return h
}

// private returns a process's own memory in kB, as smaps_rollup has it.
func private(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && (f[0] == "Private_Dirty:" || f[0] == "Private_Clean:") {
			kB, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			total += kB
		}
	}
	return total
}
