// SPDX-License-Identifier: AGPL-3.0-or-later

// Package proc reads what the kernel tells of processes.
package proc

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Now is CLOCK_MONOTONIC in nanoseconds, which Python's monotonic_ns is too.
func Now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail on Linux
	return ts.Nano()
}

// Since is the milliseconds since an earlier Now.
func Since(start int64) float64 { return float64(Now()-start) / 1e6 }

// Path is a file of a process below /proc.
func Path(pid int, names ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(pid)}, names...)...)
}

// Rollup is a process's memory in kB. All is zero for one that has ended.
type Rollup struct{ PSS, Private float64 }

// MemoryOf reads it.
func MemoryOf(pid int) (m Rollup) {
	text, _ := os.ReadFile(Path(pid, "smaps_rollup")) // none, if it has ended
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		kB, _ := strconv.ParseFloat(f[1], 64) // a field that is no number is none of these
		switch f[0] {
		case "Pss:":
			m.PSS = kB
		case "Private_Clean:", "Private_Dirty:":
			m.Private += kB
		}
	}
	return m
}

// Stat is the part of /proc/PID/stat that is measured.
type Stat struct {
	State   string
	Parent  int
	Own     float64 // seconds of processor time
	Reaped  float64 // the same of the children it has waited for
	Threads int
}

// StatOf reads it; ok is false for a process that has ended.
func StatOf(pid int) (s Stat, ok bool) {
	text, err := os.ReadFile(Path(pid, "stat"))
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
	return Stat{
		State: f[0], Parent: int(number(4)), Threads: int(number(20)),
		Own: (number(14) + number(15)) / tick, Reaped: (number(16) + number(17)) / tick,
	}, true
}

// Family returns a process and all its descendants.
func Family(root int) []int {
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if s, ok := StatOf(pid); ok {
			children[s.Parent] = append(children[s.Parent], pid)
		}
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// Zombies counts a process's children that it has not waited for.
func Zombies(parent int) (n int) {
	for _, pid := range Family(parent) {
		if s, ok := StatOf(pid); ok && s.State == "Z" {
			n++
		}
	}
	return n
}

// Switches counts how often the threads of a process have been switched to.
func Switches(pid int) (n float64) {
	files, _ := filepath.Glob(Path(pid, "task", "*", "status"))
	for _, file := range files {
		text, _ := os.ReadFile(file) // none, if the thread has ended
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) == 2 && strings.HasSuffix(f[0], "voluntary_ctxt_switches:") {
				count, _ := strconv.ParseFloat(f[1], 64)
				n += count
			}
		}
	}
	return n
}
