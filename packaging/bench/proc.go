// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// now is CLOCK_MONOTONIC in nanoseconds, which Python's monotonic_ns is too.
func now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail on Linux
	return ts.Nano()
}

// milliseconds since an earlier now.
func since(start int64) float64 { return float64(now()-start) / 1e6 }

func proc(pid int, names ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(pid)}, names...)...)
}

// rollup is a process's memory in kB. All is zero for one that has ended.
type rollup struct{ pss, private float64 }

func memoryOf(pid int) (m rollup) {
	for line := range strings.Lines(slurp(proc(pid, "smaps_rollup"))) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		kB, _ := strconv.ParseFloat(f[1], 64) // a field that is no number is none of these
		switch f[0] {
		case "Pss:":
			m.pss = kB
		case "Private_Clean:", "Private_Dirty:":
			m.private += kB
		}
	}
	return m
}

// stat is the part of /proc/PID/stat that is measured.
type stat struct {
	state   string
	parent  int
	own     float64 // seconds of processor time
	reaped  float64 // the same of the children it has waited for
	threads int
}

func statOf(pid int) (s stat, ok bool) {
	text, err := os.ReadFile(proc(pid, "stat"))
	if err != nil {
		return s, false
	}
	// The name, in parentheses, may hold anything.
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	number := func(field int) float64 { // as proc_pid_stat(5) counts them
		n, _ := strconv.ParseFloat(f[field-3], 64)
		return n
	}
	const tick = 100 // USER_HZ
	return stat{
		state: f[0], parent: int(number(4)), threads: int(number(20)),
		own: (number(14) + number(15)) / tick, reaped: (number(16) + number(17)) / tick,
	}, true
}

// family returns a process and all its descendants.
func family(root int) []int {
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if s, ok := statOf(pid); ok {
			children[s.parent] = append(children[s.parent], pid)
		}
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// zombies counts a process's children that it has not waited for.
func zombies(parent int) (n int) {
	for _, pid := range family(parent) {
		if s, ok := statOf(pid); ok && s.state == "Z" {
			n++
		}
	}
	return n
}

// switches counts how often the threads of a process have been switched to.
func switches(pid int) (n float64) {
	files, _ := filepath.Glob(proc(pid, "task", "*", "status"))
	for _, file := range files {
		for line := range strings.Lines(slurp(file)) {
			if f := strings.Fields(line); len(f) == 2 && strings.HasSuffix(f[0], "voluntary_ctxt_switches:") {
				count, _ := strconv.ParseFloat(f[1], 64)
				n += count
			}
		}
	}
	return n
}
