// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/memory"
)

// counters have a worker that uses what its floor has, and changes nothing of it.
const counters = `
[floor]
path = ["DIR"]
preload = ["sharing"]
spares = 1
[worker.count]
entry = "sharing:count"
type = "notify"
[worker.write]
entry = "sharing:write"
type = "notify"
`

// causes are the bytes that a slot has written, by cause.
func causes(t *testing.T, s memory.SlotReport) map[memory.Cause]memory.CauseBytes {
	t.Helper()
	if s.Why == nil || s.Why.Problem != "" {
		t.Fatalf("%s: nothing is told: %+v", s.Name, s.Why)
	}
	all := map[memory.Cause]memory.CauseBytes{}
	sum := uint64(0)
	for _, c := range s.Why.Causes {
		all[c.Cause] = c
		sum += c.Bytes
	}
	if sum > s.Written || sum+1<<20 < s.Written {
		t.Errorf("%s: %d of %d bytes have a cause", s.Name, sum, s.Written)
	}
	return all
}

// TestMemoryTellsWhy: a worker that looks at 100,000 floats has written their reference
// counts, in megabytes that are the module's; one that fills a bytearray, its contents. The
// list is made by no worker, and leaves nothing behind.
func TestMemoryTellsWhy(t *testing.T) {
	r := startSharers(t, counters)
	before, slots := r.memoryOf("--why")
	counted, written := causes(t, slots["count.0"]), causes(t, slots["write.0"])
	if c := counted[memory.Counts]; c.Bytes < 2<<20 || c.Alone < 2<<20 {
		t.Errorf("of who counts: %+v", counted)
	}
	if m := slots["count.0"].Why.Modules; len(m) == 0 || m[0].Module != "sharing" || m[0].Bytes < 2<<20 {
		t.Errorf("of these modules: %+v", m)
	}
	if c := written[memory.Contents]; c.Bytes < 7<<20 || c.Key != "" {
		t.Errorf("of who writes: %+v", written)
	}
	if c := counted[memory.CodeWarm]; c.Bytes == 0 || c.Key != "floor.warm" {
		t.Errorf("no code has run: %+v", counted)
	}
	out, _, code := prefork(t, "memory", r.path("fleet.toml"), "count.0", "--why")
	if code != 0 || !strings.Contains(out, "reference counts") || !strings.Contains(out, "objects of sharing ") {
		t.Errorf("exit status %d:\n%s", code, out)
	}
	wantNarrow(t, out)
	r.eventually("the end of the probe", func() bool { return len(r.children("prefork: probe")) == 0 })
	after, _ := r.memoryOf()
	if len(after.Slots) != len(before.Slots) || after.Slots[0].PID != before.Slots[0].PID || after.Slots[2].Name != memory.Spare {
		t.Errorf("before: %+v, after: %+v", before.Slots, after.Slots)
	}
}

// TestAProbeThatIsKilled costs its asker the answer, and nobody else anything; there is one
// at a time.
func TestAProbeThatIsKilled(t *testing.T) {
	r := startSharers(t, counters)
	m, err := reach.Connect(r.path("fleet.toml"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	pid, err := probeFloor(m, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, stderr, code := prefork(t, "memory", r.path("fleet.toml"), "--why")
	if code != 1 || !strings.Contains(stderr, "a floor is being examined already") {
		t.Errorf("a second one: exit status %d: %s", code, stderr)
	}
	p, err := memory.Open(int(pid))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	answered := make(chan error, 1)
	if err := unix.Kill(int(pid), unix.SIGSTOP); err != nil { // it cannot answer before it is killed
		t.Fatal(err)
	}
	go func() {
		_, err := p.Ask([]uint64{1 << 20}, time.Now().Add(patience))
		answered <- err
	}()
	if err := unix.Kill(int(pid), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err == nil {
		t.Error("there is an answer of a process that was killed")
	}
	r.eventually("another probe", func() bool { _, code := r.why(); return code == 0 })
	if m, _ := r.memoryOf(); m.Floors[0].Generation != 1 {
		t.Errorf("the floor was replaced: %+v", m.Floors)
	}
}

func (r *rig) why() (stderr string, code int) {
	_, stderr, code = prefork(r.t, "memory", r.path("fleet.toml"), "--why")
	return stderr, code
}

// TestMemoryIsDrawn by the program that is installed beside this one.
func TestMemoryIsDrawn(t *testing.T) {
	r := startSharers(t, counters)
	run := func(program, file string) (stderr string, code int) {
		t.Helper()
		cmd := exec.Command(program, "memory", r.path("fleet.toml"), "--plot", file)
		cmd.Env = append(os.Environ(), "PREFORK_TEST_ROLE=prefork")
		var said strings.Builder
		cmd.Stderr = &said
		_ = cmd.Run() // its exit status tells
		return said.String(), cmd.ProcessState.ExitCode()
	}
	prefork, file := filepath.Join(buildPrograms(t), "prefork"), r.path("memory.svg")
	if said, code := run(prefork, file); code != 0 || said != "" {
		t.Errorf("exit status %d: %s", code, said)
	}
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "count.0") {
		t.Errorf("no picture: %v", err)
	}
	if said, code := run(prefork, r.path("none/memory.png")); code != 1 || !strings.Contains(said, "none/memory.png.new: no such file or directory") {
		t.Errorf("no folder: exit status %d: %s", code, said)
	}
	if said, code := run(prefork, "memory.gif"); code != 2 || !strings.Contains(said, "must end in .svg or .png") {
		t.Errorf("no such format: exit status %d: %s", code, said)
	}
	if said, code := run(self(t), file); code != 1 || !strings.Contains(said, "--plot is a program of its own, which is not installed") {
		t.Errorf("without the program: exit status %d: %s", code, said)
	}
}
