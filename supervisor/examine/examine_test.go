// SPDX-License-Identifier: AGPL-3.0-or-later

package examine

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// What a good floor does is told with who does it; what it costs is measured.
func TestAGoodFloor(t *testing.T) {
	onPythons(t, func(t *testing.T, python string) {
		r, f := examine(t, python, `
[floor]
preload = ["json", "app"]
setup = "app:setup"
warm = "app:warm"
env = { GIVEN = "1" }
[worker.web]
entry = "app.web:serve"
count = 3
[worker.batch]
entry = "app.late:run"
count = 2
`, map[string]string{
			"app/__init__.py": "import app.slow\nimport app.web\nimport os, signal, sys\nprint('hello\\x1b[31m from', os.environ['GIVEN'])\n" +
				"def setup():\n    global model\n    import app.model as model\n" +
				"def warm():\n    for n, thing in enumerate(model.things):\n        thing.append(n)\n    for thing in model.things:\n        del thing[-1]\n",
			"app/slow.py": "import app.large\nimport time\ntime.sleep(0.2)\nimport os, signal\nos.umask(0o077)\nos.chdir('/')\n" +
				"os.environ['SET'] = 'secret'\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\n" +
				"os.register_at_fork(before=lambda: time.sleep(0.001), after_in_child=lambda: time.sleep(0.002))\nimport sys\nsys.setswitchinterval(0.5)\nos.umask(0o022); os.umask(0o027)\n",
			"app/large.py": "text = bytes(range(256)) * (32 << 12)\n",
			"app/web.py":   "def serve(): raise SystemError('is not to be called')\n",
			"app/model.py": "things = [[n] for n in range(100_000)]\n",
			"app/late.py":  "import xml.dom.minidom, app.later\ndef run(): raise SystemError('is not to be called')\n",
			"app/later.py": "text = bytes(range(256)) * (8 << 12)\n",
		})
		if !r.Usable || r.Cause != "" || len(r.Threads)+len(r.Loops)+len(r.Processes)+len(r.Devices) > 0 {
			t.Errorf("usable %t, cause %q", r.Usable, r.Cause)
		}
		var steps []string
		for _, m := range r.Modules {
			steps = append(steps, m.Name)
		}
		if want := []string{"json", "app", "setup app:setup", "warm app:warm"}; !slices.Equal(steps, want) {
			t.Errorf("the load: got %q, want %q", steps, want)
		}
		slow, large, model := named(r.Modules, "app.slow"), named(r.Modules, "app.large"), named(r.Modules[2:3], "app.model")
		if slow == nil || large == nil || model == nil || named(slow.Modules, "app.large") == nil {
			t.Fatal("app.slow, app.large or app.model is missing, or not where it was imported")
		}
		if slow.OwnSeconds < 0.2 || large.Seconds > slow.OwnSeconds || r.Modules[1].Seconds < slow.Seconds {
			t.Errorf("seconds: app %f, app.slow %f, app.large %f", r.Modules[1].Seconds, slow.OwnSeconds, large.Seconds)
		}
		if large.OwnMemory < 30<<20 || slow.OwnMemory > 10<<20 || slow.Memory < large.Memory || r.Modules[1].Memory < large.Memory {
			t.Errorf("memory: app.large %d, app.slow %d of %d", large.OwnMemory, slow.OwnMemory, slow.Memory)
		}
		at := func(module string, line int) Origin {
			return Origin{During: "app > " + strings.TrimSuffix(strings.ReplaceAll(module, "/", "."), ".py"), Where: filepath.Join(f.dir, module) + ":" + strconv.Itoa(line)}
		}
		place := Origin{During: "app > app.slow"}
		for _, want := range []Change{
			{"umask", "0022", "0027", false, place},
			{"working directory", r.Directory, "/", false, at("app/slow.py", 6)},
			{"signal SIGUSR1", "default", "ignored", false, place},
			{"environment SET", "", "set", true, place},
			{"sys.getswitchinterval", "0.005", "0.5", true, place},
		} {
			if got := changed(r, want.What); got != want {
				t.Errorf("%s: got %+v, want %+v", want.What, got, want)
			}
		}
		i := slices.IndexFunc(r.ForkHooks, func(h ForkHook) bool { return h.Module == "app.slow" })
		if i < 0 {
			t.Error("the hooks of app.slow are missing")
		} else if h := r.ForkHooks[i]; h.Before != 1 || h.Parent != 0 || h.Child != 1 || h.BeforeSeconds < 0.001 || h.ChildSeconds < 0.002 {
			t.Errorf("hooks: %+v", h)
		}
		web, batch := r.Entries[0], r.Entries[1]
		if web.Error+batch.Error != "" || !web.Preloaded || web.Count != 0 || batch.Preloaded || batch.Count != len(batch.Modules) ||
			!slices.Contains(batch.Modules, "app.late") || !slices.Contains(batch.Modules, "app.later") || batch.Memory < 7<<20 || batch.Memory > 30<<20 {
			t.Errorf("entries: %+v, %+v", web, batch)
		}
		memoryOfGoodFloor(t, r)
		if got := f.printed.String(); got != "hello [31m from 1\n" {
			t.Errorf("it printed %q, want it once, and harmless", got)
		}
	})
}

