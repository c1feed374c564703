// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

func TestBootLeavesRoomForTitles(t *testing.T) {
	if len(boot) < 200 {
		t.Errorf("boot has %d bytes, want at least 200", len(boot))
	}
}

func TestOldPythonIsRefusedWithAReason(t *testing.T) {
	var olds []string
	for _, version := range []string{"2.7.18", "3.6.15", "3.7.16", "3.8.18", "3.9.18", "3.10.13"} {
		olds = append(olds, pyenv(version)...)
	}
	t.Logf("old interpreters: %q", olds)
	for _, python := range olds {
		z := start(t, python)
		m := z.read()
		if m.Kind != Broken || !strings.HasPrefix(m.Text, "floor.python is Python ") ||
			!strings.HasSuffix(m.Text, "; prefork needs 3.11 or later: set floor.python") {
			t.Errorf("%s: got %+v\n%s", python, m, z.output())
		}
		if code := z.wait(); code != 1 {
			t.Errorf("%s: exit status %d, want 1", python, code)
		}
	}
}

func TestProgressNamesEachModule(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := start(t, python)
		z.send(floor(t, func(f *LoadRequest) { f.Preload = []string{"json", "probe"}; f.Setup = "probe:load" }).Encode())
		for _, want := range []Message{
			{Kind: Progress, Text: "importing json (1 of 2)"},
			{Kind: Progress, Text: "importing probe (2 of 2)"},
			{Kind: Progress, Text: "calling probe:load"},
			{Kind: Loaded, Protocol: Protocol, Forks: 16},
		} {
			if got := z.read(); got != want {
				t.Errorf("got %+v, want %+v\n%s", got, want, z.output())
			}
		}
		title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", z.cmd.Process.Pid))
		if got, want := strings.TrimRight(string(title), "\x00"), "prefork: floor [test] gen 2"; err != nil || got != want {
			t.Errorf("title %q, want %q", got, want)
		}
	})
}

// What a worker imports by itself is of the release that its floor has loaded, wherever the
// link leads by then.
func TestAFloorStaysWithItsRelease(t *testing.T) {
	dir := t.TempDir()
	for _, release := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(dir, release), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"app": "def entry():\n    import late\n    print(late.release)", "late": "release = " + release} {
			if err := os.WriteFile(filepath.Join(dir, release, name+".py"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	forEachPython(t, func(t *testing.T, python string) {
		link := filepath.Join(t.TempDir(), "current")
		if err := os.Symlink(filepath.Join(dir, "1"), link); err != nil {
			t.Fatal(err)
		}
		z := load(t, python, func(f *LoadRequest) { f.Path, f.Preload = []string{link}, []string{"app"} })
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(dir, "2"), link); err != nil {
			t.Fatal(err)
		}
		if got := z.fork().run("entry=app:entry").output; got != "1\n" {
			t.Errorf("release %q, want that of the floor", got)
		}
	})
}

func TestLongTitleIsTruncated(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		long := strings.Repeat("x", 1<<14)
		z := load(t, python, func(f *LoadRequest) { f.Title = long })
		title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", z.cmd.Process.Pid))
		got := strings.TrimRight(string(title), "\x00")
		if err != nil || len(got) < 200 || got != long[:len(got)] || len(title) != len(got)+1 {
			t.Errorf("title of %d bytes in %d: %.20q, %v", len(got), len(title), got, err)
		}
	})
}

// brokenFloors has a module for each way in which a floor cannot be used.
var brokenFloors = []struct {
	name, module string
	cause        string // how the cause begins
	also         string // what it says besides
	output       string // what stderr must have
}{
	{"missing module", "import nope", "importing bad: ModuleNotFoundError: No module named 'nope'", "", "bad.py\", line 1"},
	{"exception", "def f():\n    raise ValueError('two\\nlines')\nf()", "importing bad: ValueError: two lines", "", "line 2, in f"},
	{"syntax", "def f(:", "importing bad: SyntaxError: ", "", "SyntaxError"},
	{"sys.exit", "import sys; sys.exit(0)", "importing bad: SystemExit: 0", "", "SystemExit"},
	{"interrupt", "raise KeyboardInterrupt", "importing bad: KeyboardInterrupt", "", "KeyboardInterrupt"},
	{
		"thread", "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), name='flusher', daemon=True).start()",
		"importing bad started 1 thread: flusher (threading); ", `set floor.threads = "allow" or start them in floor.after_fork`, "",
	},
	{
		"native threads", "import _thread, time\nfor i in 1, 2: _thread.start_new_thread(time.sleep, (60,))",
		"importing bad started 2 threads: comm ", `set floor.threads = "allow"`, "",
	},
	{
		"socket", "import socket\nkept = socket.socket()", "workers would share fd ",
		"opened while importing bad; set floor.fds = \"allow\" or open it in floor.after_fork", "",
	},
	{"pipe", "import os\nos.pipe()", "workers would share fd ", "(pipe:[", ""},
	{"epoll", "import select\nkept = select.epoll()", "workers would share fd ", "(anon_inode:[eventpoll])", ""},
	{"terminal", "import os\nos.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)", "workers would share fd ", "ptmx", ""},
}

