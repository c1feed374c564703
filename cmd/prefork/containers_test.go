// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestContainer is a day of the example's pod: not root, a root that cannot be
// written, no control groups. It becomes ready, serves, loses a worker, reaps what
// is not its own, and drains when it is told to stop.
func TestContainer(t *testing.T) {
	c := newContainer(t)
	c.run()
	c.waitReady()
	if status, body := c.probe("/healthz"); status != 200 {
		t.Errorf("/healthz: %d, %s", status, body)
	}
	if status, body, err := ask(t, c.client, "127.0.0.1:8080", "/", "*/*"); status != 200 || !strings.HasPrefix(body, "web.") {
		t.Errorf("the workers answer %d, %q, %v", status, body, err)
	}
	if out := c.exec("/usr/bin/prefork", "status", "/etc/prefork/fleet.toml"); !strings.Contains(out, "fleet: active, 3/3 ready") || !strings.Contains(out, "master 1,") {
		t.Errorf("prefork status says\n%s", out)
	}
	// What the autoscaler of the example asks for.
	object, err := os.ReadFile(example + "scaledobject.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.value(one(t, string(object), `^ *valueLocation: (.+)$`)); got != 0 {
		t.Errorf("%v connections wait at a fleet that is idle", got)
	}

	if status, body := c.probe("/readyz?worker=web&min=2"); status != 200 {
		t.Errorf("/readyz of two web slots: %d, %s", status, body)
	}

	// What is left behind in the container, and by a worker that dies.
	c.exec("sh", "-c", "sleep 0.1 & sleep 0.2 &")
	kill(t, c.child("sh -c while sleep").pid, syscall.SIGKILL)
	c.eventually("the clock is restarted", func() bool {
		return c.value(`prefork_restarts_total{worker="clock",result="signal"}`) == 1 && c.value(`prefork_slots{worker="clock",state="ready"}`) == 1
	})
	c.eventually("what it left has ended", func() bool { return len(c.children("sleep")) == 0 })
	c.wantNoZombies()

	// A worker dies: its sibling keeps the pod ready.
	kill(t, c.child("prefork: web.0").pid, syscall.SIGKILL)
	c.eventually("web.0 is restarted", func() bool {
		if status, body := c.probe("/readyz"); status != 200 {
			t.Fatalf("/readyz: %d, %s", status, body)
		}
		return c.value(`prefork_slot_restarts_total{worker="web",slot="web.0"}`) == 1 && c.value(`prefork_slots{worker="web",state="ready"}`) == 2
	})

	// It drains: no new traffic for it, and what was accepted is finished.
	slow := make(chan string)
	go func() {
		status, body, err := ask(t, c.client, "127.0.0.1:8080", "/slow", "*/*")
		slow <- fmt.Sprintln(status, body, err)
	}()
	c.eventually("a slow request is served", func() bool { return c.connections(8080) > 0 })
	c.signal(syscall.SIGTERM)
	c.eventually("the readiness probe fails", func() bool {
		status, body := c.probe("/readyz")
		return status == 503 && strings.HasPrefix(body, "draining: stops in ")
	})
	if status, body, err := ask(t, c.client, "127.0.0.1:8080", "/", "*/*"); status != 200 {
		t.Errorf("a request that comes while it drains: %d, %q, %v", status, body, err)
	}
	if status, _ := c.probe("/healthz"); status != 200 {
		t.Errorf("/healthz while it drains: %d", status)
	}
	if got := <-slow; !strings.HasPrefix(got, "200 web.") {
		t.Errorf("the slow request got %s", got)
	}
	c.wantStop(c.grace)

	// Each line has said who it was.
	slots := map[string]bool{}
	for line := range strings.Lines(c.logged()) {
		var said struct{ Time, Fleet, Name, Slot, Stream, Message string }
		if err := json.Unmarshal([]byte(line), &said); err != nil || said.Time == "" || said.Fleet != "fleet" || said.Name == "" {
			t.Errorf("not a line of the fleet's: %v, %q", err, line)
		}
		slots[said.Slot] = true
	}
	if !slots["web.0"] || !slots["clock.0"] {
		t.Errorf("only of %v is something said", slots)
	}
}

// connections counts established ones to a port, as /proc/net/tcp has them: state
// 01, the local port in hexadecimal, and an inode if somebody has accepted it.
func (c *container) connections(port int) (n int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", c.pid()))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 9 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) && f[3] == "01" && f[9] != "0" {
			n++
		}
	}
	return n
}

// TestContainerKillsWhatIgnoresIt before the orchestrator would.
func TestContainerKillsWhatIgnoresIt(t *testing.T) {
	c := newContainer(t)
	c.fleet(`
[worker.stubborn]
exec = ["sh", "-c", "trap '' TERM; echo ignoring; while :; do sleep 1; done"]
timeout_stop_sec = "1s"
`)
	c.run()
	c.waitReady()
	c.eventually("it ignores SIGTERM", func() bool { return strings.Contains(statusOf(t, c.child("sh -c trap").pid, "SigIgn"), "5000") }) // and SIGPIPE
	c.signal(syscall.SIGTERM)
	c.wantStop(c.grace)
	if !strings.Contains(c.logged(), "stubborn.0: stopping -> killing") {
		t.Error("it was not killed")
	}
}

func statusOf(t *testing.T, pid int, key string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	return one(t, string(text), "^"+key+`:\s*(\S+)$`)
}

// TestContainerLosesItsFloor: workers serve on, and the next generation comes.
func TestContainerLosesItsFloor(t *testing.T) {
	c := newContainer(t)
	c.run()
	c.waitReady()
	kill(t, c.child("prefork: floor").pid, syscall.SIGKILL)
	c.eventually("generation 2 is loaded", func() bool {
		if status, body := c.probe("/readyz"); status != 200 {
			t.Fatalf("/readyz: %d, %s", status, body)
		}
		return c.value("prefork_floor_generation") == 2 && c.value("prefork_spares") == 1
	})
	if got := c.value(`prefork_slot_restarts_total{worker="web",slot="web.0"}`); got != 0 {
		t.Errorf("web.0 was restarted %v times", got)
	}
	c.wantNoZombies()
	// As Ctrl-C in podman run -it, and as whoever is in the container can.
	c.exec("sh", "-c", "kill -INT 1")
	c.wantStop(c.grace)
}

// TestContainerOfAnotherKind has what images and pods have that say less: root, a
// root that can be written, no place but /tmp.
func TestContainerOfAnotherKind(t *testing.T) {
	for name, change := range map[string]func(*image){
		"root":      func(img *image) { img.UID, img.GID, img.Env = 0, 0, img.Env[:1] },
		"writable":  func(img *image) { img.UID, img.GID, img.ReadOnly, img.Tmpfs = 0, 0, false, nil },
		"only /tmp": func(img *image) { img.Tmpfs, img.Env = []string{"/tmp"}, img.Env[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t)
			change(&c.image)
			c.run()
			c.waitReady()
			c.signal(syscall.SIGTERM)
			c.wantStop(c.grace)
		})
	}
}
