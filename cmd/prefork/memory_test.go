// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/memory"
)

// sharers are workers of a floor of more than 64 MB: one that does nothing, one that writes
// 8 MB of it, and one that makes 16 MB of its own.
const sharers = `
[floor]
path = ["DIR"]
preload = ["sharing"]
spares = 1
[worker.idle]
entry = "sharing:idle"
type = "notify"
[worker.write]
entry = "sharing:write"
type = "notify"
[worker.own]
entry = "sharing:own"
type = "notify"
[worker.program]
exec = ["sleep", "987674"]
[worker.done]
exec = ["true"]
`

const sharing = `
import signal
import prefork

data = bytearray(b"x") * (64 << 20)
numbers = [float(n) for n in range(100_000)]
keep = []

def idle():
    prefork.ready()
    while True:
        signal.pause()

def write():
    for i in range(0, 8 << 20, 4096):
        data[i] = 1
    idle()

def own():
    keep.append(bytearray(b"y") * (16 << 20))
    idle()

def count():
    for number in numbers:
        pass
    keep.append(list(numbers))
    idle()
`

func startSharers(t *testing.T, file string) *rig {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	r := prepare(t, file)
	r.write("sharing.py", sharing)
	r.cmd.Env = append(r.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	r.start()
	r.waitReady()
	return r
}

func (r *rig) memoryOf(args ...string) (m memory.Report, slots map[string]memory.SlotReport) {
	r.t.Helper()
	out, stderr, code := prefork(r.t, append([]string{"memory", r.path("fleet.toml"), "--json"}, args...)...)
	if code != 0 {
		r.t.Fatalf("memory %v: exit status %d: %s", args, code, stderr)
	}
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		r.t.Fatalf("%v in %s", err, out)
	}
	slots = map[string]memory.SlotReport{}
	for _, s := range m.Slots {
		slots[s.Name] = s
	}
	return m, slots
}

// TestMemory: what workers write, make and leave alone is what is told of them, to
// fractions of a megabyte.
func TestMemory(t *testing.T) {
	r := startSharers(t, sharers)
	r.eventually("a spare", func() bool { m, _ := r.memoryOf(); return len(m.Slots) == 6 })
	m, slots := r.memoryOf()
	about := func(what string, got, want uint64) {
		t.Helper()
		const noise = 1 << 20
		if got > want+noise || want > got+noise {
			t.Errorf("%s: got %d kB, want %d kB", what, got>>10, want>>10)
		}
	}
	if len(m.Floors) != 1 || m.Floors[0].Generation != 1 || m.Floors[0].Anonymous < 64<<20 || m.Floors[0].Problem != "" {
		t.Fatalf("floors: %+v", m.Floors)
	}
	floor, idle := m.Floors[0].Anonymous, slots["idle.0"]
	about("shared by who does nothing", idle.Shared+idle.Written+idle.Swapped, floor)
	about("shared by who writes", slots["write.0"].Shared, idle.Shared-8<<20)
	about("written", slots["write.0"].Written, idle.Written+8<<20)
	about("of its own", slots["own.0"].Own, idle.Own+16<<20)
	about("not written", slots["own.0"].Written, idle.Written)
	about("shared by a spare", slots["spare"].Shared, idle.Shared)
	if p := slots["program.0"]; p.Shared+p.Written+p.Former > 0 || p.Own == 0 || p.Generation != 0 {
		t.Errorf("a program: %+v", p)
	}
	if d := slots["done.0"]; d.PID != 0 || d.Problem != "" || d.State != "exited" {
		t.Errorf("without a process: %+v", d)
	}
	if m.Total.Slots != 3 || m.Total.Forked != 4 || m.Total.Once != floor || m.Total.Separate != 3*floor {
		t.Errorf("in all: %+v", m.Total)
	}
	if one, _ := r.memoryOf("write"); len(one.Slots) != 1 || one.Slots[0].Name != "write.0" {
		t.Errorf("of one worker: %+v", one.Slots)
	}
	out, stderr, code := prefork(t, "memory", r.path("fleet.toml"))
	if code != 0 || !strings.Contains(out, "3 slots and 1 spare share ") || !strings.Contains(out, "done.0     no process: it is exited\n") {
		t.Errorf("exit status %d: %s\n%s", code, stderr, out)
	}
	wantNarrow(t, out)
}

func wantNarrow(t *testing.T, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if len([]rune(strings.TrimSuffix(line, "\n"))) > 80 {
			t.Errorf("longer than 80 columns: %s", line)
		}
	}
}

// TestMemoryOfAnEarlierFloor: slots outlive the floor that they were forked from.
func TestMemoryOfAnEarlierFloor(t *testing.T) {
	r := startSharers(t, sharers)
	m, _ := r.memoryOf()
	if err := unix.Kill(int(m.Floors[0].PID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.eventually("another floor", func() bool {
		m, _ = r.memoryOf()
		return len(m.Floors) == 1 && m.Floors[0].Generation == 2
	})
	_, slots := r.memoryOf()
	if s := slots["idle.0"]; s.Generation != 1 || s.Shared+s.Written > 0 || s.Former < 32<<20 {
		t.Errorf("of the first floor: %+v", s)
	}
	out, _, _ := prefork(t, "memory", r.path("fleet.toml"), "idle.0")
	if !strings.Contains(out, "GEN") || !strings.Contains(out, "FORMER") {
		t.Errorf("the text does not tell:\n%s", out)
	}
	wantNarrow(t, out)
}

// TestMemoryIsWatched until it is interrupted, which is no failure.
func TestMemoryIsWatched(t *testing.T) {
	r := startSharers(t, sharers)
	cmd := exec.Command(self(t), "memory", r.path("fleet.toml"), "--watch", "--json", "own")
	cmd.Env = append(os.Environ(), "PREFORK_TEST_ROLE=prefork", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range 2 {
		var m memory.Report
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &m) != nil || len(m.Slots) != 1 || m.Slots[0].Own < 16<<20 {
			t.Fatalf("not a report: %q", lines.Text())
		}
	}
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // one that was under way
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}
