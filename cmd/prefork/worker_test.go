// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// lookFleet has an entry and a program that tell what they were given. The
// program is Python too, so that both tell it in the same words.
const lookFleet = `
[floor]
path = ["DIR"]
preload = ["app"]
env = { FLOOR = "floor", BOTH = "floor" }
[socket.one]
listen = ["DIR/one-a.sock", "DIR/one-b.sock"]
[socket.two]
listen = "DIR/two.sock"
type = "datagram"
[defaults]
sockets = ["two", "one"]
environment = { BOTH = "worker", OWN = "x=y z" }
environment_file = "DIR/env"
working_directory = "/"
nice = 3
umask = "0077"
limit_nofile = 500
[worker.entry]
entry = "app:look"
args = ["a'\\\"b", 1, 1.5, true, [2, "ü"]]
kwargs = { key = { nested = "v" } }
[worker.exec]
exec = ["python3", "-c", "import sys; sys.path.insert(0, 'DIR'); sys.modules['prefork'] = type(sys)('prefork'); import prefork; prefork.slot = 'exec.0'; prefork.generation = 0; import app; app.look()"]
`

func TestWorkerGetsExactlyItsSurroundings(t *testing.T) {
	r := prepare(t, lookFleet)
	r.write("env", "# comment\nFROM_FILE=\"quoted value\"\nOWN=file\n")
	r.cmd.Env = append(
		r.cmd.Env, "LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=x", "LISTEN_PIDFDID=7",
		"WATCHDOG_USEC=60000000", "WATCHDOG_PID=1", "FDSTORE=3", "MAINPID=1", "INVOCATION_ID=abc", "JOURNAL_STREAM=1:2",
	)
	r.start()
	for _, n := range r.waitNotes(2) {
		t.Run(n.Slot, func(t *testing.T) { checkSurroundings(t, r, n) })
	}
}

