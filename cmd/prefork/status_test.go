// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
)

const troubledFleet = `
ready_when = 2
[worker.well]
exec = ["sleep", "987671"]
count = 2

[worker.crash]
exec = ["sh", "-c", "exit 3"]
restart_sec = "10min"
restart_max_delay_sec = "10min"
`

// startSeen starts a fleet that this user can find.
func startSeen(t *testing.T, file string) *rig {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	r := prepare(t, file)
	r.cmd.Env = append(r.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	r.start()
	return r
}

func TestStatusOfAFleetInTrouble(t *testing.T) {
	r := startSeen(t, troubledFleet)
	r.eventually("a fleet in trouble", func() bool { return strings.HasPrefix(r.status(), "2/3 ready; crash.0 restarts in") })

	out, _, code := prefork(t, "status", r.path("fleet.toml"))
	lines := strings.Split(out, "\n")
	if code != 0 || !strings.HasPrefix(out, "fleet: active, 2/3 ready; crash.0 restarts in ") {
		t.Errorf("exit status %d:\n%s", code, out)
	}
	if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "crash.0") }); i < 1 || !strings.HasPrefix(lines[i-1], "SLOT") ||
		!strings.Contains(lines[i+1], "exit-code: exited with status 3") {
		t.Errorf("crash.0 does not come first, with its reason:\n%s", out)
	}
	out, _, code = prefork(t, "status", "--json", r.path("fleet.toml"))
	var f control.Status
	if err := json.Unmarshal([]byte(out), &f); err != nil || code != 0 {
		t.Fatalf("exit status %d, %v:\n%s", code, err, out)
	}
	crash := f.Slots[slices.IndexFunc(f.Slots, func(s control.SlotStatus) bool { return s.Name == "crash.0" })]
	due := time.UnixMicro(int64(crash.NextStartTimestamp))
	if int(f.MainPID) != r.pid() || f.File != r.path("fleet.toml") || len(f.Slots) != 3 || crash.State != "waiting" || crash.Result != "exit-code" || crash.Failures != 1 ||
		time.Until(due) < time.Minute || time.Until(due) > 12*time.Minute {
		t.Errorf("got %+v", f)
	}

	well := f.Slots[slices.IndexFunc(f.Slots, func(s control.SlotStatus) bool { return s.Name == "well.0" })]
	if well.MemoryPrivate == 0 || well.MemoryShared == 0 || well.FreezerState != "running" || crash.MemoryPrivate != 0 {
		t.Errorf("measured: %+v, and without a process: %+v", well, crash)
	}

	out, _, code = prefork(t, "why", r.path("fleet.toml"), "crash.0")
	for _, want := range []string{"crash.0 has been waiting for ", "why: exit-code: exited with status 3", "next: starts in ", "failures in a row: 1", "The last events:\n", " -> waiting: exit-code: exited with status 3"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("why: exit status %d, want %q in:\n%s", code, want, out)
		}
	}
	if out, _, code = prefork(t, "logs", r.path("fleet.toml"), "well"); code != 0 || strings.Count(out, "starting -> ready") != 2 || strings.Contains(out, "crash") {
		t.Errorf("logs: exit status %d:\n%s", code, out)
	}
	if _, stderr, code := prefork(t, "why", r.path("fleet.toml"), "crash.1"); code != 1 || !strings.Contains(stderr, "it has crash.0, well.0, well.1") {
		t.Errorf("why of no slot: exit status %d: %s", code, stderr)
	}

	out, _, code = prefork(t, "status")
	if code != 0 || !strings.Contains(out, "\nfleet") {
		t.Errorf("all fleets: exit status %d:\n%s", code, out)
	}
}

// commandsOnSlots are those that ask a master, with arguments after FLEET. One that
// is missing here fails TestEveryCommandIsTried.
var commandsOnSlots = map[string][]string{
	"status": nil, "top": nil, "memory": {"w.0"}, "why": {"w.0"}, "logs": {"w.0"}, "start": {"w.0"}, "stop": {"w.0"}, "restart": {"w.0"}, "reset": {"w.0"},
	"kill": {"w.0"}, "freeze": {"w.0"}, "thaw": {"w.0"}, "stacks": {"w.0"}, "reload": nil, "cancel": nil, "scale": {"w=2"},
}

func TestEveryCommandIsTried(t *testing.T) {
	elsewhere := []string{"run", "check", "init", "version", "help", "completion", "check-zygote", "enable", "disable", "is-active"}
	for _, c := range newRoot().Commands() {
		if _, ok := commandsOnSlots[c.Name()]; !ok && !slices.Contains(elsewhere, c.Name()) {
			t.Errorf("%s is not tried on fleets that do not answer", c.Name())
		}
	}
}

