// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const webFleet = `
[floor]
path = ["DIR"]
preload = ["app"]
[socket.http]
listen = "DIR/http.sock"
[defaults]
restart_sec = "100ms"
[worker.web]
entry = "app:serve"
count = 4
sockets = ["http"]
`

// A client that never stops asking sees several workers and no failure, while
// one worker after the other is killed.
func TestKilledWorkerIsReplacedWithoutAFailedConnection(t *testing.T) {
	r := start(t, webFleet)
	r.waitReady()
	seen := map[int]bool{}
	ask := func() int {
		pid, err := r.get()
		if err != nil {
			t.Fatal(err)
		}
		seen[pid] = true
		return pid
	}
	for range 5 {
		victim := ask()
		kill(t, victim, unix.SIGKILL)
		// Until it is gone the kernel may still hand it a connection.
		r.eventually("the victim is gone", func() bool { return !alive(victim) })
		for range 20 {
			ask()
		}
	}
	r.eventually("all slots are back", func() bool { return len(r.children("prefork: web.")) == 4 })
	if len(seen) < 3 {
		t.Errorf("%d workers answered, want several", len(seen))
	}
	if !strings.Contains(r.status(), "/4 ready") {
		t.Errorf("status is %q", r.status())
	}
}

func TestZygoteDiesWhileWorkersServe(t *testing.T) {
	r := start(t, webFleet)
	r.waitReady()
	workers := pids(r.children("prefork: web."))
	r.child("prefork: spare [fleet] gen 1")
	kill(t, r.child("prefork: floor").pid, unix.SIGKILL)
	r.child("prefork: floor [fleet] gen 2")
	if got := pids(r.children("prefork: web.")); !slices.Equal(got, workers) {
		t.Errorf("workers are %v, were %v", got, workers)
	}
	if _, err := r.get(); err != nil {
		t.Error(err)
	}
	// The first successor is the spare of generation 1, the next is of 2.
	kill(t, workers[0], unix.SIGKILL)
	kill(t, workers[1], unix.SIGKILL)
	r.eventually("a successor of generation 2", func() bool {
		all := r.children("prefork: web.")
		return len(all) == 4 && slices.ContainsFunc(all, func(p process) bool { return strings.HasSuffix(p.title, "gen 2") })
	})
}

// A zygote that is stopped neither forks nor dies: it is replaced.
func TestSilentZygoteIsReplaced(t *testing.T) {
	r := start(t, strings.Replace(webFleet, "[floor]", "[floor]\nspares = 0", 1))
	r.waitReady()
	floor := r.child("prefork: floor [fleet] gen 1").pid
	kill(t, floor, unix.SIGSTOP)
	kill(t, r.child("prefork: web.0").pid, unix.SIGKILL)
	r.eventually("a floor of generation 2 and all slots", func() bool {
		return len(r.children("prefork: floor [fleet] gen 2")) == 1 && len(r.children("prefork: web.")) == 4
	})
	if alive(floor) {
		t.Error("the silent floor is still there")
	}
}

func pids(ps []process) (pids []int) {
	for _, p := range ps {
		pids = append(pids, p.pid)
	}
	slices.Sort(pids)
	return pids
}

// Outside systemd nothing may outlive the master.
func TestMasterIsKilled(t *testing.T) {
	r := start(t, webFleet+"[worker.exec]\nexec = [\"sleep\", \"987660\"]\n")
	r.waitReady()
	r.eventually("the spare", func() bool { return len(r.children("prefork: spare")) == 1 })
	all := r.children("")
	if len(all) != 8 {
		t.Fatalf("%d children, want 4 web, 1 exec, 1 spare, 1 prepared shim, 1 floor: %v", len(all), all)
	}
	r.signal(unix.SIGKILL)
	r.wait()
	for _, p := range all {
		eventually(t, p.title+" ends", func() bool { return !alive(p.pid) })
	}
}

func TestStopKillsWhatIgnoresIt(t *testing.T) {
	r := start(t, `
[floor]
path = ["DIR"]
preload = ["app"]
[worker.stubborn]
entry = "app:stubborn"
timeout_stop_sec = "300ms"
`)
	worker := r.waitNotes(1)[0]
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
	if alive(worker.PID) {
		t.Error("the worker is still there")
	}
	if !slices.Contains(r.notifications(), "STOPPING=1") {
		t.Error("STOPPING=1 was not sent")
	}
	if !strings.Contains(r.logged(), "fleet shut down") {
		t.Error("the log does not say that the fleet shut down")
	}
}

func TestSecondSignalKillsAtOnce(t *testing.T) {
	r := start(t, `