func checkSurroundings(t *testing.T, r *rig, n note) {
	entry := n.Slot == "entry.0"
	checkFDs(t, n)
	checkEnvironment(t, r, n)
	if n.SID != n.PID {
		t.Errorf("session %d, want its own, %d", n.SID, n.PID)
	}
	if n.Cwd != "/" || n.Nice != 3 {
		t.Errorf("cwd %s, nice %d, want / and 3", n.Cwd, n.Nice)
	}
	// A python3 that was started with all defaults ignores SIGPIPE and SIGXFSZ and
	// catches SIGINT. An entry has one more: that which asks where it is.
	caught := map[bool]string{true: "4000000000000002", false: "0000000000000002"}[entry]
	for key, want := range map[string]string{
		"SigBlk": "0000000000000000", "SigIgn": "0000000001001000", "SigCgt": caught, "Umask": "0077",
	} {
		if n.Status[key] != want {
			t.Errorf("%s is %s, want %s", key, n.Status[key], want)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", n.PID))
	if err != nil || !strings.Contains(string(limits), "Max open files            500                  500") {
		t.Errorf("limits (%v):\n%s", err, limits)
	}
	if !entry {
		return
	}
	if n.Cmdline != "prefork: entry.0 [fleet] gen 1" || n.Generation != 1 {
		t.Errorf("title %q, generation %d", n.Cmdline, n.Generation)
	}
	if got, want := fmt.Sprint(n.Args, n.Kwargs), "[a'\\\"b 1 1.5 true [2 ü]] map[key:map[nested:v]]"; got != want {
		t.Errorf("arguments %s, want %s", got, want)
	}
}

// checkFDs: 0, 1, 2 and the sockets in the order of the file; the fd of the
// listing itself is gone by the time it is read.
func checkFDs(t *testing.T, n note) {
	t.Helper()
	if got, want := slices.Sorted(maps.Keys(n.FDs)), []string{"0", "1", "2", "3", "4", "5"}; !slices.Equal(got, want) {
		t.Errorf("descriptors %v, want %v", n.FDs, want)
	}
	if n.FDs["0"] != "/dev/null" {
		t.Errorf("standard input is %s", n.FDs["0"])
	}
	for _, fd := range []string{"3", "4", "5"} {
		if !strings.HasPrefix(n.FDs[fd], "socket:") {
			t.Errorf("fd %s is %s, want a socket", fd, n.FDs[fd])
		}
	}
}

func checkEnvironment(t *testing.T, r *rig, n note) {
	t.Helper()
	want := map[string]string{}
	for _, kv := range environment(t) {
		name, value, _ := strings.Cut(kv, "=")
		want[name] = value
	}
	maps.Copy(want, map[string]string{
		"OUT":  r.path("out"),
		"BOTH": "worker", "OWN": "x=y z", "FROM_FILE": "quoted value",
		"LISTEN_FDS": "3", "LISTEN_FDNAMES": "two:one:one", "LISTEN_PID": strconv.Itoa(n.PID),
		"PREFORK_FLEET": "fleet", "PREFORK_WORKER": strings.TrimSuffix(n.Slot, ".0"), "PREFORK_SLOT": n.Slot, "PREFORK_INDEX": "0", "PREFORK_COUNT": "1",
		"PREFORK_INVOCATION_ID": n.Environ["PREFORK_INVOCATION_ID"],
		"NOTIFY_SOCKET":         n.Environ["NOTIFY_SOCKET"],
	})
	if socket := n.Environ["NOTIFY_SOCKET"]; !strings.HasSuffix(socket, "/notify/"+n.Slot) {
		t.Errorf("NOTIFY_SOCKET is %s, want one of its own", socket)
	}
	if n.Slot == "entry.0" {
		want["FLOOR"] = "floor"
	}
	for name, value := range want {
		if got, ok := n.Environ[name]; !ok || got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	delete(n.Environ, "PWD") // exec.Cmd sets it for the master
	for name := range n.Environ {
		if _, ok := want[name]; !ok {
			t.Errorf("%s=%s is not meant for a worker", name, n.Environ[name])
		}
	}
	if len(n.Environ["PREFORK_INVOCATION_ID"]) != 32 {
		t.Errorf("PREFORK_INVOCATION_ID is %q", n.Environ["PREFORK_INVOCATION_ID"])
	}
}

// As under systemd, SIGPIPE apart nothing is ignored.
func TestProgramsHaveDefaultSignals(t *testing.T) {
	r := prepare(t, "[worker.p]\nexec = [\"sh\", \"-c\", \"grep Sig /proc/self/status >>$OUT; sleep 1000\"]\n")
	// What the master ignores and blocks is not passed on.
	r.cmd.Path, r.cmd.Args = "/bin/sh", []string{"sh", "-c", "trap '' HUP USR1 PIPE; exec \"$0\" \"$@\"", self(t), "run", r.path("fleet.toml")}
	r.start()
	r.eventually("the program tells", func() bool {
		text, _ := os.ReadFile(r.path("out"))
		return strings.Contains(string(text), "SigCgt")
	})
	text, _ := os.ReadFile(r.path("out"))
	for _, want := range []string{"SigBlk:\t0000000000000000", "SigIgn:\t0000000000001000"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("want %s in\n%s", want, text)
		}
	}
}

// A program that cannot be executed, and surroundings that cannot be had, have
// systemd's exit statuses; nothing runs as somebody else.
func TestWorkerThatCannotBecomeWhatItShould(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]struct {
		keys   string
		status int
	}{
		"no program":        {`exec = ["DIR/nonexistent"]`, 203},
		"not in PATH":       {`exec = ["no-such-program"]`, 203},
		"not executable":    {`exec = ["/etc/passwd"]`, 203},
		"no folder":         {"exec = [\"id\"]\nworking_directory = \"DIR/nonexistent\"", 200},
		"no user":           {"exec = [\"touch\", \"DIR/ran\"]\nuser = \"no-such-user\"", 217},
		"no group":          {"exec = [\"touch\", \"DIR/ran\"]\ngroup = \"no-such-group\"", 216},
		"entry, no user":    {"entry = \"app:note\"\nuser = \"no-such-user\"", 217},
		"entry, no group":   {"entry = \"app:note\"\nsupplementary_groups = [\"no-such-group\"]", 216},
		"entry, no folder":  {"entry = \"app:note\"\nworking_directory = \"DIR/nonexistent\"", 200},
		"entry, no such":    {`entry = "colorsys:nothing"`, 1},
		"entry, no module":  {`entry = "nowhere:main"`, 1},
		"environment file":  {"exec = [\"touch\", \"DIR/ran\"]\nenvironment_file = \"DIR/nonexistent\"", -1},
		"environment file2": {"entry = \"app:note\"\nenvironment_file = \"DIR/nonexistent\"", -1},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, "[floor]\npath = [\"DIR\"]\npreload = [\"app\"]\n[worker.w]\nrestart = \"no\"\n"+c.keys+"\n")
			if code := r.wait(); code != 1 {
				t.Errorf("the fleet's exit status is %d, want 1", code)
			}
			want := fmt.Sprintf("status %d", c.status)
			if c.status < 0 {
				want = "resources"
			}
			if !strings.Contains(r.logged(), want) {
				t.Errorf("the log does not say %q", want)
			}
			if _, err := os.Stat(r.path("ran")); err == nil || len(r.seen()) > 0 {
				t.Error("it ran all the same")
			}
		})
	}
}