func memoryOfGoodFloor(t *testing.T, r *Report) {
	t.Helper()
	m := r.Memory
	if m == nil || m.Worker != "web" || m.Slots != 5 || len(m.Rows) != 6 || !m.Rows[0].AsFile || !m.Rows[5].Advised {
		t.Fatalf("memory: %+v", m)
	}
	byName := map[variant]Row{}
	for _, row := range m.Rows[:5] {
		byName[variant{row.Immortal, row.Warm, row.Repack, row.GCFreeze}] = row
	}
	cold, warm := byName[variant{false, false, false, true}], byName[variant{false, true, false, true}]
	for _, row := range []Row{cold, warm, byName[variant{false, true, true, true}], m.Rows[5]} {
		if row.Error != "" || row.WorkError != "" || row.Birth == 0 || row.Entry < row.Birth || row.Worked <= row.Entry || row.WorkedCollected < row.Entry || row.Floor < 30<<20 {
			t.Errorf("figures: %+v", row)
		}
	}
	// Lists that have grown once have room.
	if warm.Worked+1<<20 > cold.Worked {
		t.Errorf("a worker of a floor that is warm writes %d, of one that is not %d", warm.Worked, cold.Worked)
	}
	both, late := byName[variant{true, true, false, true}], advised(r, "floor.preload")
	if strings.HasPrefix(r.Python, "3.11.") {
		if !strings.HasPrefix(both.Error, "it needs CPython 3.12 or later, not 3.11") || advised(r, "floor.immortal").Key != "" {
			t.Errorf("immortal: %+v, %+v", both, advised(r, "floor.immortal"))
		}
	} else if both.Error != "" || both.Birth >= warm.Birth {
		t.Errorf("immortal: %+v, else %+v", both, warm)
	}
	if late.Value != `["json", "app", "app.late"]` || late.Worker != "batch" || late.Saves != r.Entries[1].Memory || !strings.Contains(late.Text, "in 2 workers") {
		t.Errorf("advice: %+v", late)
	}
	if all := advised(r, "all of that"); !strings.HasPrefix(all.Text, "Was tried together: ") {
		t.Errorf("advice: %+v", all)
	}
}