[floor]
path = ["DIR"]
preload = ["app"]
[worker.stubborn]
entry = "app:stubborn"
timeout_stop_sec = "infinity"
`)
	r.waitNotes(1)
	r.signal(unix.SIGTERM)
	r.eventually("STOPPING=1", func() bool { return slices.Contains(r.notifications(), "STOPPING=1") })
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
}

// Whatever a worker leaves behind goes with it: in its session, forked into
// another one, and executed in another one.
func TestWhatACrashedWorkerLeftIsKilled(t *testing.T) {
	r := start(t, `
[floor]
path = ["DIR"]
preload = ["app"]
[worker.messy]
entry = "app:orphans"
restart_sec = "100ms"
`)
	worker := r.waitNotes(1)[0]
	var left []process
	r.eventually("descendants", func() bool {
		left = nil
		for _, p := range processes(t) {
			if strings.HasPrefix(p.title, "sleep 98765") || p.title == "prefork: messy.0 [fleet] gen 1" && p.pid != worker.PID {
				left = append(left, p)
			}
		}
		return len(left) == 4
	})
	kill(t, worker.PID, unix.SIGKILL)
	r.waitNotes(2)
	for _, p := range left {
		if alive(p.pid) {
			t.Errorf("%s (pid %d) outlived its worker", p.title, p.pid)
		}
	}
	r.signal(unix.SIGTERM)
	r.wait()
	for _, p := range processes(t) {
		if strings.HasPrefix(p.title, "sleep 98765") {
			t.Errorf("%s is left after the fleet has ended", p.title)
		}
	}
}

func TestFleetThatFinishes(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		args []string
		code int
	}{
		"every slot finishes": {"[floor]\npath = [\"DIR\"]\npreload = [\"app\"]\n[worker.a]\nentry = \"app:finish\"\n[worker.b]\nexec = [\"true\"]\n", nil, 0},
		"empty":               {"description = \"nothing\"\n", nil, 0},
		"one fails":           {"[worker.a]\nexec = [\"true\"]\n[worker.b]\nexec = [\"false\"]\nrestart = \"no\"\n", nil, 1},
		"stop-after":          {"[worker.a]\nexec = [\"sleep\", \"987670\"]\n", []string{"--stop-after", "300ms"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, c.file, c.args...)
			if code := r.wait(); code != c.code {
				t.Errorf("exit status %d, want %d", code, c.code)
			}
			if c.code == 0 && !slices.Contains(r.notifications(), "READY=1") {
				t.Error("READY=1 was not sent before exit 0")
			}
		})
	}
}

// A crash loop backs off by itself, and the worker beside it does not notice.
func TestCrashLoopBacksOff(t *testing.T) {
	r := start(t, webFleet+`
[worker.bad]
entry = "app:crash"
restart_max_delay_sec = "800ms"
`, "--debug")
	r.eventually("five failures in a row", func() bool { return strings.Contains(r.logged(), "5th failure in a row") })
	var delays []string
	for line := range strings.Lines(r.logged()) {
		if _, after, ok := strings.Cut(line, "starts again in "); ok && strings.HasPrefix(line, "bad.0") {
			delays = append(delays, after[:strings.IndexByte(after, ' ')])
		}
	}
	want := []time.Duration{100, 200, 400, 800, 800}
	for i, w := range want {
		got, err := time.ParseDuration(delays[i])
		if most := w * 111 / 100 * time.Millisecond; err != nil || got < w*time.Millisecond || got > most {
			t.Errorf("delay %d is %s, want %d to %d ms", i+1, delays[i], w, most.Milliseconds())
		}
	}
	if _, err := r.get(); err != nil {
		t.Error(err)
	}
}

func TestBrokenFloorEndsTheFleetWithItsCause(t *testing.T) {
	for name, c := range map[string]struct{ app, floor, want string }{
		"raises":         {"raise ValueError('no luck')", "", "ValueError: no luck"},
		"missing module": {"import no_such_module", "", "No module named 'no_such_module'"},
		"exits":          {"import sys; sys.exit(0)", "", "SystemExit"},
		"thread":         {"import threading, time; threading.Thread(target=time.sleep, args=(1000,), name='culprit', daemon=True).start()", "", "culprit"},
		"socket":         {"import socket; s = socket.socket()", "", "socket"},
		"never finishes": {"import time; time.sleep(1000)", "timeout", "importing broken"},
		"no interpreter": {"", "python = \"DIR/no-python\"", "no-python"},
	} {
		t.Run(name, func(t *testing.T) {
			timeout, floor := "", c.floor
			if floor == "timeout" {
				timeout, floor = "timeout_start_sec = \"2s\"\n", ""
			}
			r := prepare(t, timeout+"[floor]\npath = [\"DIR\"]\npreload = [\"broken\"]\n"+floor+"\n[worker.a]\nentry = \"broken:main\"\n")
			r.write("broken.py", c.app+"\n")
			r.start()
			if code := r.wait(); code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
			if !strings.Contains(r.logged(), c.want) {
				t.Errorf("the log does not name the cause %q", c.want)
			}
			if !strings.Contains(r.status(), c.want) {
				t.Errorf("the last STATUS is %q, want the cause %q", r.status(), c.want)
			}
			if slices.Contains(r.notifications(), "READY=1") {
				t.Error("READY=1 was sent")
			}
		})
	}
}

// 1,000 slots start, are all killed at once, and all come back; the master pays
// two descriptors at most for each, and no thread.
func TestThousandSlots(t *testing.T) {
	const slots = 1000
	r := start(t, fmt.Sprintf(`