// TestEveryCommandSaysWhatIsWrong: no such fleet, one that does not run, no such
// slot, and a master that is stuck, with which no command hangs.
func TestEveryCommandSaysWhatIsWrong(t *testing.T) {
	r := startSeen(t, "[worker.w]\nexec = [\"sleep\", \"987672\"]\n")
	r.waitReady()
	r.write("idle.toml", "[worker.w]\nexec = [\"true\"]\n")
	fails := func(want, file, name string, args []string) {
		t.Helper()
		out, stderr, code := prefork(t, append([]string{name, r.path(file)}, args...)...)
		if code != 1 || out != "" || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s of %s: exit status %d, %q, %q; want %q", name, file, code, out, stderr, want)
		}
	}
	for name, args := range commandsOnSlots {
		fails("no fleet runs by that name, and: stat "+r.path("none.toml")+": no such file", "none.toml", name, args)
		fails("does not run; start it: prefork run "+r.path("idle.toml"), "idle.toml", name, args)
		if args != nil && name != "scale" {
			fails(`"w.7"; it has w.0`, "fleet.toml", name, []string{"w.7"})
		}
	}
	fails("there is no worker v", "fleet.toml", "scale", []string{"v=2"})
	fails("no change is under way", "fleet.toml", "cancel", nil)
	fails("there are no control groups to freeze it with", "fleet.toml", "freeze", []string{"w.0"})

	r.signal(syscall.SIGSTOP)
	defer r.signal(syscall.SIGCONT)
	var all sync.WaitGroup
	for name, args := range commandsOnSlots {
		all.Go(func() { fails("its master does not answer: it is stuck, or stopped", "fleet.toml", name, args) })
	}
	all.Wait()
}

// TestStatusAfterAKilledMaster finds a socket that nobody serves.
func TestStatusAfterAKilledMaster(t *testing.T) {
	r := startSeen(t, "[worker.w]\nexec = [\"sleep\", \"987673\"]\n")
	r.waitReady()
	r.signal(syscall.SIGKILL)
	<-r.exited
	_, stderr, code := prefork(t, "status", r.path("fleet.toml"))
	if code != 1 || !strings.Contains(stderr, "does not run; start it: prefork run ") {
		t.Errorf("exit status %d: %s", code, stderr)
	}
}

