// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Once crashes are over, the master and its floor have the memory, the descriptors and the
// children that they had.
func TestManyCrashesLeaveNothing(t *testing.T) {
	const (
		slots  = 8
		margin = 1024 // kB: lists of the runtime that grow once, and pages that are read again
	)
	program, err := built() // the race detector keeps memory of its own
	if err != nil {
		t.Fatal(err)
	}
	r := prepare(t, `
[floor]
path = ["DIR"]
preload = ["app"]
spares = 2
[worker.w]
entry = "app:idle"
count = 8
settle_sec = 0
restart_sec = 0
restart_reset_sec = 0
`)
	r.cmd.Path = program
	r.start()
	r.waitReady()
	floor := r.child("prefork: floor").pid
	r.eventually("the spares", func() bool { return len(r.children("prefork: spare")) == 2 })
	master, zygote, fds := atRest(t, r.pid()), residentOf(t, floor, "Rss"), r.descriptors()
	for range 50 {
		var victims []int
		for _, p := range r.children("prefork: w.") {
			victims = append(victims, p.pid)
			kill(t, p.pid, unix.SIGKILL)
		}
		r.eventually("as many others", func() bool {
			now := r.children("prefork: w.")
			return len(now) == slots && !slices.ContainsFunc(now, func(p process) bool { return slices.Contains(victims, p.pid) })
		})
	}
	r.eventually("the spares", func() bool { return len(r.children("prefork: spare")) == 2 })
	for _, c := range []struct {
		name        string
		pid, before int
	}{{"master", r.pid(), master}, {"floor", floor, zygote}} {
		now := 0
		r.eventually(fmt.Sprintf("the %s has again %d kB", c.name, c.before), func() bool {
			now = residentOf(t, c.pid, "Rss")
			return now <= c.before+margin
		})
		t.Logf("%s: %d kB, then %d kB", c.name, c.before, now)
	}
	r.eventually("the descriptors that it had", func() bool { return slices.Equal(r.descriptors(), fds) })
	r.eventually("as many children", func() bool { return len(r.children("")) == slots+2+1 }) // the floor
}

// atRest is the resident memory of a process when it no longer changes, in kB.
func atRest(t *testing.T, pid int) (kB int) {
	t.Helper()
	since := time.Now()
	eventually(t, "memory that stays", func() bool {
		if now := residentOf(t, pid, "Rss"); now != kB {
			kB, since = now, time.Now()
		}
		return time.Since(since) > 3*time.Second // the master gives back two after it is ready
	})
	return kB
}

// residentOf is what a process has of some kind of memory (smaps_rollup in proc(5)), in kB.
// What its status says is not exact.
func residentOf(t *testing.T, pid int, kind string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == kind+":" {
			n, _ := strconv.Atoi(f[1]) // the kernel wrote it
			return n
		}
	}
	t.Fatal("the kernel does not say")
	return 0
}