// A floor that is refused is told of whole: each thing with the import and the line.
func TestARefusedFloor(t *testing.T) {
	onPythons(t, func(t *testing.T, python string) {
		r, f := examine(t, python, "[floor]\npreload = [\"inner\", \"bad\"]\n[worker.web]\nentry = \"bad:serve\"", map[string]string{
			"inner.py": "import threading, time\ndef flush(): time.sleep(1000)\nthreading.Thread(target=flush, name='flusher', daemon=True).start()\n",
			"bad.py": `import deep
import asyncio, fcntl, mmap, os, socket, subprocess
loop = asyncio.new_event_loop()
child = subprocess.Popen(["sleep", "1000"])
open("DIR/child", "w").write(str(child.pid))
data = open("DIR/data", "w")
with open("DIR/libcuda.so.1", "rb") as file:
    device = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
ended = socket.socket(); ended.bind(("127.0.0.1", 0)); ended.close()
def serve(): pass
`,
			"libcuda.so.1": strings.Repeat("x", 4096),
			"deep.py": "import socket\nlistener = socket.socket()\nlistener.bind(('127.0.0.1', 0))\nlistener.listen()\n" +
				"import fcntl\nlock = open('DIR/lock', 'w')\nfcntl.flock(lock, fcntl.LOCK_EX)\n",
		})
		if r.Usable || !strings.HasPrefix(r.Cause, "importing inner started 1 thread: flusher (threading); set floor.threads") || r.Memory != nil {
			t.Errorf("usable %t, cause %q, memory %v", r.Usable, r.Cause, r.Memory)
		}
		at := func(during, file string, line int) Origin {
			return Origin{during, filepath.Join(f.dir, file) + ":" + strconv.Itoa(line)}
		}
		if len(r.Threads) != 1 || r.Threads[0].Name != "flusher (threading)" || r.Threads[0].Origin != at("inner", "inner.py", 3) {
			t.Errorf("threads: %+v", r.Threads)
		}
		found := map[string]Descriptor{}
		for _, d := range r.Descriptors {
			kind, _, _ := strings.Cut(d.Target, ":[")
			if d.Where != "" || kind != "socket" { // those of the event loop are not made in Python
				found[strings.TrimPrefix(d.Target, f.dir+"/")] = d
				found[kind] = d
			}
		}
		if d := found["socket"]; d.Verdict != Shared || d.Origin != at("bad > deep", "deep.py", 3) {
			t.Errorf("socket: %+v", d)
		}
		if d := found["lock"]; d.Verdict != Shared || !d.Locked || d.Origin != at("bad > deep", "deep.py", 7) {
			t.Errorf("lock: %+v", d)
		}
		if d := found["data"]; d.Verdict != Spoiled || d.Locked || d.Origin != at("bad", "bad.py", 6) {
			t.Errorf("data: %+v", d)
		}
		if len(r.Loops) != 1 || r.Loops[0].Running || r.Loops[0].Closed || r.Loops[0].During != "bad" {
			t.Errorf("event loops: %+v", r.Loops)
		}
		if len(r.Processes) != 1 || r.Processes[0] != (Process{"sleep", at("bad", "bad.py", 4)}) {
			t.Errorf("processes: %+v", r.Processes)
		}
		if len(r.Devices) != 1 || r.Devices[0] != (Device{filepath.Join(f.dir, "libcuda.so.1"), Origin{During: "bad"}}) {
			t.Errorf("devices: %+v", r.Devices)
		}
		var texts []string
		for _, a := range r.Advice {
			texts = append(texts, a.Key+" "+a.Text)
		}
		all := strings.Join(texts, "\n")
		for _, want := range []string{"Start the thread flusher", "Make the event loop", "Take the lock", "Open it there, in each worker", "or for appending"} {
			if strings.Count(all, want) != 1 {
				t.Errorf("advice %q is not given once:\n%s", want, all)
			}
		}
		child, _ := os.ReadFile(filepath.Join(f.dir, "child"))
		if pid, err := strconv.Atoi(string(child)); err != nil || unix.Kill(pid, 0) == nil {
			t.Errorf("what the floor started, %q, is left", child)
		}
	})
}

