// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Each hook of a fork runs once for each worker: before and in the parent in the
// floor, in the child in the worker, and nowhere else.
func TestHooksRunOncePerWorker(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		log := filepath.Join(t.TempDir(), "hooks")
		z := load(t, python, module(t, "hooked", fmt.Sprintf(`
import os
def note(what):
    fd = os.open(%q, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{what} {os.getpid()}\n".encode())
    os.close(fd)
os.register_at_fork(before=lambda: note("before"), after_in_parent=lambda: note("parent"), after_in_child=lambda: note("child"))
def entry():
    print("served")
`, log)))
		floor := z.cmd.Process.Pid
		var want []string
		for range 5 {
			w := z.fork()
			if r := w.run("entry=hooked:entry"); r.output != "served\n" || r.status != 0 {
				t.Errorf("status %#x, output %q", r.status, r.output)
			}
			want = append(want, fmt.Sprintf("before %d", floor), fmt.Sprintf("parent %d", floor), fmt.Sprintf("child %d", w.pid))
		}
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimSpace(string(b)), "\n")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("hooks: %q, want %q", got, want)
		}
	})
}

// A hook that hangs in the worker costs that worker its start: it has said who it
// is, and the floor forks on.
func TestHookThatHangsCostsItsWorkerOnly(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		flag := filepath.Join(t.TempDir(), "hang")
		if err := os.WriteFile(flag, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		z := load(t, python, module(t, "hangs", fmt.Sprintf(`
import os, time
def hook():
    if os.path.exists(%q):
        time.sleep(1000)
os.register_at_fork(after_in_child=hook)
`, flag)))
		stuck := z.request()
		defer unix.Close(stuck)
		if hello := read(t, stuck); hello != "hello\x001" {
			t.Fatalf("got %q, want hello", hello)
		}
		if err := os.Remove(flag); err != nil {
			t.Fatal(err)
		}
		if r := z.fork().run("entry=os:getpid"); r.status != 0 {
			t.Errorf("the next worker: status %#x, %q", r.status, r.output)
		}
		for _, pid := range childrenNamed(t, z.cmd.Process.Pid) {
			_ = unix.Kill(pid, unix.SIGKILL) // the master would, by its deadline
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
	})
}

// childrenNamed are the children of this process that have the floor's program,
// but for the floor.
func childrenNamed(t *testing.T, floor int) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var pid, ppid int
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil || pid == floor {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		rest := string(stat)[strings.LastIndexByte(string(stat), ')')+1:]
		if _, err := fmt.Sscanf(rest, " %c %d", new(rune), &ppid); err == nil && ppid == os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// What an import does to the process as a whole is taken back, or reaches workers
// as it would by a plain fork.
func TestWhatAnImportChangedInTheProcess(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, module(t, "changes", `
import faulthandler, gc, os, signal
mask = os.umask(0); os.umask(mask); here = os.getcwd(); nice = os.getpriority(os.PRIO_PROCESS, 0)
gc.disable()
os.umask(0o077); os.chdir("/"); os.setpriority(os.PRIO_PROCESS, 0, nice + 1)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.05)
faulthandler.register(signal.SIGUSR1)
def entry():
    faulthandler.register(signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    now = os.umask(0)
    print(gc.isenabled(), now == mask, os.getcwd() == here, os.getpriority(os.PRIO_PROCESS, 0) - nice)
`))
		want := "False True True 0\n"
		if os.Geteuid() != 0 {
			want = "False True True 1\n" // only who has the right can take nice back
		}
		if r := z.fork().run("entry=changes:entry"); r.status != 0 || !strings.HasSuffix(r.output, want) || !strings.Contains(r.output, "File ") {
			t.Errorf("status %#x, output %q, want a stack and %q", r.status, r.output, want)
		}
	})
}

// Files that a worker leaves open are written when it ends, each once, and what C
// has in its buffers; what the floor had in its own is not.
func TestOpenFilesAreWrittenAtTheEnd(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		dir := t.TempDir()
		z := load(t, python, module(t, "leaves", fmt.Sprintf(`
import ctypes, csv, gzip, os, sys
os.chdir(%q)
floors = open("floor", "a")
floors.write("floor\n")
kept = []
def entry(how):
    text, raw, packed, table = open("text", "w"), open("raw", "wb"), gzip.open("packed", "wb"), open("table", "w")
    kept.extend([text, raw, packed, table])
    text.write("text\n"); raw.write(b"raw\n"); packed.write(b"packed\n"); csv.writer(table).writerow([1, 2])
    ctypes.CDLL(None).printf(b"from C\n")
    if how == "exit":
        sys.exit(0)
def look():
    print(open("text").read() + open("raw").read() + gzip.open("packed").read().decode() + open("table").read() + open("floor").read())
`, dir)), func(cmd *exec.Cmd) { cmd.Dir = dir })
		for _, how := range []string{"return", "exit"} {
			if r := z.fork().run("entry=leaves:entry args=('" + how + "',)"); r.status != 0 || r.output != "from C\n" {
				t.Errorf("%s: status %#x, output %q", how, r.status, r.output)
			}
			if r := z.fork().run("entry=leaves:look"); r.output != "text\nraw\npacked\n1,2\n\n" {
				t.Errorf("%s: the files have %q", how, r.output)
			}
		}
	})
}

