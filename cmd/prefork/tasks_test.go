// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
)

// startTasks starts a fleet of the tasks in testdata/tasks.py.
func startTasks(t *testing.T, file string) *rig {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	r := prepare(t, "[floor]\npath = [\"DIR\"]\npreload = [\"tasks\"]\n"+file)
	module, err := os.ReadFile("testdata/tasks.py")
	if err != nil {
		t.Fatal(err)
	}
	r.write("tasks.py", string(module))
	r.cmd.Env = append(r.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	r.start()
	return r
}

// task is what there is to see of one: "io.0/poller".
func (r *rig) task(name string) (found control.TaskStatus) {
	r.t.Helper()
	f, err := reach.Look(r.path("fleet.toml"))
	if err != nil {
		r.t.Fatal(err)
	}
	_, t, err := taskNamed("fleet", name, f)
	if err != nil {
		r.t.Fatal(err)
	}
	return *t
}

func (r *rig) logs(what string) {
	r.t.Helper()
	r.eventually("in the log: "+what, func() bool { return strings.Contains(r.logged(), what) })
}

// TestTasks has ten tasks in one process, of which each ends in another way: it costs that
// one, and no other.
func TestTasks(t *testing.T) {
	r := startTasks(t, `
[worker.batch]
lifespan = "tasks:lifespan"
restart_sec = "100ms"
[worker.batch.tasks]
reconcile   = { entry = "tasks:reconcile", kwargs = { interval = 30 } }
enrich      = { entry = "tasks:enrich", args = [2] }
returns     = "tasks:returns"
mutate      = { entry = "tasks:mutate", type = "notify" }
limited     = { entry = "tasks:exits", args = [3], start_limit_burst = 3, start_limit_interval_sec = "1h" }
fine        = { entry = "tasks:exits", args = [0] }
interrupted = "tasks:interrupted"
cancelled   = { entry = "tasks:cancels_itself", restart = "no" }
group       = { entry = "tasks:group", restart = "no" }
number      = { entry = "tasks:not_awaitable", restart_sec = "1h", restart_max_delay_sec = "1h" }
missing     = { entry = "nowhere:run", restart_sec = "1h", restart_max_delay_sec = "1h" }
late        = { entry = "tasks:never_ready", type = "notify", timeout_start_sec = "100ms", restart = "no" }
`)
	r.waitReady()
	first := r.slot("batch.0").MainPID
	wants := map[string]struct {
		state, result string
		restarts      uint32
		reason        string
	}{
		"reconcile":   {"ready", "", 0, "running"},
		"enrich":      {"ready", "exit-code", 2, "running, after 2 failures"},
		"returns":     {"exited", "success", 0, "returned after"},
		"mutate":      {"ready", "", 0, "it says so"},
		"limited":     {"failed", "start-limit-hit", 3, "3 starts within 60min (start_limit_burst); gave up"},
		"fine":        {"exited", "success", 0, `finished (restart = "on-failure")`},
		"interrupted": {"exited", "success", 0, "KeyboardInterrupt"},
		"cancelled":   {"failed", "exit-code", 0, "CancelledError: the task cancelled itself"},
		"group":       {"failed", "exit-code", 0, "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)"},
		"number":      {"waiting", "exit-code", 1, "TypeError: tasks:not_awaitable returned int, not an awaitable"},
		"missing":     {"waiting", "exit-code", 1, "ModuleNotFoundError: No module named 'nowhere'"},
		"late":        {"failed", "timeout", 0, "did not call prefork.ready() within 100ms (timeout_start_sec)"},
	}
	for name, want := range wants {
		r.eventually(name+" is "+want.state, func() bool {
			got := r.task("batch.0/" + name)
			return got.State == want.state && got.Result == want.result && got.NRestarts == want.restarts && strings.Contains(got.Reason, want.reason)
		})
	}
	if s := r.slot("batch.0"); s.State != "ready" || s.MainPID != first || s.NRestarts != 0 || len(s.Tasks) != len(wants) {
		t.Errorf("got %+v", s)
	}
	if got := r.task("batch.0/reconcile").StatusText; got != "every 30s" {
		t.Errorf("its status is %q", got)
	}
	for _, what := range []string{
		"enrich: RuntimeError: no answer 1\n", "enrich: Traceback (most recent call last):\n", "group:     | ValueError: in a child\n",
		"\nready in mutate\n", "\nopened in task None\n", "batch.0/late: stopping -> failed: timeout: ",
		"batch.0/enrich: ready -> waiting: exit-code: RuntimeError: no answer 2 after ",
	} {
		r.logs(what)
	}
	if log := r.logged(); strings.Contains(log, "<prefork tasks>") {
		t.Errorf("a traceback has frames of what runs the tasks")
	}
	if got := r.status(); !strings.HasPrefix(got, "1/1 ready; batch.0/") || !strings.Contains(got, " failed (") {
		t.Errorf("STATUS=%s", got)
	}
	out, _, code := prefork(t, "status", r.path("fleet.toml"))
	if code != 0 || !strings.Contains(out, "3/12 tasks ready, 3 finished\n  /") || strings.Contains(out, "/reconcile") ||
		strings.Index(out, "/group") > strings.Index(out, "/missing") {
		t.Errorf("exit status %d:\n%s", code, out)
	}
	out, _, code = prefork(t, "why", r.path("fleet.toml"), "batch.0/missing")
	if code != 0 || !strings.Contains(out, "batch.0/missing has been waiting for ") || !strings.Contains(out, "next: starts in ") {
		t.Errorf("exit status %d:\n%s", code, out)
	}
	if out, _, _ = prefork(t, "why", r.path("fleet.toml"), "batch.0"); !strings.Contains(out, "\n  reconcile    ready") {
		t.Errorf("why:\n%s", out)
	}

	// Whatever has failed, a stop is clean: all end, and then the lifespan.
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	log := r.logged()
	cleaned, closed := strings.Index(log, "reconcile has cleaned up: True"), strings.Index(log, "\nclosed\n")
	if cleaned < 0 || closed < cleaned || !strings.Contains(log, "batch.0: stopping -> exited: exited with status 0") {
		t.Error("not in this order: reconcile, the lifespan, status 0")
	}
}

// TestHowTasksEndTheirProcess: by their last end, by one that may not fail, and by what
// ends the loop itself.
func TestHowTasksEndTheirProcess(t *testing.T) {
	r := startTasks(t, `
[defaults]
restart = "no"
[worker.done]
tasks = { a = "tasks:returns", b = "tasks:interrupted" }
[worker.failed]
tasks = { a = "tasks:returns", b = { entry = "tasks:exits", args = [3] } }
[worker.vital]
lifespan = "tasks:lifespan"
[worker.vital.tasks]
a = { entry = "tasks:reconcile", args = [30, "vital"] }
b = { entry = "tasks:exits", args = [3], failure_action = "exit" }
[worker.child]
lifespan = "tasks:lifespan"
[worker.child.tasks]
a = { entry = "tasks:reconcile", args = [30, "child"] }
b = "tasks:child_interrupted"
[worker.broken]
tasks = { a = "tasks:returns" }
lifespan = "tasks:broken_lifespan"
[worker.stays]
tasks = { a = "tasks:never_ready" }
[worker.slow]
timeout_start_sec = "1s"
[worker.slow.tasks]
a = "tasks:never_ready"
b = { entry = "tasks:never_ready", type = "notify", timeout_start_sec = "2s" }
`)
	r.logs("done.0: ready -> exited: exited with status 0") // though its tasks return at once
	if got := r.slot("done.0"); got.State != "exited" {
		t.Errorf("done: %s", got.State)
	}
	for _, name := range []string{"failed", "vital", "child", "broken"} {
		r.eventually(name+" has failed", func() bool { return r.slot(name+".0").State == "failed" })
		if got := r.slot(name + ".0").Reason; !strings.Contains(got, "exited with status 1") {
			t.Errorf("%s: %s", name, got)
		}
	}
	r.logs("vital has cleaned up: True")
	r.logs("child has cleaned up: True")
	r.logs("prefork: KeyboardInterrupt in a task's child has ended the loop, and all tasks")
	if got := r.slot("broken.0").Reason; !strings.Contains(got, `its last status: "lifespan tasks:broken_lifespan: RuntimeError: no database"`) {
		t.Errorf("broken: %s", got)
	}
	// The limit of a task is its own, and not that of the process in which it is slow.
	r.eventually("a slow task that failed", func() bool { return r.task("slow.0/b").Result == "timeout" })
	for _, name := range []string{"stays.0", "slow.0"} {
		r.eventually(name+" is ready", func() bool { s := r.slot(name); return s.State == "ready" && s.NRestarts == 0 })
	}
}

// TestTaskThatBlocks: who blocks the loop of all is named with its line, and the process is
// aborted.
func TestTaskThatBlocks(t *testing.T) {
	r := startTasks(t, `
[worker.io]
watchdog_sec = "1s"
restart_sec = "1h"
restart_max_delay_sec = "1h"
tasks = { good = "tasks:never_ready", bad = "tasks:blocks" }
`)
	r.waitReady()
	r.eventually("an aborted process", func() bool { return r.slot("io.0").Result == "watchdog" })
	log := r.logged()
	named, aborted := strings.Index(log, "io.0/bad: blocks the loop since "), strings.Index(log, "io.0: ready -> stopping: no WATCHDOG=1")
	if named < 0 || aborted < named || !strings.Contains(log, "at tasks.py:") || !strings.Contains(log, "in blocks pid=") {
		t.Error("it is not named before it is aborted")
	}
	if got := r.slot("io.0").Reason; !strings.Contains(got, `its last status: "bad blocks the loop since `) {
		t.Errorf("got %s", got)
	}
	if !strings.Contains(log, " in blocks\n") {
		t.Error("there is no stack")
	}
}

// TestTaskThatSwallowsItsCancellation is named, and killed with its process.
func TestTaskThatSwallowsItsCancellation(t *testing.T) {
	r := startTasks(t, `
[worker.io]
timeout_stop_sec = "3s"
tasks = { good = "tasks:never_ready", bad = "tasks:swallows" }
`)
	r.waitReady()
	r.signal(syscall.SIGTERM)
	r.logs("io.0/good: stopping -> exited: cancelled after ")
	r.logs("io.0/bad: goes on after its cancellation at tasks.py:")
	r.logs(`its last status: "bad goes on after its cancellation at tasks.py:`)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// TestOrdersOfTasks does to tasks what an operator may, in one process; one that does not
// read what it is told is not waited for.
func TestOrdersOfTasks(t *testing.T) {
	r := startTasks(t, `
[worker.io]
lifespan = "tasks:lifespan"
[worker.io.tasks]
poller = { entry = "tasks:reconcile", args = [30] }
crash  = { entry = "tasks:exits", args = [3], restart_sec = "1h", restart_max_delay_sec = "1h" }
[worker.deaf]
watchdog_sec = 0
tasks = { bad = "tasks:blocks" }
`)
	r.waitReady()
	pid := r.slot("io.0").MainPID
	do := func(args ...string) {
		t.Helper()
		if _, stderr, code := prefork(t, slices.Insert(args, 1, r.path("fleet.toml"))...); code != 0 {
			t.Fatalf("%v: exit status %d: %s", args, code, stderr)
		}
	}
	is := func(name, state, reason string) func() bool {
		return func() bool {
			got := r.task("io.0/" + name)
			return got.State == state && strings.Contains(got.Reason, reason)
		}
	}
	do("restart", "io.0/poller")
	r.logs("reconcile has cleaned up: True")
	r.eventually("a restarted task", func() bool { s := r.task("io.0/poller"); return s.State == "ready" && s.NRestarts == 1 })
	do("stop", "io.0/poller")
	r.eventually("a stopped task", is("poller", "exited", "stop by uid "))
	r.eventually("a crash", is("crash", "waiting", "SystemExit: 3"))
	do("stop", "io.0/crash")
	r.eventually("the end of its wait", is("crash", "exited", "stop by uid "))
	do("start", "io.0/poller", "io.0/crash", "--no-wait")
	r.eventually("a started task", is("poller", "ready", "running"))
	r.eventually("another crash", is("crash", "waiting", "SystemExit: 3"))
	if s := r.slot("io.0"); s.MainPID != pid || s.State != "ready" {
		t.Errorf("got %+v", s)
	}
	for want, args := range map[string][]string{
		`io.0 has no task "nobody"; it has poller, crash`: {"stop", "io.0/nobody"},
		`has no slot "io.7"`:                              {"stop", "io.7/poller"},
		"kill is for workers and slots, not for one of":   {"kill", "io.0/poller"},
		"name tasks, or workers and slots, not both":      {"restart", "io.0/poller", "io"},
	} {
		_, stderr, code := prefork(t, slices.Insert(args, 1, r.path("fleet.toml"))...)
		if code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit status %d: %s", args, code, stderr)
		}
	}
	says(t, 1, []string{"deaf.0/bad: its process has not obeyed"}, "restart", r.path("fleet.toml"), "deaf.0/bad")
	r.eventually("orders that are not read", func() bool {
		_, stderr, code := prefork(t, "restart", "--no-wait", r.path("fleet.toml"), "deaf.0/bad")
		return code == 1 && strings.Contains(stderr, "does not read its orders: is its loop blocked?")
	})
	out, _, code := prefork(t, "__complete", "stop", r.path("fleet.toml"), "")
	if code != 0 || !strings.Contains(out, "io.0/poller\tready\n") {
		t.Errorf("completed: exit status %d, %q", code, out)
	}

	// A process that is killed takes its tasks with it, and its successor has them all.
	kill(t, int(pid), syscall.SIGKILL)
	r.eventually("a successor", func() bool {
		s := r.slot("io.0")
		return s.State == "ready" && s.MainPID != pid && s.NRestarts == 1 && r.task("io.0/poller").State == "ready"
	})
}

// TestExampleOfTasks runs ten workers of a monitoring product in four processes: two open
// their repository after the fork, four tasks share one, and four share one and a pool of
// processes, of which nothing is left.
func TestExampleOfTasks(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	file, err := os.ReadFile("../../packaging/examples/tasks/tasks.toml")
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile("../../packaging/examples/tasks/monitoring.py")
	if err != nil {
		t.Fatal(err)
	}
	r := prepare(t, string(file))
	r.write("monitoring.py", string(module))
	r.cmd.Env = append(r.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"), "STATE_DIRECTORY="+r.dir)
	r.start()
	r.waitReady()
	for _, name := range []string{"batch", "cpu"} {
		r.eventually("four tasks of "+name, func() bool {
			tasks := r.slot(name + ".0").Tasks
			return len(tasks) == 4 && !slices.ContainsFunc(tasks, func(t control.TaskStatus) bool { return t.State != "ready" })
		})
	}
	for _, slot := range []string{"profiler.0", "ttp.0", "batch.0", "cpu.0"} {
		r.child("prefork: " + slot)
	}
	pool, cpu := 0, int(r.slot("cpu.0").MainPID)
	for _, p := range processes(t) {
		if p.parent == cpu {
			pool++
		}
	}
	if pool != 2 {
		t.Errorf("a pool of %d processes", pool)
	}
	if got := r.task("batch.0/enrich").StatusText; got != "results are kept for 24 hours" {
		t.Errorf("it says %q", got)
	}
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	for _, slot := range []string{"batch.0", "cpu.0"} {
		r.logs(slot + ": stopping -> exited: exited with status 0")
	}
	if strings.Contains(r.logged(), "left behind") || strings.Contains(r.logged(), "Warning") {
		t.Error("something was left behind, or warned of")
	}
}

// TestAFloodOfTaskWords costs the slot that floods, and no other: the log has a line now
// and then, only tasks of the file are remembered, and what is shown is printable.
func TestAFloodOfTaskWords(t *testing.T) {
	r := startTasks(t, `
[worker.io]
tasks = { calm = "tasks:never_ready", flood = "tasks:floods" }
[worker.other]
exec = ["sleep", "987681"]
`)
	r.waitReady()
	r.logs("flooded")
	r.eventually("a muted log", func() bool { return strings.Contains(r.logged(), "of its tasks were too many, and not told") })
	if s := r.slot("io.0"); len(s.Tasks) != 2 || s.State != "ready" || strings.ContainsRune(s.Tasks[0].Reason, 0x1b) {
		t.Errorf("got %+v", s)
	}
	log := r.logged()
	if n := strings.Count(log, "io.0/calm:"); n > 400 || strings.ContainsRune(log, 0x1b) {
		t.Errorf("%d lines about a task", n)
	}
}