func TestWorkerRunsAsAnotherUser(t *testing.T) {
	needRoot(t)
	r := prepare(t, `
[floor]
path = ["DIR"]
preload = ["app"]
[defaults]
user = "nobody"
no_new_privileges = true
environment = { OUT = "DIR/pub/out" }
[worker.entry]
entry = "app:look"
[worker.exec]
exec = ["sh", "-c", "grep -E 'Uid|Gid|Groups|NoNew' /proc/self/status >DIR/pub/exec; env >>DIR/pub/exec; sleep 1000"]
`)
	if err := os.Mkdir(r.path("pub"), 0o777); err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(r.path("pub"), 0o777)
	r.open()
	r.start()
	r.eventually("both tell", func() bool {
		a, _ := os.ReadFile(r.path("pub/out"))
		b, _ := os.ReadFile(r.path("pub/exec"))
		return strings.HasSuffix(string(a), "\n") && strings.Contains(string(b), "SHELL=")
	})
	entry, _ := os.ReadFile(r.path("pub/out"))
	program, _ := os.ReadFile(r.path("pub/exec"))
	for _, want := range []string{`"uid": 65534`, `"NoNewPrivs": "1"`, `"CapPrm": "0000000000000000"`, `"USER": "nobody"`, `"HOME": "/nonexistent"`} {
		if !strings.Contains(string(entry), want) {
			t.Errorf("entry: want %s in\n%s", want, entry)
		}
	}
	for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534", "NoNewPrivs:\t1", "USER=nobody", "HOME=/nonexistent", "LOGNAME=nobody"} {
		if !strings.Contains(string(program), want) {
			t.Errorf("program: want %s in\n%s", want, program)
		}
	}
}

// The floor's user imports the floor, and its workers cannot be anybody else.
func TestFloorRunsAsAnotherUser(t *testing.T) {
	needRoot(t)
	python := "python3"
	if _, err := os.Stat("/usr/bin/python3"); err == nil {
		python = "/usr/bin/python3" // which others may execute, too
	}
	r := prepare(t, "[floor]\npython = \""+python+"\"\npath = [\"DIR\"]\npreload = [\"app\", \"who\"]\nuser = \"nobody\"\n[worker.w]\nentry = \"who:tell\"\n")
	r.write("who.py", "import os\nFLOOR = os.getuid()\ndef tell():\n    print('floor', FLOOR, 'worker', os.getuid(), os.getgid(), os.getgroups(), os.environ['HOME'], file=__import__('sys').stderr)\n")
	r.open()
	r.start()
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
	if want := "floor 65534 worker 65534 65534 [65534] /nonexistent"; !strings.Contains(r.logged(), want) {
		t.Errorf("want %q in the log", want)
	}
}

