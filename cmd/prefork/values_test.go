// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// sayFleet has workers of each kind that say in a file what they were given.
const sayFleet = `
description = "100%% of %p"
[floor]
path = ["DIR"]
preload = ["say"]
[defaults]
restart_sec = "10ms"
environment = { WHO = "%w.%i of %p", PLAIN = "%%i" }
[worker.entry]
entry = "say:say"
args = ["%i", ["%w", { "%i" = "%i/%c" }], 7, "%%d"]
kwargs = { fleet = "%p" }
count = 2
[worker.script]
exec = ["./say.sh", "%i", "100%%", "%t"]
working_directory = "DIR/%w-%i"
count = 2
[worker.io.tasks.one]
entry = "say:task"
kwargs = { who = ["%w.%i"] }
`

const sayModule = `
import asyncio, json, os, signal, prefork

def write(*said):
    env = os.environ
    text = json.dumps([os.getpid(), *said, env["WHO"], env["PLAIN"], env["PREFORK_INDEX"], env["PREFORK_COUNT"], "PREFORK_COUNT_X" in env])
    with open(os.environ["OUT"] + "." + prefork.slot, "a") as out:
        out.write(text + "\n")

def say(*args, **kwargs):
    write(args, kwargs)
    signal.pause()

async def task(who):
    write(who)
    await asyncio.Event().wait()
`

const sayScript = `#!/bin/sh
echo "$$ $* $(pwd) $WHO $PLAIN $PREFORK_INDEX $PREFORK_COUNT ${PREFORK_COUNT_X-unset}" >>"$OUT.$PREFORK_SLOT"
exec sleep 1000
`

// lastLine is the last line that a slot has written, without its pid, and that.
func (r *rig) lastLine(slot string, lines int) (text, pid string) {
	r.t.Helper()
	var all []string
	r.eventually(fmt.Sprintf("%d lines of %s", lines, slot), func() bool {
		data, _ := os.ReadFile(r.path("out." + slot)) // it may not be there yet
		all = strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		return len(all) == lines && all[0] != ""
	})
	last := strings.TrimPrefix(all[lines-1], "[")
	at := strings.IndexAny(last, ", ")
	return strings.TrimLeft(last[at:], ", "), last[:at]
}