func TestBrokenFloorIsNamed(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		for _, test := range brokenFloors {
			cause, output := loadBroken(t, python, module(t, "bad", test.module))
			if !strings.HasPrefix(cause, test.cause) || !strings.Contains(cause, test.also) {
				t.Errorf("%s: cause %q, want %q and %q", test.name, cause, test.cause, test.also)
			}
			if !strings.Contains(output, test.output) || strings.Contains(output, "prefork zygote") {
				t.Errorf("%s: output %q, want %q and no frames of the zygote", test.name, output, test.output)
			}
		}
	})
}

func TestBrokenSetupIsNamed(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		cause, output := loadBroken(t, python, func(f *LoadRequest) { f.Setup = "probe:raises" })
		if want := "setup probe:raises: ValueError: from the entry"; cause != want {
			t.Errorf("cause %q, want %q", cause, want)
		}
		if !strings.Contains(output, "in raises") {
			t.Errorf("no traceback: %q", output)
		}
	})
}

// What warms a floor up is called once, when it is complete, and looked at as an import is.
func TestAFloorIsWarmedUp(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, func(f *LoadRequest) {
			module(t, "app", "calls = []\ndef setup(): calls.append('setup')\ndef warm(): calls.append('warm')\ndef entry(): print(calls)")(f)
			f.Setup, f.Warm = "app:setup", "app:warm"
		})
		for range 2 {
			if got := z.fork().run("entry=app:entry").output; got != "['setup', 'warm']\n" {
				t.Errorf("it was called so: %q", got)
			}
		}
		if cause, _ := loadBroken(t, python, func(f *LoadRequest) { f.Warm = "probe:raises" }); cause != "warm probe:raises: ValueError: from the entry" {
			t.Errorf("cause %q", cause)
		}
		cause, _ := loadBroken(t, python, func(f *LoadRequest) {
			module(t, "app", "import threading, time\ndef warm(): threading.Thread(target=time.sleep, args=(60,), name='pool', daemon=True).start()")(f)
			f.Warm = "app:warm"
		})
		if !strings.HasPrefix(cause, "warm app:warm started 1 thread: pool (threading)") {
			t.Errorf("cause %q", cause)
		}
	})
}

// An application of WSGI or ASGI is warmed up by one line; one that fails is a broken floor.
func TestApplicationsAreWarmedUp(t *testing.T) {
	const app = `
import prefork
asked = []
def wsgi(environ, start_response):
    asked.append(environ["PATH_INFO"] + "?" + environ["QUERY_STRING"])
    environ["wsgi.input"].read()
    start_response("500 Oops" if environ["PATH_INFO"] == "/bad" else "200 OK", [("Content-Type", "text/plain")])
    return [b"x"]
async def asgi(scope, receive, send):
    assert (await receive())["body"] == b"" and scope["type"] == "http"
    asked.append(scope["path"] + "?" + scope["query_string"].decode())
    await send({"type": "http.response.start", "status": 503 if scope["path"] == "/bad" else 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})
def warm():
    prefork.warm_wsgi(wsgi, ["/", "/a?b=c"], 3)
    prefork.warm_asgi(asgi, ["/", "/d?e=f"], 2)
def bad_wsgi(): prefork.warm_wsgi(wsgi, ["/bad"])
def bad_asgi(): prefork.warm_asgi(asgi, ["/bad"])
def entry(): print(asked)
`
	forEachPython(t, func(t *testing.T, python string) {
		floor := func(warm string) func(*LoadRequest) {
			return func(f *LoadRequest) {
				module(t, "app", app)(f)
				f.Warm = "app:" + warm
			}
		}
		const want = "['/?', '/?', '/?', '/a?b=c', '/a?b=c', '/a?b=c', '/?', '/?', '/d?e=f', '/d?e=f']\n"
		if got := load(t, python, floor("warm")).fork().run("entry=app:entry").output; got != want {
			t.Errorf("asked for %s, want %s", got, want)
		}
		for name, want := range map[string]string{
			"bad_wsgi": "warm app:bad_wsgi: RuntimeError: GET /bad: the answer is 500", "bad_asgi": "warm app:bad_asgi: RuntimeError: GET /bad: the answer is 503",
		} {
			if cause, _ := loadBroken(t, python, floor(name)); cause != want {
				t.Errorf("cause %q, want %q", cause, want)
			}
		}
	})
}