// A pool of threads of a library is known by its library, and by that it is not there
// without it; what follows is measured so.
func TestAPoolOfThreads(t *testing.T) {
	onPythons(t, func(t *testing.T, python string) {
		r, _ := examine(t, python, "[floor]\npreload = [\"pool\"]\nenv = { KEPT = \"1\" }\n[worker.web]\nentry = \"pool:serve\"", map[string]string{
			"libopenblas.so": strings.Repeat("x", 4096),
			"pool.py": `import _thread, mmap, os, time
with open("DIR/libopenblas.so", "rb") as file:
    library = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
    _thread.start_new_thread(time.sleep, (1000,))
def serve(): os.environ["KEPT"]
`,
		})
		if r.Usable || !strings.Contains(r.Cause, "OPENBLAS_NUM_THREADS=1") {
			t.Errorf("usable %t, cause %q", r.Usable, r.Cause)
		}
		if len(r.Advice) == 0 || r.Advice[0].Key != "floor.env" || r.Advice[0].Value != `{ OPENBLAS_NUM_THREADS = "1" }` || advised(r, "floor.after_fork").Key != "" {
			t.Errorf("advice: %+v", r.Advice)
		}
		if r.Memory == nil || r.Memory.Rows[0].Birth == 0 || r.Entries[0].Error != "" {
			t.Errorf("measured: %+v, %+v", r.Memory, r.Entries)
		}
	})
}

// A floor that cannot be loaded has told how far it came.
func TestAFloorThatDoesNotLoad(t *testing.T) {
	onPythons(t, func(t *testing.T, python string) {
		for name, c := range map[string]struct{ keys, module, cause, stuck, printed string }{
			"breaks":  {"", "import early\nraise ValueError('no')", "importing bad: ValueError: no", "", "bad.py\", line 2, in <module>"},
			"crashes": {"", "import early, os\nos.kill(os.getpid(), 11)", "the floor: importing bad (1 of 1): signal SIGSEGV", "", ""},
			"hangs": {
				"timeout_start_sec = 3", "import early, time\ndef wait():\n    time.sleep(1000)\nwait()",
				"not loaded within 3s: importing bad (1 of 1)", "bad.py\", line 3 in wait", "",
			},
			"exits":  {"", "import early, os\nos._exit(7)", "the floor: importing bad (1 of 1): exit status 7", "", ""},
			"python": {"", "", "", "", ""},
		} {
			path := python
			if name == "python" {
				path, c.cause = "/nonexistent/python3", "exec /nonexistent/python3: no such file or directory"
			}
			r, f := examine(t, path, c.keys+"\n[floor]\npreload = [\"bad\"]\n[worker.web]\nentry = \"bad:serve\"", map[string]string{
				"bad.py": c.module, "early.py": "import os\nos.umask(0o007)",
			})
			if r.Usable || r.Cause != c.cause || len(r.Advice) > 0 {
				t.Errorf("%s: usable %t, cause %q, advice %+v", name, r.Usable, r.Cause, r.Advice)
			}
			if name == "python" {
				continue
			}
			bad := named(r.Modules, "bad")
			if bad == nil || !bad.Failed || named(bad.Modules, "early") == nil || bad.Modules[0].Failed || changed(r, "umask").During != "bad > early" {
				t.Errorf("%s: modules %+v, changes %+v", name, r.Modules, r.Changes)
			}
			if first := append(r.Stuck, "")[0]; (first == "") != (c.stuck == "") || !strings.HasSuffix(first, c.stuck) {
				t.Errorf("%s: it was at %q", name, r.Stuck)
			}
			if text := f.printed.String(); !strings.Contains(text, c.printed) || strings.Contains(text, "<prefork") || strings.Contains(text, "importlib") {
				t.Errorf("%s: it printed %q", name, text)
			}
		}
	})
}