func sayRig(t *testing.T) *rig {
	t.Helper()
	r := prepare(t, sayFleet)
	r.write("say.py", sayModule)
	r.write("say.sh", sayScript)
	if err := os.Chmod(r.path("say.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"script-0", "script-1", "script-2"} {
		if err := os.Mkdir(r.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.cmd.Env = append(r.cmd.Env, "PREFORK_COUNT_X=", "PREFORK_COUNT=77", "PREFORK_INDEX=77")
	return r
}

// A slot has its own values wherever specifiers are known, and so has its successor.
func TestSpecifiersAreThoseOfTheSlot(t *testing.T) {
	r := sayRig(t)
	r.start()
	r.waitReady()
	runtime := "/run"
	if os.Geteuid() != 0 && os.Getenv("XDG_RUNTIME_DIR") != "" {
		t.Skip("the runtime directory is this user's")
	}
	want := map[string]string{
		"io.0": `["io.0"], "io.0 of fleet", "%i", "0", "1", false]`,
	}
	for i := range 2 {
		want[fmt.Sprintf("entry.%d", i)] = fmt.Sprintf(
			`["%[1]d", ["entry", {"%%i": "%[1]d/2"}], 7, "%%d"], {"fleet": "fleet"}, "entry.%[1]d of fleet", "%%i", "%[1]d", "2", false]`, i)
		want[fmt.Sprintf("script.%d", i)] = fmt.Sprintf(
			`%[1]d 100%% %[2]s %[3]s script.%[1]d of fleet %%i %[1]d 2 unset`, i, runtime, r.path(fmt.Sprintf("script-%d", i)))
	}
	for slot, text := range want {
		if got, _ := r.lastLine(slot, 1); got != text {
			t.Errorf("%s: got\n%s, want\n%s", slot, got, text)
		}
	}
	for _, slot := range []string{"entry.1", "script.1"} {
		_, pid := r.lastLine(slot, 1)
		var number int
		if _, err := fmt.Sscan(pid, &number); err != nil {
			t.Fatal(err)
		}
		kill(t, number, unix.SIGKILL)
		if got, _ := r.lastLine(slot, 2); got != want[slot] {
			t.Errorf("the successor of %s: got\n%s, want\n%s", slot, got, want[slot])
		}
	}
}

// Another number of slots replaces the processes whose values have it, and no others; what
// is started later has the new one in its variable.
func TestACountIsThatOfTheStart(t *testing.T) {
	r := sayRig(t)
	r.start()
	r.waitReady()
	_, script := r.lastLine("script.0", 1)
	_, entry := r.lastLine("entry.0", 1)
	for _, worker := range []string{"entry=3", "script=3"} {
		if _, stderr, code := prefork(t, "scale", r.path("fleet.toml"), worker); code != 0 {
			t.Fatalf("scale %s: %d, %s", worker, code, stderr)
		}
	}
	if got, _ := r.lastLine("script.2", 1); !strings.HasSuffix(got, " 2 3 unset") {
		t.Errorf("script.2, of three: %s", got)
	}
	if _, pid := r.lastLine("script.0", 1); pid != script {
		t.Errorf("script.0 is %s, was %s: nothing that it was told has changed", pid, script)
	}
	got, pid := r.lastLine("entry.0", 2)
	if pid == entry || !strings.Contains(got, `"0/3"`) || !strings.HasSuffix(got, `"3", false]`) {
		t.Errorf("entry.0, of three, is %s, was %s: %s", pid, entry, got)
	}
	r.eventually("the plan in the log", func() bool {
		return strings.Contains(r.logged(), "roll entry (count), resize entry from 2 to 3") && strings.Contains(r.logged(), ": resize script from 2 to 3")
	})
}

// The environment of the master says how many slots a worker has, above the file; a bad
// value is an error of the file, and starts nothing.
func TestACountFromOutside(t *testing.T) {
	const file = "[worker.a-b]\nexec = [\"sleep\", \"1000\"]\ncount = 3\n[worker.C]\nexec = [\"sleep\", \"1000\"]\n"
	r := prepare(t, file)
	r.cmd.Env = append(r.cmd.Env, "PREFORK_COUNT_A_B=2", "PREFORK_COUNT_C=", "PREFORK_COUNT_D=4")
	r.start()
	r.waitReady()
	if status := r.status(); !strings.HasPrefix(status, "3/3 ready") {
		t.Errorf("status %q, want 2 of a-b and 1 of C", status)
	}
	for _, want := range []string{
		"worker.a-b.count is 2: PREFORK_COUNT_A_B=2",
		"the variable PREFORK_COUNT_D is for no worker of this fleet: it has PREFORK_COUNT_A_B, PREFORK_COUNT_C",
	} {
		if !strings.Contains(r.logged(), want) {
			t.Errorf("the log does not have %q", want)
		}
	}
	bad := prepare(t, file)
	bad.cmd.Env = append(bad.cmd.Env, "PREFORK_COUNT_A_B=many")
	bad.start()
	if code := bad.wait(); code != 78 || !strings.Contains(bad.logged(), "fleet.toml:3: worker.a-b.count: the variable PREFORK_COUNT_A_B of the environment") {
		t.Errorf("exit status %d, want 78 and an error with file, line, key and variable", code)
	}
}

const capableModule = `
import os, socket, subprocess, prefork

def facts():
    with open("/proc/self/status") as status:
        caps = [line.split()[1].lstrip("0") or "0" for line in status if line.startswith("Cap")][:3]
        child = subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True).stdout.split()[1].lstrip("0") or "0"
    tried = []
    for kind in ((socket.AF_PACKET, socket.SOCK_RAW, 0), (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)):
        try:
            socket.socket(*kind).close()
            tried.append("open")
        except PermissionError:
            tried.append("no")
    return f"{os.getuid()} {' '.join(caps)} {child} {' '.join(tried)} {os.access('/proc/self/mem', os.R_OK)}"

def look():
    text = facts()
    with open(os.environ["OUT"] + "." + prefork.slot, "a") as out:
        out.write(f"{os.getpid()} {text}\n")
    import signal
    signal.pause()

async def task():
    look()
`

// An entry and a task may open raw sockets as an ordinary user, with the capability that
// they were given and no other, and so may what they execute. A worker of the same floor
// without the key may not. The master is root, or has that capability and no other.
func TestAnEntryHasAmbientCapabilities(t *testing.T) {
	needRoot(t)
	const net = "2000" // CAP_NET_RAW, as a mask
	can := "65534 " + strings.Repeat(net+" ", 4) + "open open True"
	cannot := "65534 0 0 0 0 no no True"
	for name, c := range map[string]struct {
		user    string
		process *syscall.SysProcAttr
	}{
		"root": {"user = \"65534\"\n", nil},
		"the fleet's user": {"", &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
			AmbientCaps: []uintptr{unix.CAP_NET_RAW},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := prepare(t, "[floor]\npath = [\"DIR\"]\npreload = [\"capable\", \"subprocess\"]\nsetup = \"capable:setup\"\n"+
				"[defaults]\n"+c.user+
				"[worker.can]\nentry = \"capable:look\"\nambient_capabilities = [\"CAP_NET_RAW\"]\n"+
				"[worker.task]\ntasks = { t = \"capable:task\" }\nambient_capabilities = [\"CAP_NET_RAW\"]\n"+
				"[worker.cannot]\nentry = \"capable:look\"\n")
			r.write("capable.py", capableModule+`
def setup():
    "What the floor starts has no rights for the sake of a worker."
    child = subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True).stdout.split()[1]
    if os.getuid() and int(child, 16):
        raise SystemExit("a child of the floor has capabilities: " + child)
`)
			r.open()
			if err := os.Chmod(r.dir, 0o777); err != nil {
				t.Fatal(err)
			}
			_ = os.Chmod(r.path("notify"), 0o777)
			r.cmd.SysProcAttr, r.cmd.Path = c.process, r.path("prefork") // the other user can come there
			if err := os.Link(self(t), r.cmd.Path); err != nil {
				t.Fatal(err)
			}
			r.start()
			for slot, want := range map[string]string{"can.0": can, "task.0": can, "cannot.0": cannot} {
				if got, _ := r.lastLine(slot, 1); got != want {
					t.Errorf("%s: got %q, want %q", slot, got, want)
				}
			}
			_, pid := r.lastLine("can.0", 1)
			var number int
			if _, err := fmt.Sscan(pid, &number); err != nil {
				t.Fatal(err)
			}
			kill(t, number, unix.SIGKILL)
			if got, _ := r.lastLine("can.0", 2); got != can {
				t.Errorf("its successor: got %q, want %q", got, can)
			}
		})
	}
}

// What the file says of processors is printed as what came of it, and can be read again.
func TestCheckPrintsWhatCameOfACount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.toml")
	if err := os.WriteFile(path, []byte("[worker.w]\nexec = [\"bin/x\", \"%w\", \"%i\"]\ncount = \"2 * cpu + 1\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(filepath.Dir(path), "bin"), 0o700),
		os.Symlink("/bin/true", filepath.Join(filepath.Dir(path), "bin/x"))); err != nil {
		t.Fatal(err)
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := prefork(t, "check", path)
	lines := strings.Split(stdout, "\n")
	at := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "count = ") })
	if code != 0 || stderr != "" || at < 0 || !strings.Contains(lines[at], "  # 2*cpu+1 with ") {
		t.Fatalf("%d, %s\n%s", code, stderr, stdout)
	}
	var count int
	if _, err := fmt.Sscanf(lines[at], "count = %d", &count); err != nil || count < 3 || count > 2*set.Count()+1 || count%2 == 0 {
		t.Errorf("%s, with %d processors", lines[at], set.Count())
	}
	if want := fmt.Sprintf("exec = [%q, \"w\", \"%%i\"]", filepath.Join(filepath.Dir(path), "bin/x")); !slices.Contains(lines, want) {
		t.Errorf("no %s in\n%s", want, stdout)
	}
}