ready_when = "all"
[floor]
path = ["DIR"]
preload = ["app"]
[worker.many]
entry = "app:idle"
count = %d
restart_sec = "100ms"
timeout_stop_sec = "5s"
`, slots))
	r.waitReady()
	r.eventually("the spare", func() bool { return len(r.children("prefork: spare")) == 1 })
	threads, fds := r.threads(), len(r.fdTable())
	before := r.children("prefork: many.")
	if len(before) != slots {
		t.Fatalf("%d workers, want %d", len(before), slots)
	}
	for _, p := range before {
		kill(t, p.pid, unix.SIGKILL)
	}
	old := map[int]bool{}
	for _, p := range before {
		old[p.pid] = true
	}
	r.eventually("all slots are back", func() bool {
		if !strings.HasPrefix(r.status(), fmt.Sprintf("%d/%d ready", slots, slots)) {
			return false
		}
		now := r.children("prefork: many.")
		return len(now) == slots && !slices.ContainsFunc(now, func(p process) bool { return old[p.pid] || p.state == 'Z' })
	})
	r.eventually("the spare", func() bool { return len(r.children("prefork: spare")) == 1 })
	if got := r.threads(); got > threads+2 {
		t.Errorf("%d threads, were %d", got, threads)
	}
	if got := len(r.fdTable()); got != fds {
		t.Errorf("%d descriptors, were %d", got, fds)
	}
	names := map[string]bool{}
	for _, p := range r.children("prefork: many.") {
		names[p.title] = true
	}
	if len(names) != slots {
		t.Errorf("%d different slots run, want %d", len(names), slots)
	}
	t.Logf("threads %d, descriptors %d", threads, fds)
}

// Of the spares that somebody has stopped, or is about to end, none becomes a slot: it has
// the next one, at once.
func TestSpareThatCannotRun(t *testing.T) {
	r := start(t, strings.Replace(webFleet, "[floor]", "[floor]\nspares = 3", 1))
	r.waitReady()
	r.eventually("the spares", func() bool { return len(r.children("prefork: spare")) == 3 })
	spares := r.children("prefork: spare")
	slices.SortFunc(spares, func(a, b process) int { return a.pid - b.pid })
	for _, p := range spares[:2] {
		kill(t, p.pid, unix.SIGSTOP)
	}
	kill(t, r.child("prefork: web.0 [fleet] gen 1").pid, unix.SIGKILL)
	r.eventually("the third spare has become web.0", func() bool {
		p := r.children("prefork: web.0 [fleet] gen 1")
		return len(p) == 1 && p[0].pid == spares[2].pid
	})
	for _, p := range spares[:2] {
		r.eventually("it has ended", func() bool { return !alive(p.pid) })
		if text := fmt.Sprintf("spare: pid %d is stopped; passed over, sent SIGKILL", p.pid); !strings.Contains(r.logged(), text) {
			t.Errorf("not logged: %s\n%s", text, r.logged())
		}
	}
	r.eventually("there are spares again", func() bool { return len(r.children("prefork: spare")) == 3 })
}
