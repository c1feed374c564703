// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// savesScript is a program that saves its state when it gets SIGTERM. It tells
// what it does, under the name that it is given.
const savesScript = `
trap 'echo "$1 saved" >>"$OUT"; exit 0' TERM
echo "$1 runs $$" >>"$OUT"
while :; do sleep 0.05; done
`

// ignoresScript is a program that does not end from SIGTERM.
const ignoresScript = `
trap 'echo "$1 ignores" >>"$OUT"' TERM
echo "$1 runs $$" >>"$OUT"
while :; do sleep 0.05; done
`

// behind is a shell that runs one of those programs in its foreground.
const behind = "[worker.a]\nexec = [\"sh\", \"-c\", \"sh DIR/%s.sh program; :\"]\n"

func gentle(t *testing.T, file string) *rig {
	t.Helper()
	r := prepare(t, file)
	r.write("saves.sh", savesScript)
	r.write("ignores.sh", ignoresScript)
	r.start()
	return r
}

// told are the lines that programs have written, without pids.
func (r *rig) told() (lines []string) {
	text, _ := os.ReadFile(r.path("out")) // not there yet
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 {
			lines = append(lines, strings.Join(words[:2], " "))
		}
	}
	return lines
}

// pidOf waits until a program has told that it runs for the n-th time.
func (r *rig) pidOf(name string, n int) (pid int) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("%s runs, %d", name, n), func() bool {
		text, _ := os.ReadFile(r.path("out")) // not there yet
		seen := 0
		for line := range strings.Lines(string(text)) {
			if words := strings.Fields(line); len(words) == 3 && words[0] == name && words[1] == "runs" {
				if seen++; seen == n {
					pid, _ = strconv.Atoi(words[2])
				}
			}
		}
		return pid != 0
	})
	return pid
}

func (r *rig) parentOf(pid int) int {
	r.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		r.t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// wantTold stops the fleet and compares all that its programs have told.
func (r *rig) wantTold(want ...string) {
	r.t.Helper()
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		r.t.Errorf("exit status %d, want 0", code)
	}
	if got := r.told(); !slices.Equal(got, want) {
		r.t.Errorf("programs told %q, want %q", got, want)
	}
}

func TestProgramBehindAShellEndsGently(t *testing.T) {
	r := gentle(t, fmt.Sprintf(behind, "saves"))
	r.pidOf("program", 1)
	r.wantTold("program runs", "program saved")
}

// The successor of a shell that crashed comes when its program has saved its state.
func TestProgramBehindACrashedShellEndsGently(t *testing.T) {
	r := gentle(t, fmt.Sprintf(behind, "saves")+"restart_sec = \"100ms\"\n")
	kill(t, r.parentOf(r.pidOf("program", 1)), unix.SIGKILL)
	r.pidOf("program", 2)
	r.wantTold("program runs", "program saved", "program runs", "program saved")
}

// What does not end is killed, before its successor starts.
func TestStubbornProgramBehindAShellIsKilled(t *testing.T) {
	r := gentle(t, fmt.Sprintf(behind, "ignores")+"restart_sec = \"100ms\"\ntimeout_stop_sec = \"300ms\"\n")
	first := r.pidOf("program", 1)
	kill(t, r.parentOf(first), unix.SIGKILL)
	r.pidOf("program", 2)
	if alive(first) {
		t.Error("it is there beside its successor")
	}
	r.wantTold("program runs", "program ignores", "program runs", "program ignores")
}

// A second signal does not wait for what is left.
func TestSecondSignalEndsTheGrace(t *testing.T) {
	r := gentle(t, fmt.Sprintf(behind, "ignores")+"timeout_stop_sec = \"infinity\"\n")
	r.pidOf("program", 1)
	r.signal(unix.SIGTERM)
	r.eventually("the program is asked", func() bool { return slices.Contains(r.told(), "program ignores") })
	r.wantTold("program runs", "program ignores")
	if !strings.Contains(r.logged(), "SIGTERM again; sent SIGKILL") {
		t.Error("SIGKILL was not sent for the second signal")
	}
}

// SIGCONT follows, so that a process that is stopped can act on what ends it: no
// timeout does it here.
func TestStoppedProcessesEndAtOnce(t *testing.T) {
	t.Run("stop", func(t *testing.T) {
		r := gentle(t, "[worker.a]\nexec = [\"sh\", \"DIR/saves.sh\", \"program\"]\ntimeout_stop_sec = \"infinity\"\n")
		kill(t, r.pidOf("program", 1), unix.SIGSTOP)
		r.wantTold("program runs", "program saved")
	})
	t.Run("watchdog", func(t *testing.T) {
		r := prepare(t, "[worker.a]\nexec = [\"python3\", \"DIR/stuck.py\"]\ntype = \"notify\"\nwatchdog_sec = \"200ms\"\n"+
			"restart_sec = \"100ms\"\ntimeout_stop_sec = \"infinity\"\n")
		r.write("stuck.py", `
import os, signal, socket, time
with open(os.environ["OUT"], "a") as out:
    print("program", "runs", os.getpid(), file=out)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(1000)
`)
		r.start()
		r.pidOf("program", 2)
	})
	t.Run("what is left", func(t *testing.T) {
		r := gentle(t, fmt.Sprintf(behind, "saves"))
		program := r.pidOf("program", 1)
		kill(t, program, unix.SIGSTOP)
		kill(t, r.parentOf(program), unix.SIGKILL)
		r.eventually("it saves its state", func() bool { return slices.Contains(r.told(), "program saved") })
	})
}

