// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/decnet/prefork/supervisor/control"
)

const clockFleet = `
[floor]
path = ["DIR"]
preload = ["app"]
[socket.http]
listen = "DIR/http.sock"
[worker.web]
entry = "app:serve"
count = 2
sockets = ["http"]
restart_sec = "10min"
restart_max_delay_sec = "10min"
[worker.clock]
exec = ["sleep", "987664"]
`

// curled is what curl gets as a probe: a status, and the text.
func curled(t *testing.T, address, path string) (status, text string) {
	t.Helper()
	out, err := exec.Command(tool(t, "curl"), "--silent", "--show-error", "--write-out", "%{http_code}", "http://"+address+path).CombinedOutput()
	if err != nil {
		t.Fatalf("curl: %v\n%s", err, out)
	}
	text, status, _ = strings.Cut(string(out), "\n")
	return status, text
}

// TestADeadWorkerIsNotReady: a clock that ticks does not keep a web without a process in
// the load balancer. Who waits is told as soon as it serves.
func TestADeadWorkerIsNotReady(t *testing.T) {
	address, file := monitored(t, clockFleet)
	r := startSeen(t, file)
	r.waitReady()
	want := func(query, status, text string) {
		t.Helper()
		if gotStatus, got := curled(t, address, "/readyz"+query); gotStatus != status || !strings.HasPrefix(got, text) {
			t.Errorf("/readyz%s: %s %s, want %s %s", query, gotStatus, got, status, text)
		}
	}
	want("", "200", "3/3 ready")
	want("?worker=web&min=2", "200", "3/3 ready")
	want("?worker=web&min=3", "503", "web: 2 of 2 ready, needs 3; 3/3 ready")
	want("?worker=wbe", "404", `there is no worker "wbe"; the fleet has web, clock`)
	want("?worker=web&min=two", "400", `min must be a number`)

	for _, p := range r.children("prefork: web.") {
		kill(t, p.pid, syscall.SIGKILL)
	}
	r.eventually("both web slots wait", func() bool { return value(t, address, `prefork_slots{worker="web",state="waiting"}`) == 2 })
	want("", "503", "web: 0 of 2 ready, needs 1; 1/3 ready; web.")
	want("?worker=clock", "200", "1/3 ready")
	if got := value(t, address, "prefork_fleet_ready"); got != 0 {
		t.Errorf("prefork_fleet_ready is %v", got)
	}

	out, _, _ := prefork(t, "status", "--json", r.path("fleet.toml"))
	var seen control.Status
	if err := json.Unmarshal([]byte(out), &seen); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := []control.WorkerStatus{{Name: "web", Slots: 2, Waiting: 2, Needs: 1}, {Name: "clock", Slots: 1, Ready: 1}}; !slices.Equal(seen.Workers, want) {
		t.Errorf("got %+v, want %+v", seen.Workers, want)
	}

	if _, stderr, code := prefork(t, "status", "--wait-ready", "--timeout", "10ms", r.path("fleet.toml")); code != 1 ||
		!strings.Contains(stderr, "is not ready after 10ms: web: 0 of 2 ready, needs 1; 1/3 ready") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit status %d: %s", code, stderr)
	}
	waits := r.waiter("--worker", "web", "--min", "2")
	for _, slot := range []string{"web.0", "web.1"} {
		if _, stderr, code := prefork(t, "start", r.path("fleet.toml"), slot); code != 0 {
			t.Fatalf("exit status %d: %s", code, stderr)
		}
	}
	if end := <-waits; !strings.HasPrefix(end, "0: fleet: active, 3/3 ready") {
		t.Errorf("it waited until %s", end)
	}
	want("", "200", "3/3 ready")
}