func TestCoroutineEntry(t *testing.T) {
	r := start(t, "[floor]\npath = [\"DIR\"]\npreload = [\"app\"]\n[worker.w]\nentry = \"app:coroutine\"\n")
	if n := r.waitNotes(1)[0]; !strings.Contains(n.Loop, "EventLoop") {
		t.Errorf("it ran in %q, want an event loop", n.Loop)
	}
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
}

// An environment that does not fit one message travels in a memfd.
func TestLargeEnvironment(t *testing.T) {
	big := strings.Repeat("x", 300_000)
	r := prepare(t, "[floor]\npath = [\"DIR\"]\npreload = [\"app\"]\n[defaults]\nenvironment_file = \"DIR/env\"\n"+
		"[worker.entry]\nentry = \"app:look\"\n[worker.exec]\nexec = [\"sh\", \"-c\", \"echo ${#B1} >$OUT.sh; sleep 1000\"]\n")
	r.write("env", "BIG="+big+"\nB1="+big[:100_000]+"\n")
	r.start()
	n := r.waitNotes(1)[0]
	if n.Environ["BIG"] != big {
		t.Errorf("the entry got %d bytes, want %d", len(n.Environ["BIG"]), len(big))
	}
	// No single string of a program's environment may be longer than 128 KiB (execve(2)).
	r.eventually("the program is refused", func() bool { return strings.Contains(r.logged(), "argument list too long") })
}

// The sockets of a fleet are one open file description with the workers';
// prefork leaves O_NONBLOCK as it is.
func TestSocketsKeepTheirBlockingMode(t *testing.T) {
	for _, nonblock := range []bool{false, true} {
		t.Run(fmt.Sprintf("nonblock %v", nonblock), func(t *testing.T) {
			r := prepare(t, strings.Replace(webFleet, "app:serve", "app:hold", 1))
			listener, err := net.Listen("unix", r.path("http.sock"))
			if err != nil {
				t.Fatal(err)
			}
			file, err := listener.(*net.UnixListener).File()
			if err != nil {
				t.Fatal(err)
			}
			fd := int(file.Fd())
			if err := unix.SetNonblock(fd, nonblock); err != nil {
				t.Fatal(err)
			}
			r.cmd.ExtraFiles = []*os.File{file}
			// LISTEN_PID must be the pid of the program, which the shell becomes.
			r.cmd.Path, r.cmd.Args = "/bin/sh", []string{"sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec \"$0\" \"$@\"", self(t), "run", r.path("fleet.toml")}
			// ExtraFiles makes the descriptor blocking in the child's start; set it again after.
			r.start()
			if err := unix.SetNonblock(fd, nonblock); err != nil {
				t.Fatal(err)
			}
			r.waitNotes(4)
			kill(t, r.child("prefork: web.0").pid, unix.SIGKILL)
			r.waitNotes(5)
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if err != nil || (flags&unix.O_NONBLOCK != 0) != nonblock {
				t.Errorf("O_NONBLOCK is %v (%v), was %v", flags&unix.O_NONBLOCK != 0, err, nonblock)
			}
		})
	}
}

// A variable that a forked worker is past is not accepted in silence.
func TestEnvironmentFileWithoutEffect(t *testing.T) {
	r := prepare(t, `
[floor]
env = { LC_ALL = "C.UTF-8" }
[worker.a]
entry = "time:tzset"
restart = "no"
environment_file = "DIR/env"
[worker.b]
exec = ["true"]
restart = "no"
environment_file = "DIR/env"
`)
	r.write("env", "LC_ALL=C.UTF-8\nPYTHONHASHSEED=1\nMODE=live\n")
	r.start()
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
	const want = "a.0: environment_file: PYTHONHASHSEED has no effect in a worker that is forked: it is read before; write it into floor.env"
	if said := r.logged(); !strings.Contains(said, want) || strings.Count(said, "environment_file") != 1 {
		t.Errorf("want only %q:\n%s", want, said)
	}
}