// An entry that cannot be imported is told with its traceback, and so is one that starts
// threads when it is; a worker of another user is that.
func TestEntriesThatHurt(t *testing.T) {
	onPythons(t, func(t *testing.T, python string) {
		r, f := examine(t, python, `
[floor]
preload = ["app"]
after_fork = "hook:reopen"
[worker.wrong]
entry = "wrong:serve"
[worker.threads]
entry = "busy:serve"
count = 2
[worker.elsewhere]
entry = "app:serve"
working_directory = "/nonexistent"
`, map[string]string{
			"app.py":   "def serve(): pass",
			"hook.py":  "def reopen(): raise SystemError('is not to be called')",
			"wrong.py": "import app\napp.missing\n",
			"busy.py":  "import threading, time\ntext = bytes(range(256)) * (8 << 12)\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\ndef serve(): pass\n",
		})
		if !r.Usable || !strings.Contains(f.printed.String(), "wrong.py\", line 2") {
			t.Errorf("usable %t, printed %q", r.Usable, f.printed.String())
		}
		if got, want := r.Entries[0].Error, "AttributeError: module 'app' has no attribute 'missing'"; got != want {
			t.Errorf("wrong: %q, want %q", got, want)
		}
		if e := r.Entries[1]; e.Threads != 1 || !slices.Equal(e.Modules[:1], []string{"hook"}) || !slices.Contains(e.Modules, "busy") {
			t.Errorf("threads: %+v", e)
		}
		if a := advised(r, "floor.preload"); a.Saves != 0 || !strings.Contains(a.Text, "it starts 1 thread when it is imported") {
			t.Errorf("advice: %+v", a)
		}
		if got := r.Entries[2].Error; !strings.Contains(got, "working directory '/nonexistent'") {
			t.Errorf("elsewhere: %q", got)
		}
	})
}

// The floor has the user, the environment and the directory that it would have.
func TestAFloorOfAnotherUser(t *testing.T) {
	testutil.NeedRoot(t)
	const python = "/usr/bin/python3" // another user may not see others
	switch _, err := os.Stat(python); {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%v, and with CI=true nothing is skipped", err)
	default:
		t.Skip(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, _ := examine(t, python, "[floor]\npreload = [\"app\"]\nuser = \"nobody\"\nenv = { GIVEN = \"x\" }\n[worker.web]\nentry = \"app:serve\"", map[string]string{
		"app.py": "import os\nraise ValueError(f\"{os.getuid()} {os.environ['GIVEN']} {os.environ['PREFORK_FLEET']} {os.environ.get('NOTIFY_SOCKET')}\")",
	})
	if want := "importing app: ValueError: 65534 x fleet None"; r.Cause != want || r.User != "nobody" {
		t.Errorf("cause %q, want %q; user %q", r.Cause, want, r.User)
	}
}

// What hangs in a worker costs the check one timeout, and is told.
func TestWorkersThatHang(t *testing.T) {
	python := pythons(t)[0]
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	testutil.WantNoLeak(t)
	const file = "timeout_start_sec = 3\n[floor]\npreload = [\"app\"]\n%[worker.web]\nentry = \"app:serve\""
	r, _ := examine(t, python, strings.ReplaceAll(file, "%", "warm = \"app:warm\"\n"), map[string]string{
		"app.py": "import os, time\nfloor = os.getpid()\ndef warm():\n    if os.getpid() != floor: time.sleep(1000)\ndef serve(): pass",
	})
	if row := r.Memory.Rows[0]; !r.Usable || row.Collected == 0 || row.Worked != 0 || row.WorkError != "call app:warm: not done within timeout_start_sec" {
		t.Errorf("warm: %+v", row)
	}
	r, _ = examine(t, python, strings.ReplaceAll(file, "%", ""), map[string]string{
		"app.py": "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(1000))\ndef serve(): pass",
	})
	own := slices.IndexFunc(r.ForkHooks, func(h ForkHook) bool { return h.Module == "app" }) // the interpreter may have some before
	if e := r.Entries[0]; !r.Usable || e.Error != "fork: a hook of the fork has not returned within timeout_start_sec" || own < 0 || r.ForkHooks[own].ChildSeconds != 0 {
		t.Errorf("hook: %+v, %+v", e, r.ForkHooks)
	}
}