// TestWaitingForAFleetThatDoesNotRunYet: as in a script that has just started it.
func TestWaitingForAFleetThatDoesNotRunYet(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	r := prepare(t, "[worker.a]\nexec = [\"sleep\", \"987668\"]\n")
	r.cmd.Env = append(r.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	if _, stderr, code := prefork(t, "status", "--wait-ready", "--timeout", "1ms", r.path("fleet.toml")); code != 1 || !strings.Contains(stderr, "does not run") {
		t.Errorf("exit status %d: %s", code, stderr)
	}
	if _, stderr, code := prefork(t, "status", "--wait-ready", "--timeout", "10min", r.path("other.toml")); code != 1 || !strings.Contains(stderr, "no such file") {
		t.Errorf("exit status %d: %s", code, stderr)
	}
	waits := r.waiter("--timeout", "10min")
	eventually(t, "it watches where the fleet is to be", func() bool {
		return slices.ContainsFunc(processes(t), func(p process) bool {
			return p.parent == os.Getpid() && strings.Contains(p.title, "--wait-ready") && watches(p.pid)
		})
	})
	r.start()
	if end := <-waits; !strings.HasPrefix(end, "0: fleet: active, 1/1 ready") {
		t.Errorf("it waited until %s", end)
	}
}

// watches reports whether a process has a descriptor of inotify(7).
func watches(pid int) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is sound
	return slices.ContainsFunc(fds, func(fd string) bool {
		target, _ := os.Readlink(fd) // "" if it has been closed
		return target == "anon_inode:inotify"
	})
}

// waiter runs prefork status --wait-ready, and tells its exit status and what it said.
func (r *rig) waiter(args ...string) <-chan string {
	ended := make(chan string, 1)
	go func() {
		out, stderr, code := prefork(r.t, append([]string{"status", "--wait-ready", r.path("fleet.toml")}, args...)...)
		ended <- fmt.Sprintf("%d: %s%s", code, out, stderr)
	}()
	return ended
}

// TestWaitingForAFleetThatEnds: nobody waits for one that stops, and what is asked for in
// vain is said.
func TestWaitingForAFleetThatEnds(t *testing.T) {
	r := startSeen(t, "[worker.late]\nexec = [\"sleep\", \"987665\"]\ntype = \"notify\"\n")
	r.eventually("it starts", func() bool { return strings.HasPrefix(r.status(), "0/1 ready") })
	waits := r.waiter()
	r.signal(syscall.SIGTERM)
	if end := <-waits; !strings.HasPrefix(end, "1: ") || strings.Count(end, "\n") != 1 ||
		!strings.Contains(end, " stops: ") && !strings.Contains(end, " has ended before it was ready: ") && !strings.Contains(end, "does not run") {
		t.Errorf("it waited until %s", end)
	}
	r.wait()
	for _, args := range [][]string{
		{"--worker", "web"}, {"--timeout", "5s"}, {"--min", "2"}, {"--wait-ready", "--min", "0"}, {"--wait-ready", "--timeout", "soon"},
	} {
		if _, stderr, code := prefork(t, append([]string{"status", r.path("fleet.toml")}, args...)...); code != 2 {
			t.Errorf("%v: exit status %d: %s", args, code, stderr)
		}
	}
	if _, stderr, code := prefork(t, "status", "--wait-ready"); code != 2 {
		t.Errorf("exit status %d: %s", code, stderr)
	}
}

// TestNamedWorkersAreNeeded: [metrics] says which, in place of those that have sockets, and
// a reload takes that up.
func TestNamedWorkersAreNeeded(t *testing.T) {
	address, file := monitored(t, clockFleet)
	r := startSeen(t, strings.Replace(file, "[metrics]\n", "[metrics]\nready = [\"clock\"]\n", 1))
	r.waitReady()
	kill(t, r.child("sleep 987664").pid, syscall.SIGTERM) // a clean exit: it has finished
	r.eventually("/readyz misses the clock", func() bool {
		status, text := probe(t, address, "/readyz")
		return status == 503 && strings.HasPrefix(text, "clock: 0 of 1 ready, needs 1; ")
	})
	r.write("fleet.toml", strings.ReplaceAll(file, "DIR", r.dir))
	if _, stderr, code := prefork(t, "reload", r.path("fleet.toml")); code != 0 {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	if status, text := probe(t, address, "/readyz"); status != 200 {
		t.Errorf("/readyz: %d, %s", status, text)
	}
}

// TestVitalWorkers: the end of one slot is that of the fleet, with its status, also while
// the fleet starts. The others are asked to end.
func TestVitalWorkers(t *testing.T) {
	const others = "\n[worker.late]\nexec = [\"sh\", \"DIR/saves.sh\", \"late\"]\ntype = \"notify\"\n"
	for name, c := range map[string]struct {
		file, said string
		code       int
	}{
		"fails":        {"restart = \"no\"\nfailure_action = \"exit\"\nexec = [\"sh\", \"DIR/end.sh\", \"3\"]", `fleet fails: job.0 failed (failure_action = "exit"): exit-code: exited with status 3`, 1},
		"start limit":  {"start_limit_burst = 2\nrestart_sec = \"1ms\"\nfailure_action = \"exit\"\nexec = [\"sh\", \"DIR/end.sh\", \"3\"]", `fleet fails: job.0 failed (failure_action = "exit"): start-limit-hit: 2 starts`, 1},
		"no such file": {"restart = \"no\"\nfailure_action = \"exit\"\nexec = [\"/nowhere/job\"]", `fleet fails: job.0 failed (failure_action = "exit"): `, 1},
		"finishes":     {"success_action = \"exit\"\nexec = [\"sh\", \"DIR/end.sh\", \"0\"]", `fleet stops: job.0 finished (success_action = "exit"): exited with status 0`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := prepare(t, "[worker.job]\n"+c.file+others)
			r.write("saves.sh", savesScript)
			r.write("end.sh", "while ! [ -s \"$OUT\" ]; do sleep 0.05; done; exit $1")
			r.start()
			if code := r.wait(); code != c.code {
				t.Errorf("exit status %d, want %d", code, c.code)
			}
			if !strings.Contains(r.logged(), c.said) {
				t.Errorf("the log does not say %s", c.said)
			}
			if name != "no such file" && !slices.Contains(r.told(), "late saved") {
				t.Errorf("the other worker was not asked to end: %v", r.told())
			}
		})
	}
}