// TestStatusTable is what an operator sees of every state.
func TestStatusTable(t *testing.T) {
	now := time.UnixMicro(1_000_000_000)
	at := func(d time.Duration) uint64 { return uint64(now.Add(d).UnixMicro()) }
	f := &control.Status{
		Name: "edge", File: "/etc/prefork/edge.toml", MainPID: 812, ActiveState: "active", Generation: 2,
		StatusText: "3/7 ready; old.0 failed (start-limit-hit); 2 more in trouble",
		Slots: []control.SlotStatus{
			{Name: "web.0", State: "ready", MainPID: 901, StateTimestamp: at(-90 * time.Minute), StatusText: "serving"},
			{Name: "web.1", State: "starting", MainPID: 955, StateTimestamp: at(-200 * time.Millisecond)},
			{Name: "api.0", State: "listening", StateTimestamp: at(-time.Hour)},
			{
				Name: "sniffer.0", State: "waiting", StateTimestamp: at(-3 * time.Second), Failures: 4, NRestarts: 4, NextStartTimestamp: at(8 * time.Second),
				Reason: "exit-code: exited with status 1 after 2.1s; its last status: \"no such device eth7\"; starts again in 8.2s (4th failure in a row)",
			},
			{Name: "once.0", State: "exited", StateTimestamp: at(-time.Minute), Result: "success"},
			{Name: "old.0", State: "failed", StateTimestamp: at(-26 * time.Hour), NRestarts: 5, Reason: "start-limit-hit: 5 starts within 10s (start_limit_burst); gave up"},
			{Name: "late.0", State: "waiting", StateTimestamp: at(-time.Second), NRestarts: 1},
		},
	}
	const want = `edge: active, 3/7 ready; old.0 failed (start-limit-hit); 2 more in trouble
  /etc/prefork/edge.toml, master 812, floor generation 2

SLOT       STATE      PID  SINCE     RESTARTS  NOW
old.0      failed     -    1d 2h     5
    start-limit-hit: 5 starts within 10s (start_limit_burst); gave up
sniffer.0  waiting    -    3s        4         starts in 8s
    exit-code: exited with status 1 after 2.1s; its last status: "no such
    device eth7"; starts again in 8.2s (4th failure in a row)
late.0     waiting    -    1s        1         waits for the floor
web.1      starting   955  200ms     0
web.0      ready      901  1h 30min  0         serving
api.0      listening  -    1h        0
once.0     exited     -    1min      0
`
	var b strings.Builder
	if err := writeFleet(&b, f, "", now); err != nil || b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestStatusTableOfFleets(t *testing.T) {
	var b strings.Builder
	err := writeFleets(&b, []control.Status{
		{Name: "idle", ActiveState: "inactive", File: "/etc/prefork/idle.toml"},
		{Name: "well", ActiveState: "active", StatusText: "1/1 ready"},
		{Name: "ill", ActiveState: "active", StatusText: strings.Repeat("x", 100), Slots: []control.SlotStatus{{State: "failed"}}},
	})
	want := "FLEET  STATE     STATUS\nill    active    " + strings.Repeat("x", 62) + "…\n" +
		"idle   inactive  /etc/prefork/idle.toml\nwell   active    1/1 ready\n"
	if err != nil || b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// slot asks the master about one slot.
func (r *rig) slot(name string) (s control.SlotStatus) {
	r.t.Helper()
	f, err := reach.Look(r.path("fleet.toml"))
	if err != nil {
		r.t.Fatal(err)
	}
	if i := slices.IndexFunc(f.Slots, func(s control.SlotStatus) bool { return s.Name == name }); i >= 0 {
		return f.Slots[i]
	}
	r.t.Fatalf("no slot %s in %+v", name, f)
	return s
}

// TestOperations does to slots what an operator may, and leaves the others alone.
func TestOperations(t *testing.T) {
	r := startSeen(t, `
[worker.w]
exec = ["sleep", "987674"]
count = 2
[worker.sick]
exec = ["false"]
start_limit_burst = 1
start_limit_interval_sec = "1h"
restart_sec = 0
`)
	r.eventually("one that gave up", func() bool { return strings.Contains(r.status(), "sick.0 failed") })
	do := func(args ...string) {
		t.Helper()
		if _, stderr, code := prefork(t, slices.Insert(args, 1, r.path("fleet.toml"))...); code != 0 {
			t.Fatalf("%v: exit status %d: %s", args, code, stderr)
		}
	}
	other, first := r.slot("w.1").MainPID, r.slot("w.0").MainPID
	ready := func(name string) func() bool { return func() bool { return r.slot(name).State == "ready" } }

	do("restart", "w.0")
	r.eventually("a restarted slot", func() bool { s := r.slot("w.0"); return s.State == "ready" && s.MainPID != first })
	do("kill", "w.0")
	r.eventually("the end of a clean exit", func() bool { return r.slot("w.0").State == "exited" })
	do("start", "w")
	r.eventually("a started slot", ready("w.0"))
	do("stop", "w.0")
	r.eventually("a stopped slot", func() bool { return r.slot("w.0").State == "exited" })
	do("start", "w.0")
	r.eventually("a started slot", ready("w.0"))
	do("kill", "w.0", "--signal=KILL")
	r.eventually("a failure", func() bool { return r.slot("w.0").Result == "signal" })
	do("reset", "w.0")
	r.eventually("a slot that need not wait", ready("w.0"))

	// What a shell asks for after "prefork stop FLEET w.0 ".
	out, _, code := prefork(t, "__complete", "stop", r.path("fleet.toml"), "w.0", "")
	if want := "w\nw.1\tready\nsick.0\tfailed\nsick\n"; code != 0 || !sameLines(out, want) {
		t.Errorf("completed: exit status %d, %q, want %q", code, out, want)
	}

	restarts := r.slot("sick.0").NRestarts
	do("reset", "sick")
	r.eventually("another try", func() bool { s := r.slot("sick.0"); return s.State == "failed" && s.NRestarts > restarts })
	if got := r.slot("w.1").MainPID; got != other {
		t.Errorf("w.1 has process %d, had %d", got, other)
	}
	if _, stderr, code := prefork(t, "kill", r.path("fleet.toml"), "w.0"); code != 0 || stderr != "" {
		t.Errorf("exit status %d: %s", code, stderr)
	}
	r.eventually("the end", func() bool { return r.slot("w.0").State == "exited" })
	if _, stderr, code := prefork(t, "kill", r.path("fleet.toml"), "w.0"); code != 1 || !strings.Contains(stderr, "w.0: w.0 has no process: it is exited") {
		t.Errorf("exit status %d: %s", code, stderr)
	}
}

// TestWorkerMayNotOperate: one has the user of its master, and a terminal's
// master is that user's to steer.
func TestWorkerMayNotOperate(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	r := prepare(t, `
[worker.calm]
exec = ["sleep", "987675"]
[worker.rebel]
exec = ["env", "PREFORK_TEST_ROLE=prefork", "`+self(t)+`", "stop", "DIR/fleet.toml", "calm.0"]
restart = "no"
`)
	r.cmd.Env = append(r.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	r.start()
	r.eventually("an answer", func() bool {
		return strings.Contains(r.logged(), "rebel.0: ready -> failed: exit-code: exited with status 1")
	})
	if !strings.Contains(r.logged(), "calm.0: a process of the fleet may not change it") {
		t.Error("the worker was not refused")
	}
	if s := r.slot("calm.0"); s.State != "ready" {
		t.Errorf("got %+v", s)
	}
}

// sameLines compares what is completed, in any order, without the directive after
// it.
func sameLines(completed, want string) bool {
	got, _, _ := strings.Cut(completed, "\n:")
	a, b := strings.Split(got, "\n"), strings.Split(strings.TrimSpace(want), "\n")
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
