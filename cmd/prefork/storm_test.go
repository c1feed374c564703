// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/rundir"
)

// Ten thousand SIGHUPs are a few reloads: one at a time, and one for all that have come
// meanwhile; the last has the newest file. Nothing else of the fleet notices.
func TestStormOfHangups(t *testing.T) {
	c := startChanging(t)
	const storm = 10000
	for n := range storm {
		if n == storm/2 {
			c.now.release = "after the storm"
			c.writeFile()
		}
		c.signal(unix.SIGHUP)
	}
	c.eventually("the newest file", func() bool {
		answers := c.answered()
		for answer := range answers {
			if !strings.HasSuffix(answer, "after the storm") {
				return false
			}
		}
		return len(answers) > 0 && c.look().Change == 0
	})
	reloads := strings.Count(c.logged(), " is done: ")
	if reloads < 1 || reloads > storm/10 {
		t.Errorf("%d reloads of %d signals", reloads, storm)
	}
	t.Logf("%d reloads", reloads)
	c.check(t, "in the storm")
	c.pids()
	c.flat()
}

// A reload that is asked for while the fleet starts is made when it is ready; while it
// stops, it is refused.
func TestHangupWhileStartingAndStopping(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	const file = `
[floor]
path = ["DIR"]
preload = ["held"]
[worker.web]
entry = "app:idle"
settle_sec = 0
[worker.end]
exec = ["sh", "-c", "trap 'while [ -e DIR/hold-end ]; do sleep 0.01; done; exit' TERM; while :; do sleep 0.01; done"]
`
	r := prepare(t, file)
	r.cmd.Env = append(r.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	r.write("held.py", "import os, time\nwhile os.path.exists('"+r.path("hold")+"'):\n    time.sleep(0.01)\n")
	r.write("hold", "")
	r.write("hold-end", "")
	r.start()
	r.eventually("a floor that loads", func() bool { return strings.Contains(r.logged(), "floor: loading") })
	r.write("fleet.toml", strings.ReplaceAll(file+"[worker.more]\nexec = [\"sleep\", \"987664\"]\nsettle_sec = 0\n", "DIR", r.dir))
	r.signal(unix.SIGHUP)
	r.eventually("it is looked at", func() bool {
		out, _, code := prefork(t, "status", r.path("fleet.toml"))
		return code == 0 && strings.Contains(out, "activating")
	})
	if err := os.Remove(r.path("hold")); err != nil {
		t.Fatal(err)
	}
	r.eventually("the reload", func() bool { return strings.Contains(r.logged(), "reload 1 is done: add more") })
	if log := r.logged(); strings.Index(log, "reload 1 by SIGHUP: add more") < strings.Index(log, "fleet is ready") {
		t.Error("it did not wait for the start")
	}
	r.signal(unix.SIGTERM)
	r.eventually("the stop", func() bool { return strings.Contains(r.logged(), "end.0: ready -> stopping") })
	r.signal(unix.SIGHUP)
	r.eventually("a refusal", func() bool { return strings.Contains(r.logged(), "SIGHUP: the fleet stops; nothing has changed") })
	if err := os.Remove(r.path("hold-end")); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// A fleet that is told to stop stops, whatever is under way; who waits for the change is
// told. Ctrl-C ends the wait alone.
func TestStopWhileReloading(t *testing.T) {
	c := startChanging(t)
	c.now.settle, c.now.release = "1h", "1"
	c.writeFile()
	waiting := startCommand(t, "reload", c.path("fleet.toml"))
	c.eventually("a canary that settles", func() bool { return c.look().ChangeState == "proving" && c.look().Slots[1].SuccessorState == "ready" })
	waiting.signal(unix.SIGINT)
	if out, said, code := waiting.wait(); code != exit.Failure || !strings.Contains(said, "change 1 of fleet "+c.path("fleet.toml")+" goes on: prefork status") {
		t.Errorf("Ctrl-C: exit status %d:\n%s%s", code, out, said)
	}
	if f := c.look(); f.Change != 1 {
		t.Errorf("it has ended: %+v", f)
	}
	second := startCommand(t, "reload", c.path("fleet.toml")) // joins the first
	c.eventually("two who wait", func() bool { return strings.Contains(second.output(), "reload: ") })
	c.end()
	c.signal(unix.SIGTERM)
	if code := c.rig.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if out, said, code := second.wait(); code != exit.Failure || !strings.Contains(said, "fleet") {
		t.Errorf("who waited: exit status %d:\n%s%s", code, out, said)
	}
	if !strings.Contains(c.logged(), "reload 1 failed, the fleet is as it was: the fleet stops") {
		t.Error("the log does not say what became of the reload")
	}
}

// What is replaced 500 times is replaced without a trace.
func TestManyReloadsLeaveNothing(t *testing.T) {
	c := startChanging(t)
	c.end()
	all, err := rundir.ControlsOfFile(c.path("fleet.toml"))
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	client, err := control.Dial(context.Background(), all[0])
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	reload := func(n int) {
		t.Helper()
		c.now.jobs = fmt.Sprintf("environment = { N = \"%d\" }\n", n)
		if n%50 == 0 {
			c.now.model = fmt.Sprint(n)
		}
		c.writeFile()
		id, err := client.Reload(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for {
			out, err := client.Outcome(context.Background(), id)
			if err != nil || out.Result != "" && out.Result != control.ChangeDone {
				t.Fatalf("%d: %+v, %v", n, out, err)
			}
			if out.Result != "" {
				return
			}
			time.Sleep(time.Millisecond) // signals come in tenths of a second
		}
	}
	for n := range 20 {
		reload(n)
	}
	c.flat()
	fds, memory := c.descriptors(), residentOf(t, c.pid(), "Anonymous")
	for n := range 500 {
		reload(100 + n)
	}
	c.flat()
	if now := c.descriptors(); !slices.Equal(now, fds) {
		t.Errorf("descriptors: %q, before %q", now, fds)
	}
	now := residentOf(t, c.pid(), "Anonymous")
	t.Logf("memory of the master: %d kB, then %d kB", memory, now)
	if now > memory+8192 {
		t.Errorf("the master has %d kB, before %d kB", now, memory)
	}
}

// descriptors are those of the master, without their numbers.
func (r *rig) descriptors() (all []string) {
	r.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", r.pid())
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink(dir + "/" + e.Name()); err == nil {
			to, _, _ = strings.Cut(to, ":[")
			all = append(all, to)
		}
	}
	slices.Sort(all)
	return all
}

// command is one that runs meanwhile.
type command struct {
	t   *testing.T
	cmd *exec.Cmd

	mu        sync.Mutex
	out, said bytes.Buffer
}

// writer keeps what a command says.
type writer struct {
	c  *command
	to *bytes.Buffer
}

func (w writer) Write(b []byte) (int, error) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	return w.to.Write(b)
}

func startCommand(t *testing.T, args ...string) *command {
	t.Helper()
	c := &command{t: t, cmd: exec.Command(self(t), args...)}
	c.cmd.Env = append(os.Environ(), "PREFORK_TEST_ROLE=prefork", "GORACE=atexit_sleep_ms=0")
	c.cmd.Stdout, c.cmd.Stderr = writer{c, &c.out}, writer{c, &c.said}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill() }) // it has ended, if all is well
	return c
}