// A floor may keep files, directories and null, and a thread that has ended.
func TestHarmlessFloorLoads(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		load(t, python, module(t, "good", `
import os, tempfile, threading, socket
kept = [open(__file__), os.open("/", os.O_RDONLY), os.open("/dev/null", os.O_RDWR), os.open("/dev/urandom", os.O_RDONLY),
        os.memfd_create("x"), tempfile.TemporaryFile()]
socket.socket().close()
for i in range(20):
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
`))
	})
}

func TestAllowedThreadsAndSockets(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		change := module(t, "busy", `
import socket, threading, time, warnings
kept = socket.socket()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
def entry():
    import os
    print(os.path.basename(os.readlink("/proc/self/fd/%d" % kept.fileno()))[:6])
`)
		z := load(t, python, func(f *LoadRequest) { change(f); f.AllowThreads, f.AllowFDs = true, true },
			environment("PYTHONWARNINGS=error"))
		r := z.fork().run("entry=busy:entry")
		if r.status != 0 || r.output != "socket\n" {
			t.Errorf("status %#x, output %q", r.status, r.output)
		}
		if text := z.output(); text != "" {
			t.Errorf("the zygote said %q", text)
		}
	})
}

func environment(variables ...string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, variables...) }
}

// A thread that starts after the floor was loaded makes it refuse to fork.
func TestLateThreadRefusesFork(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, module(t, "late", `
import sys, threading, time
class Stream:
    closed = False
    def write(self, text): pass
    def flush(self):
        # The zygote flushes before it forks; the second time is too late.
        if self.count == 1:
            threading.Thread(target=time.sleep, args=(60,), name="late", daemon=True).start()
        self.count += 1
    count = 0
sys.stdout = Stream()
`))
		gate := z.request() // flushes for the second time, after the first look
		defer unix.Close(gate)
		m := z.read()
		if m.Kind != Refused || m.ID != 1 || m.Errno != unix.EBUSY || m.Text != "the floor has 2 threads: late (threading)" {
			t.Errorf("got %+v", m)
		}
	})
}

func TestForkWithoutDescriptorIsRefused(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		z.send(EncodeFork(9))
		if m := z.read(); m.Kind != Refused || m.ID != 9 || m.Errno != unix.EBADF {
			t.Errorf("got %+v", m)
		}
		z.fork().abandon() // and it goes on
	})
}

func TestUnknownMessageBreaksZygote(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		z.send([]byte("dance\x001"))
		if m := z.read(); m.Kind != Broken {
			t.Errorf("got %+v", m)
		}
		if code := z.wait(); code != 1 {
			t.Errorf("exit status %d, want 1", code)
		}
	})
}

func TestZygoteThatIsNeverToldExits(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) { start(t, python) }) // the cleanup wants exit status 0
}

// A module that forks must not make a second zygote.
func TestForkedImportIsNoZygote(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, module(t, "forks", `
import os
pid = os.fork()
if pid:
    status = os.waitpid(pid, 0)[1]
def entry():
    print(status)
`))
		if r := z.fork().run("entry=forks:entry"); r.output != "256\n" {
			t.Errorf("the copy ended with %q, want 256 (exit status 1)", r.output)
		}
	})
}

// The floor loads whatever its number of reserved descriptors is.
func TestAnyNumberOfReservedDescriptors(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		for _, count := range []int{0, 1, 2, 3, 253} {
			z := load(t, python, nil, reserve(count))
			fds := parseFacts(t, z.fork().run("entry=probe:facts")).FDs
			log := fmt.Sprint(4 + count)
			if len(fds) != 4 || !strings.HasSuffix(fds[log], "probe.py") {
				t.Errorf("reserve %d: descriptors %v, want 0, 1, 2 and probe.py at %s", count, fds, log)
			}
		}
	})
}

// The middle process of a double fork tells why the second fork failed. With a
// limit of one process it is the first that fails.
func TestRefusedForkIsReported(t *testing.T) {
	testutil.NeedRoot(t)
	forEachPython(t, func(t *testing.T, python string) {
		for limit := 2; limit > 0; limit-- {
			z := load(t, python, module(t, "drop", fmt.Sprintf(`
import ctypes, os, resource
os.setgroups([])
os.setresgid(54321, 54321, 54321)
os.setresuid(54321, 54321, 54321)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) # PR_SET_DUMPABLE: or /proc/self is root's
resource.setrlimit(resource.RLIMIT_NPROC, (%d, %[1]d))
`, limit)))
			gate := z.request()
			want := Message{Kind: Refused, ID: 1, Errno: unix.EAGAIN, Text: "fork: Resource temporarily unavailable"}
			if m := z.read(); m != want {
				t.Errorf("limit %d: got %+v, want %+v", limit, m, want)
			}
			if text := read(t, gate); text != "" {
				t.Errorf("limit %d: the gate of a refused worker has %q", limit, text)
			}
			_ = unix.Close(gate) // it is at its end
		}
	})
}
