// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"os"
	"regexp"
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

// What has ended a worker is where one looks: in the log, the status, why and the
// application's own logging. It is one short line that steers no terminal.
func TestTheCauseOfACrashIsShown(t *testing.T) {
	r := prepare(t, `
[floor]
path = ["DIR"]
preload = ["boom"]
fds = "allow"
[defaults]
restart_sec = "1h"
restart_max_delay_sec = "1h"
[worker.crash]
entry = "boom:crash"
[worker.config]
entry = "boom:config"
[worker.hostile]
entry = "boom:hostile"
[worker.number]
entry = "boom:number"
[worker.limited]
entry = "boom:crash"
restart_sec = 0
start_limit_burst = 1
start_limit_interval_sec = "1h"
`)
	r.write("boom.py", boom)
	r.start()
	const cause = "exited with status 1 after 2ms: ConnectionError: cannot reach db.internal:5432"
	// One that ends at once may never be seen ready.
	spans, unseen := regexp.MustCompile(`after \d+ms`), regexp.MustCompile(`starting -> waiting: exit-code: exited with status \d`)
	logged := func() string {
		text := unseen.ReplaceAllStringFunc(r.logged(), func(found string) string { return strings.Replace(found, "starting", "ready", 1) + " after 2ms" })
		return spans.ReplaceAllString(text, "after 2ms")
	}
	r.eventually("all have ended", func() bool {
		return strings.Count(logged(), "ready -> waiting") == 5 && strings.Contains(r.logged(), "limited.0: waiting -> failed")
	})
	for _, want := range []string{
		"crash.0: ready -> waiting: exit-code: " + cause + "; starts again in ",
		"config.0: ready -> waiting: exit-code: exited with status 1 after 2ms: SystemExit: config: no such key 'dsn'; starts",
		"hostile.0: ready -> waiting: exit-code: exited with status 1 after 2ms: ValueError: [31m xxx",
		"number.0: ready -> waiting: exit-code: exited with status 3 after 2ms; starts",
		"limited.0: waiting -> failed: start-limit-hit: 1 starts within 1h (start_limit_burst); the last one: " + cause +
			"; gave up: prefork reset " + r.path("fleet.toml") + " limited.0",
	} {
		if !strings.Contains(logged(), want) {
			t.Errorf("the log has no %q", want)
		}
	}
	for line := range strings.Lines(r.logged()) {
		if strings.Contains(line, "hostile.0: ready") && len(line) > 400 {
			t.Errorf("a cause of %d bytes is in the log", len(line))
		}
	}
	r.eventually("the status has it", func() bool {
		return strings.Contains(r.status(), "limited.0 failed (start-limit-hit after exit-code 1: ConnectionError: cannot reach db.internal:5432)")
	})
	out, _, _ := prefork(t, "why", r.path("fleet.toml"), "crash.0")
	if out = strings.Join(strings.Fields(out), " "); !strings.Contains(out, "ConnectionError: cannot reach db.internal:5432; 1st failure in a row next: starts in ") {
		t.Errorf("why says %s", out)
	}
	own, err := os.ReadFile(r.path("app.log"))
	if text := string(own); err != nil || strings.Count(text, "CRITICAL:prefork:crash.0: uncaught exception\nTraceback") != 1 ||
		!strings.Contains(text, "\nConnectionError: cannot reach db.internal:5432\n") || strings.Contains(text, "config") {
		t.Errorf("%v, the application's log has:\n%s", err, text)
	}
	if n := strings.Count(r.logged(), "\nConnectionError: cannot reach"); n != 2 {
		t.Errorf("standard error has the exception of two workers %d times", n)
	}
}

const boom = `
import logging
import os

logging.basicConfig(filename=os.path.join(os.path.dirname(__file__), "app.log"))
logging.getLogger().addHandler(logging.StreamHandler())

def crash():
    raise ConnectionError("cannot reach db.internal:5432")

def config():
    raise SystemExit("config: no such key 'dsn'")

def hostile():
    raise ValueError("\x1b[31m\n" + 2_000 * "x")

def number():
    raise SystemExit(3)
`

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
