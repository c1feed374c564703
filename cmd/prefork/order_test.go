// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// service tells when it starts and ends, and is ready in between.
const service = `
import os, signal, socket
def say(what):
    with open(os.environ["OUT"], "a") as f:
        print(os.environ["PREFORK_WORKER"], what, file=f)
def end(*_):
    say("ends")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
say("starts")
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    signal.pause()
`

// inOrder are ten workers, of which each but two is after others.
var inOrder = map[string][]string{
	"database": nil, "clock": nil, "migrate": {"database"},
	"broker": {"migrate"}, "cache": {"migrate"},
	"mail": {"broker"}, "api": {"broker", "cache"}, "web": {"broker", "cache"},
	"cron": {"web", "mail"}, "audit": {"cron"},
}

// startInOrder starts them: the first step waits for a file, the second fails once.
func startInOrder(t *testing.T, more string) *rig {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	var b strings.Builder
	b.WriteString("[defaults]\nrestart_sec = \"200ms\"\n")
	for _, name := range []string{"audit", "cron", "web", "api", "mail", "cache", "broker", "migrate", "database", "clock"} {
		b.WriteString("[worker." + name + "]\n")
		if after := inOrder[name]; after != nil {
			b.WriteString("after = [\"" + strings.Join(after, "\", \"") + "\"]\n")
		}
		switch name {
		case "database":
			b.WriteString("type = \"oneshot\"\nexec = [\"sh\", \"-c\", \"while ! test -e DIR/up; do sleep 0.1; done; echo database starts >>$OUT\"]\n")
		case "migrate":
			b.WriteString("type = \"oneshot\"\nexec = [\"sh\", \"-c\", \"mkdir DIR/tried && exit 3; echo migrate starts >>$OUT\"]\n")
		default:
			b.WriteString("type = \"notify\"\nexec = [\"python3\", \"DIR/service.py\"]\n")
		}
	}
	r := prepare(t, b.String()+more)
	r.write("service.py", service)
	r.cmd.Env = append(r.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	r.start()
	return r
}

// out are the lines that the workers have written.
func (r *rig) out() []string {
	text, _ := os.ReadFile(r.path("out")) // nobody may have
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// TestOrder starts ten workers, each when those that it is after are ready, though a step
// among them has to wait and another fails once; and stops them the other way round.
func TestOrder(t *testing.T) {
	r := startInOrder(t, "")
	fleet := r.path("fleet.toml")
	r.logs("clock.0: starting -> ready")
	r.eventually("STATUS= of who waits", func() bool {
		return r.status() == "1/10 ready; audit, cron and 6 more wait for database"
	})
	if out, _, code := prefork(t, "why", fleet, "api.0"); code != 0 || !strings.Contains(out, "why: waits for broker and cache") {
		t.Errorf("why: exit status %d:\n%s", code, out)
	}
	if out, _, code := prefork(t, "status", fleet); code != 0 || !strings.Contains(out, "waits for web and mail") {
		t.Errorf("status: exit status %d:\n%s", code, out)
	}
	r.write("up", "")
	r.waitReady()
	r.logs("database.0: starting -> exited: exited with status 0; finished")
	r.logs("migrate.0: starting -> waiting: exit-code: exited with status 3; starts again in")
	r.logs("api.0: waits for broker and cache\n")
	r.logs("fleet is ready: 8 of 10 slots")
	if got := r.status(); got != "8/10 ready; 2 finished" {
		t.Errorf("STATUS=%s", got)
	}

	// Nothing ends because what it is after has, and a crash waits for nobody.
	web, broker := r.slot("web.0").MainPID, r.slot("broker.0").MainPID
	kill(t, int(broker), syscall.SIGKILL)
	r.eventually("broker is ready again", func() bool {
		s := r.slot("broker.0")
		return s.State == "ready" && s.MainPID != broker
	})
	if got := r.slot("web.0").MainPID; got != web {
		t.Errorf("web.0 is %d, was %d", got, web)
	}

	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	lines := r.out()
	at := func(name, what string) int {
		i := slices.Index(lines, name+" "+what)
		if i < 0 {
			t.Errorf("%s never %s in %q", name, what, lines)
		}
		return i
	}
	for name, after := range inOrder {
		for _, other := range after {
			if at(name, "starts") < at(other, "starts") {
				t.Errorf("%s has started before %s: %q", name, other, lines)
			}
			if other != "migrate" && other != "database" && at(name, "ends") > at(other, "ends") {
				t.Errorf("%s has ended before %s: %q", other, name, lines)
			}
		}
	}
}

// TestSecondSignalWaitsForNoOrder: what is stopped later is killed with the rest.
func TestSecondSignalWaitsForNoOrder(t *testing.T) {
	r := startInOrder(t, `
[worker.stubborn]
after = ["audit"]
type = "notify"
exec = ["python3", "-c", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); exec(open('DIR/service.py').read().replace('SIGTERM, end', 'SIGUSR1, end'))"]
`)
	r.write("up", "")
	r.waitReady()
	r.signal(syscall.SIGTERM)
	r.logs("audit.0: is stopped when stubborn has ended")
	r.eventually("STATUS= of the order", func() bool {
		return strings.HasPrefix(r.status(), "stopping: ") && strings.Contains(r.status(), "; then audit, cron and ")
	})
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if lines := r.out(); slices.Contains(lines, "audit ends") {
		t.Errorf("audit was asked to end: %q", lines)
	}
}

// TestStepFailsForGood: what is after it keeps waiting, and the end says which step it was.
func TestStepFailsForGood(t *testing.T) {
	r := start(t, `
timeout_start_sec = "2s"
[worker.migrate]
type = "oneshot"
restart = "no"
exec = ["sh", "-c", "exit 3"]
[worker.web]
after = ["migrate"]
exec = ["sh", "-c", "echo web >>$OUT; sleep 1000"]
`)
	r.eventually("STATUS= of the step", func() bool {
		return r.status() == "0/2 ready; web waits for migrate; migrate.0 failed (exit-code 3)" || !alive(r.pid())
	})
	if code := r.wait(); code != 1 {
		t.Errorf("exit status %d", code)
	}
	r.logs("fleet fails: no slot was ready within 2s (timeout_start_sec); migrate.0: exit-code: exited with status 3")
	if lines := r.out(); slices.Contains(lines, "web") {
		t.Error("web has started")
	}
}