// The floor's exit handlers run when it ends in order, and in no worker.
func TestFloorsExitHandlersRunOnceAtItsEnd(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		log := filepath.Join(t.TempDir(), "ends")
		z := load(t, python, module(t, "ends", fmt.Sprintf(`
import atexit, os, weakref
class Thing: pass
thing = Thing()
def note(what):
    with open(%q, "a") as f:
        f.write(f"{what} {os.getpid()}\n")
atexit.register(note, "atexit")
weakref.finalize(thing, note, "finalize")
`, log)))
		z.fork().run("entry=os:getpid")
		if _, err := os.Stat(log); err == nil {
			t.Error("a handler of the floor ran before its end")
		}
		pid := z.cmd.Process.Pid
		z.close()
		got, err := os.ReadFile(log)
		if want := fmt.Sprintf("finalize %d\natexit %d\n", pid, pid); err != nil || len(got) != len(want) || strings.Count(string(got), fmt.Sprint(pid)) != 2 {
			t.Errorf("got %q, %v, want %q in some order", got, err, want)
		}
	})
}

// Floors that workers could not share, or that could not be loaded a second time.
func TestFloorThatCannotBeSharedIsRefusedByName(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		lock := filepath.Join(t.TempDir(), "app.lock")
		cause, _ := loadBroken(t, python, module(t, "locks", fmt.Sprintf(`
import fcntl
LOCK = open(%q, "w")
fcntl.flock(LOCK, fcntl.LOCK_EX)
`, lock)))
		if !strings.Contains(cause, "app.lock") {
			t.Errorf("a locked file: %q", cause)
		}
		site := t.TempDir()
		const agent = "import socket\nAGENT = socket.socket()\n"
		if err := os.WriteFile(filepath.Join(site, "sitecustomize.py"), []byte(agent), 0o600); err != nil {
			t.Fatal(err)
		}
		cause, _ = loadBroken(t, python, nil, environment("PYTHONPATH="+site))
		if !strings.Contains(cause, "socket:") || !strings.Contains(cause, "opened while starting python") {
			t.Errorf("a socket that was open before: %q", cause)
		}
	})
}

// What the interpreter opens before the floor gets no number of a worker's socket,
// and the worker has it as after a plain fork.
func TestFileThatIsOpenBeforeTheFloor(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		site := t.TempDir()
		agent := filepath.Join(site, "agent.log")
		text := fmt.Sprintf("import os\nLOG = open(%q, 'a')\nprint(LOG.fileno(), *sorted(map(int, os.listdir('/proc/self/fd'))), file=LOG, flush=True)\n", agent)
		if err := os.WriteFile(filepath.Join(site, "sitecustomize.py"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		z := load(t, python, module(t, "app", "import os, sitecustomize\ndef entry(): print(os.path.basename(os.readlink(f'/proc/self/fd/{sitecustomize.LOG.fileno()}')))"),
			environment("PYTHONPATH="+site), reserve(2))
		if r := z.fork().run("entry=app:entry listen=a listen=b", listeners(t, 2)...); r.output != "agent.log\n" {
			t.Errorf("status %#x, gate %q, output %q", r.status, r.failed, r.output)
		}
		// 3 and 4 are held, 5 is the command socket, 6 the program.
		if b, err := os.ReadFile(agent); err != nil || string(b) != "7 0 1 2 3 4 5 6 7 8\n" {
			t.Errorf("the file has %q, %v", b, err)
		}
	})
}

// A file that workers would write to at a common position is told of by name; what
// is appended to or mapped is not.
func TestFileThatWorkersCouldSpoilIsToldOf(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		dir := t.TempDir()
		z := load(t, python, module(t, "app", fmt.Sprintf(`
import os, sqlite3
DB = sqlite3.connect(%[1]q + "/app.sqlite")
DB.execute("create table t (n)")
OUT = open(%[1]q + "/out.txt", "w")
LOG = open(%[1]q + "/app.log", "a")
IN = open(%[1]q + "/out.txt")
MEMORY = os.memfd_create("arena")
`, dir)))
		text := z.output()
		for name, want := range map[string]int{"app.sqlite": 1, "out.txt": 1, "app.log": 0, "arena": 0} {
			if n := strings.Count(text, name+")"); n != want {
				t.Errorf("%s: told of %d times, want %d:\n%s", name, n, want, text)
			}
		}
		if !strings.Contains(text, "opened while importing app") {
			t.Errorf("nobody is named: %s", text)
		}
	})
}

// The application's module is found, whatever the zygote has imported for itself.
func TestModuleOfTheApplicationIsFound(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		for _, name := range []string{"resource", "worker", "prepare", "zygote"} {
			z := load(t, python, module(t, name, "def entry():\n    print('mine')\n"))
			if r := z.fork().run("entry=" + name + ":entry"); r.output != "mine\n" {
				t.Errorf("%s: status %#x, gate %q, output %q", name, r.status, r.failed, r.output)
			}
		}
	})
}

// What an import puts in the place of functions is not called by the zygote, and a
// worker's own code finds it there.
func TestPatchedModules(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, module(t, "patches", `
import os, signal, socket, time
def patched(*args, **kwargs): raise NotImplementedError("patched")
for module, names in ((os, "close read write fork waitpid dup2 pipe open stat listdir getpid _exit"), (time, "sleep monotonic tzset"), (socket.socket, "send recvmsg")):
    for name in names.split(): setattr(module, name, patched)
def entry():
    print(os.close is os.fork is time.sleep is patched)
`))
		for range 2 {
			if r := z.fork().run("entry=patches:entry listen=a", listeners(t, 1)...); r.output != "True\n" {
				t.Errorf("status %#x, gate %q, output %q", r.status, r.failed, r.output)
			}
		}
	})
}
