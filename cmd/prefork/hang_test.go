// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hangs are workers that never answer, each in its own way.
const hangs = `
import asyncio, ctypes, os, prefork, signal, threading, time

def own_log():
    os.dup2(os.open(os.environ["OUT"] + "." + prefork.slot, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)

def in_a_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

def in_sleep():
    time.sleep(1e6)

def in_c(library=ctypes.PyDLL):
    mutex = ctypes.create_string_buffer(64)
    lock = library(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)

def in_c_without_the_lock():
    in_c(ctypes.CDLL)

async def in_a_loop():
    await asyncio.get_running_loop().create_future()

async def in_a_callback():
    asyncio.get_running_loop().call_soon(in_sleep)
    await in_a_loop()

def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(os.environ["OUT"] + ".deaf", "w").close()
    in_sleep()

def another():
    os.execvp("sleep", ["sleep", "987673"])
`

// hanging starts a fleet with a worker for each way to hang.
func hanging(t *testing.T, names []string, keys string) *rig {
	t.Helper()
	var file strings.Builder
	file.WriteString("[floor]\npreload = [\"hangs\"]\npath = [\"DIR\"]\nafter_fork = \"hangs:own_log\"\n[defaults]\nrestart = \"no\"\n" + keys)
	for _, name := range names {
		fmt.Fprintf(&file, "[worker.%s]\nentry = \"hangs:%[1]s\"\n", name)
	}
	r := prepare(t, file.String())
	r.write("hangs.py", hangs)
	r.start()
	return r
}

// wrote is what a worker has said.
func (r *rig) wrote(slot string) string {
	text, err := os.ReadFile(r.path("out." + slot))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	return string(text)
}

// A worker that is stuck writes where before it is aborted, and has been by the
// watchdog.
func TestWatchdogShowsWhereAWorkerHangs(t *testing.T) {
	names := []string{"in_a_lock", "in_sleep", "in_c", "in_c_without_the_lock", "in_a_loop", "in_a_callback"}
	r := hanging(t, names, "watchdog_sec = \"1s\"\n")
	r.wait()
	log := r.logged()
	for _, name := range names {
		if !strings.Contains(r.wrote(name+".0"), " in "+name+"\n") {
			t.Errorf("nothing says where %s hangs", name)
		}
		if !strings.Contains(log, name+".0: stopping -> failed: watchdog: killed by SIGABRT") {
			t.Errorf("%s has not ended by its watchdog", name)
		}
	}
	if !strings.Contains(r.wrote("in_a_loop.0"), "Task 'Task-1' waits for Future") {
		t.Error("no task of an event loop is told")
	}
}

// Stacks are written by who goes on as before; what cannot write them is told by the
// kernel's, and is not killed by the question.
func TestStacks(t *testing.T) {
	r := hanging(t, []string{"in_c", "in_a_loop", "another"}, "")
	file := r.path("fleet.toml")
	r.waitReady()
	r.eventually("the other program", func() bool {
		out, _, _ := prefork(t, "stacks", file, "another")
		return strings.Contains(out, "(sleep)")
	})
	out, stderr, code := prefork(t, "stacks", file, "in_c", "in_a_loop")
	if code != 0 || !strings.Contains(out, "in_c.0 (pid ") || !strings.Contains(out, "thread ") {
		t.Errorf("exit status %d, %q, %q", code, out, stderr)
	}
	r.eventually("the stacks", func() bool {
		return strings.Contains(r.wrote("in_c.0"), " in in_c\n") && strings.Contains(r.wrote("in_a_loop.0"), "Task 'Task-1' waits for Future") &&
			strings.Contains(r.logged(), "another.0: thread ")
	})
	for _, name := range []string{"in_c.0", "in_a_loop.0", "another.0"} {
		if s := r.slot(name); s.State != "ready" || s.NRestarts != 0 {
			t.Errorf("%s is %s", name, s.State)
		}
	}
	for _, name := range []string{"in_c", "another"} { // SIGTERM ends no C call that holds the lock
		if _, stderr, code := prefork(t, "kill", "--signal", "KILL", file, name); code != 0 {
			t.Error(stderr)
		}
	}
	r.eventually("their ends", func() bool { return r.slot("in_c.0").MainPID == 0 && r.slot("another.0").MainPID == 0 })
	if _, stderr, code := prefork(t, "stacks", file, "in_c"); code != 1 || !strings.Contains(stderr, "has no process") {
		t.Errorf("of what has ended: exit status %d, %q", code, stderr)
	}
	if out, stderr, code := prefork(t, "stacks", file); code != 0 || strings.Contains(out, "in_c.0") || !strings.Contains(out, "in_a_loop.0") {
		t.Errorf("of all: exit status %d, %q, %q", code, out, stderr)
	}
}

// What does not end when it is asked to says where it hangs before SIGKILL.
func TestStopThatTimesOutShowsWhere(t *testing.T) {
	r := hanging(t, []string{"deaf"}, "timeout_stop_sec = \"500ms\"\n[worker.program]\n"+
		"exec = [\"sh\", \"-c\", \"trap '' TERM; echo deaf > DIR/sh; while :; do sleep 987674; done\"]\n")
	r.waitReady()
	r.eventually("a deaf worker and a deaf program", func() bool {
		_, worker := os.Stat(r.path("out.deaf"))
		_, program := os.Stat(r.path("sh"))
		return worker == nil && program == nil
	})
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	log := r.logged()
	if !strings.Contains(r.wrote("deaf.0"), " in deaf\n") {
		t.Error("nothing says where the worker hangs")
	}
	if at, end := strings.Index(log, "program.0: thread "), strings.Index(log, "program.0: stopping -> killing"); at < 0 || end < at {
		t.Error("nothing says where the program hangs, before its end")
	}
}