// Without control groups, the children of what is left become known when it ends.
// They get what it has got.
func TestChildrenOfWhatIsLeftEndGently(t *testing.T) {
	r := gentle(t, "[worker.a]\nrestart = \"no\"\n"+
		"exec = [\"sh\", \"-c\", \"sh -c 'sh DIR/saves.sh child & exec sh DIR/saves.sh program'; :\"]\n"+
		"[worker.b]\nexec = [\"sleep\", \"987660\"]\n")
	r.pidOf("child", 1)
	kill(t, r.parentOf(r.pidOf("program", 1)), unix.SIGKILL)
	r.eventually("both save their state", func() bool {
		return slices.Contains(r.told(), "program saved") && slices.Contains(r.told(), "child saved")
	})
}

// A main process that waits for its children, which nobody tells to end, ends only
// if they get the signal as well.
func TestKillModeControlGroup(t *testing.T) {
	r := gentle(t, "[worker.a]\nkill_mode = \"control-group\"\ntimeout_stop_sec = \"infinity\"\n"+
		"exec = [\"sh\", \"-c\", \"trap : TERM; sh DIR/saves.sh child & while ! wait $!; do :; done; echo main ends >>$OUT\"]\n")
	r.pidOf("child", 1)
	r.wantTold("child runs", "child saved", "main ends")
}

// multiprocessing's resource tracker, a child of the worker, unlinks shared memory
// when its owner is gone.
func TestSharedMemoryIsUnlinked(t *testing.T) {
	r := prepare(t, `
[floor]
path = ["DIR"]
preload = ["shared"]
[worker.a]
entry = "shared:hold"
restart_sec = "100ms"
`)
	r.write("shared.py", `
import os, time
from multiprocessing import shared_memory
def hold():
    block = shared_memory.SharedMemory(create=True, size=4096)
    with open(os.environ["OUT"], "a") as out:
        print(block.name, "runs", os.getpid(), file=out)
    time.sleep(1000)
`)
	r.start()
	blocks := func() (names []string) {
		for _, line := range r.told() {
			names = append(names, strings.Fields(line)[0])
		}
		return names
	}
	r.eventually("a block", func() bool { return len(blocks()) == 1 })
	kill(t, r.pidOf(blocks()[0], 1), unix.SIGKILL)
	r.eventually("a successor", func() bool { return len(blocks()) == 2 })
	gone := func(name string) {
		if _, err := os.Stat(filepath.Join("/dev/shm", name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
			_ = os.Remove(filepath.Join("/dev/shm", name))
		}
	}
	gone(blocks()[0])
	r.signal(unix.SIGTERM)
	r.wait()
	gone(blocks()[1])
}

// What an import has started ends with its floor, while workers serve on.
func TestHelpersOfAFloorEndWithIt(t *testing.T) {
	r := prepare(t, webFleet)
	app, err := os.ReadFile(r.path("app.py"))
	if err != nil {
		t.Fatal(err)
	}
	r.write("app.py", string(app)+"\nimport subprocess, os\nHELPER = subprocess.Popen(['sh', '"+r.path("saves.sh")+"', 'helper'])\n")
	r.write("saves.sh", savesScript)
	r.start()
	r.waitReady()
	before, err := r.get()
	if err != nil {
		t.Fatal(err)
	}
	helper := r.pidOf("helper", 1)
	kill(t, r.parentOf(helper), unix.SIGKILL)
	r.pidOf("helper", 2)
	if alive(helper) {
		t.Error("two helpers are there")
	}
	if !alive(before) {
		t.Error("a worker ended with the floor")
	}
	r.wantTold("helper runs", "helper saved", "helper runs", "helper saved")
}

// What nothing tells whose it is ends with the fleet, and gently, too.
func TestStragglersEndGently(t *testing.T) {
	r := gentle(t, "[worker.a]\nexec = [\"sh\", \"-c\", \"setsid env -i OUT=$OUT PATH=$PATH sh DIR/saves.sh stray & exec sleep 987661\"]\n")
	r.pidOf("stray", 1)
	r.wantTold("stray runs", "stray saved")
}

// A client that hangs up ends no program. Where SIGPIPE has its default action, it
// does.
func TestClientHangsUp(t *testing.T) {
	for _, c := range []struct{ name, key, want string }{
		{"ignored", "", "program survived"},
		{"not ignored", "ignore_sigpipe = false\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := prepare(t, "[worker.a]\nrestart = \"no\"\nexec = [\"sh\", \"DIR/writes.sh\"]\n[worker.b]\nexec = [\"sleep\", \"987662\"]\n"+
				"[defaults]\n"+c.key)
			r.write("writes.sh", `
exec 5>"${0%/*}/client"
echo program runs $$ >>"$OUT"
while [ -e "${0%/*}/client" ]; do sleep 0.05; done
echo hello >&5
echo program survived >>"$OUT"
exec sleep 987663
`)
			if err := unix.Mkfifo(r.path("client"), 0o600); err != nil {
				t.Fatal(err)
			}
			r.start()
			client, err := os.Open(r.path("client"))
			if err != nil {
				t.Fatal(err)
			}
			program := r.pidOf("program", 1)
			_ = client.Close() // it was only to be there
			if err := os.Remove(r.path("client")); err != nil {
				t.Fatal(err)
			}
			if c.want == "" {
				r.eventually("the program ends", func() bool { return !alive(program) })
				r.eventually("its end is told", func() bool { return strings.Contains(r.logged(), "killed by SIGPIPE") })
				return
			}
			r.eventually("the program goes on", func() bool { return slices.Contains(r.told(), c.want) })
		})
	}
}