// TestDrain: a fleet that drains takes itself out of the load balancer, and serves on: its
// socket accepts, and a process that dies is replaced. A second signal stops it.
func TestDrain(t *testing.T) {
	address, file := monitored(t, strings.ReplaceAll(clockFleet, `"10min"`, `"1ms"`))
	r := startSeen(t, "stop_delay_sec = \"10min\"\n"+file)
	r.waitReady()
	r.signal(syscall.SIGTERM)
	r.eventually("/readyz says that it drains", func() bool {
		status, text := probe(t, address, "/readyz")
		return status == 503 && strings.HasPrefix(text, "draining: stops in ")
	})
	if status, _ := probe(t, address, "/healthz"); status != 200 {
		t.Errorf("/healthz: %d", status)
	}
	out, _, _ := prefork(t, "status", r.path("fleet.toml"))
	if !strings.HasPrefix(out, "fleet: deactivating, draining: stops in ") {
		t.Errorf("status says\n%s", out)
	}
	for _, p := range r.children("prefork: web.") {
		kill(t, p.pid, syscall.SIGKILL)
	}
	r.eventually("both were replaced", func() bool {
		return value(t, address, `prefork_restarts_total{worker="web",result="signal"}`) == 2 &&
			value(t, address, `prefork_slots{worker="web",state="ready"}`) == 2
	})
	if pid, err := r.get(); err != nil || pid == 0 {
		t.Errorf("a request while it drains: %d, %v", pid, err)
	}
	if _, stderr, code := prefork(t, "restart", r.path("fleet.toml"), "web"); code != 1 || !strings.Contains(stderr, "the fleet stops") {
		t.Errorf("restart: exit status %d: %s", code, stderr)
	}
	if end := <-r.waiter(); !strings.HasPrefix(end, "1: ") || !strings.Contains(end, " stops: draining: stops in ") {
		t.Errorf("who waits for it was told %s", end)
	}
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	stopping := 0
	for _, said := range r.notifications() {
		stopping += strings.Count(said, "STOPPING=1")
	}
	if log := r.logged(); stopping != 1 || !strings.Contains(log, "fleet stops: SIGTERM again: no more delay") || strings.Contains(log, "SIGKILL to") {
		t.Errorf("STOPPING=1 was said %d times", stopping)
	}
}

// TestDrainEnds: when the delay is over, a fleet stops by itself.
func TestDrainEnds(t *testing.T) {
	r := prepare(t, "stop_delay_sec = \"200ms\"\n[worker.a]\nexec = [\"sh\", \"DIR/saves.sh\", \"a\"]\n")
	r.write("saves.sh", savesScript)
	r.start()
	r.waitReady()
	r.pidOf("a", 1)
	r.signal(syscall.SIGINT)
	if code := r.wait(); code != 0 || !slices.Contains(r.told(), "a saved") {
		t.Errorf("exit status %d, told %v", code, r.told())
	}
	if log := r.logged(); !strings.Contains(log, "fleet drains: SIGINT") || !strings.Contains(log, "fleet stops: SIGINT") {
		t.Error("the log does not say that it drained, and stopped")
	}
}