func (c *command) output() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.String()
}

func (c *command) signal(sig os.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

func (c *command) wait() (stdout, stderr string, code int) {
	_ = c.cmd.Wait() // its status says it
	return c.out.String(), c.said.String(), c.cmd.ProcessState.ExitCode()
}

// A ConfigMap's file is reached by a link that leads to the newest: a reload takes it up, and
// commands find the fleet as before.
func TestReloadOfAConfigMap(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	r := prepare(t, "")
	r.cmd.Env = append(r.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	publish := func(n int) {
		t.Helper()
		dir := fmt.Sprintf("..%d", n)
		if err := os.Mkdir(r.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		r.write(dir+"/fleet.toml", fmt.Sprintf("[worker.web]\nexec = [\"sleep\", \"987665\"]\ncount = %d\nsettle_sec = 0\n", n))
		if err := os.Symlink(dir, r.path("..next")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(r.path("..next"), r.path("..data")); err != nil {
			t.Fatal(err)
		}
		_ = os.RemoveAll(r.path(fmt.Sprintf("..%d", n-1)))
	}
	publish(1)
	if err := os.Remove(r.path("fleet.toml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..data/fleet.toml", r.path("fleet.toml")); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.waitReady()
	publish(2)
	if out, said, code := prefork(t, "reload", r.path("fleet.toml")); code != 0 || !strings.Contains(out, "done: resize web from 1 to 2") {
		t.Errorf("exit status %d:\n%s%s", code, out, said)
	}
	publish(3)
	r.signal(unix.SIGHUP)
	r.eventually("a reload by SIGHUP", func() bool { return strings.Contains(r.logged(), "reload 2 is done: resize web from 2 to 3") })
	if out, said, code := prefork(t, "status", r.path("fleet.toml")); code != 0 || !strings.Contains(out, "3/3 ready") {
		t.Errorf("exit status %d:\n%s%s", code, out, said)
	}
}

// Workers that need more descriptors than their floor has kept free for them need another
// floor: what it has open could be in the way.
func TestMoreDescriptorsThanTheFloorHasRoomFor(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	const file = `
[floor]
path = ["DIR"]
preload = ["keeps"]
[worker.web]
entry = "app:hold"
settle_sec = 0
`
	r := prepare(t, file)
	r.cmd.Env = append(r.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	r.write("keeps.py", "kept = [open(__file__) for _ in range(8)]\n")
	r.start()
	r.waitReady()
	generation := 1
	for n, want := range []string{"roll the floor (descriptors), roll web (file_descriptor_store_max, floor)", "roll web (file_descriptor_store_max)", "roll web (file_descriptor_store_max)"} {
		r.write("fleet.toml", strings.ReplaceAll(file+fmt.Sprintf("file_descriptor_store_max = %d\n", 30-n), "DIR", r.dir))
		out, said, code := prefork(t, "reload", r.path("fleet.toml"))
		if code != 0 || !strings.Contains(out, "done: "+want) {
			t.Errorf("%d: exit status %d, want %q:\n%s%s", n, code, want, out, said)
		}
		if n == 0 {
			generation++
		}
		if out, _, _ := prefork(t, "status", r.path("fleet.toml")); !strings.Contains(out, fmt.Sprintf("floor generation %d", generation)) {
			t.Errorf("%d: want generation %d:\n%s", n, generation, out)
		}
	}
}
