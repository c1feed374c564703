// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A floor of TestThousandForks: what it is and what each worker does with it.
type forkedFloor struct {
	name    string
	source  string
	keys    string // more of its table
	threads bool   // it has some
	only    string // the one suite that has its packages
	except  string // the one suite that cannot have it
}

const librariesSource = `
import django, numpy, sqlalchemy
from django.conf import settings
settings.configure(USE_TZ=True, TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}])
django.setup()
from django.template import engines
template = engines["django"].from_string("{{ sum }}")
engine = sqlalchemy.create_engine("sqlite://")
numpy.random.random()

def use():
    with engine.connect() as connection:
        three = connection.execute(sqlalchemy.text("select 1 + 2")).scalar()
    assert template.render({"sum": int(numpy.ones(three).sum())}) == "3"
`

var forkedFloors = []forkedFloor{
	{name: "libraries", source: librariesSource},
	{name: "immortal", source: librariesSource, except: "bookworm", keys: `
immortal = true
warm = "floor:use"
repack = true
`},
	{name: "asyncio", source: `
import asyncio, concurrent.futures, logging, multiprocessing, queue, random, threading
logging.basicConfig()
lock = threading.RLock()
local = threading.local()
random.random()

async def wait():
    return await asyncio.get_running_loop().run_in_executor(None, threading.get_ident)

def use():
    with lock, concurrent.futures.ThreadPoolExecutor() as pool:
        assert pool.submit(asyncio.run, wait()).result() != threading.get_ident()
    thread = threading.Thread(target=logging.getLogger("use").debug, args=("used",))
    thread.start()
    thread.join()
`},
	{name: "gevent", source: `
import gevent, gevent.event, gevent.pool, gevent.threadpool

def use():
    assert gevent.pool.Pool(2).map(abs, [-1, -2]) == [1, 2]
    gevent.sleep(0.001)
    assert gevent.get_hub().threadpool.apply(abs, (-3,)) == 3
`},
	{name: "hub", keys: `
fds = "allow"
after_fork = "gevent:reinit"
`, source: `
import gevent
gevent.sleep(0.001)  # makes the hub, with descriptors of its own

def use():
    assert gevent.spawn(gevent.get_hub().resolver.gethostbyname, "127.0.0.1").get() == "127.0.0.1"
    gevent.sleep(0.001)
`},
	{name: "patched", source: `
from gevent import monkey
monkey.patch_all()
import queue, socket, subprocess, threading, time, urllib.request

def use():
    time.sleep(0.001)
    done = queue.Queue()
    thread = threading.Thread(target=done.put, args=(socket.gethostbyname("127.0.0.1"),))
    thread.start()
    thread.join()
    assert done.get() == "127.0.0.1"
`},
	{name: "grpc", source: `
import grpc
from concurrent import futures

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

def use():
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        # Debian's version takes an errno of something else for connect's, now and then.
        echo = channel.unary_unary("/a/b")
        assert echo(b"echo", timeout=60, wait_for_ready=True) == b"echo"
    server.stop(None).wait()
`},
	{name: "thread", threads: true, source: `
import os, queue, threading
work, done = queue.SimpleQueue(), queue.SimpleQueue()

def start():
    threading.Thread(target=lambda: [done.put(work.get()) for _ in iter(int, 1)], daemon=True).start()

os.register_at_fork(after_in_child=start)
start()

def use():
    work.put("used")
    assert done.get() == "used"
`},
	{name: "telemetry", threads: true, only: "forky", source: `
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(BatchSpanProcessor(exporter))

def use():
    with trace.get_tracer("forks").start_as_current_span("use"):
        pass
    assert trace.get_tracer_provider().force_flush()
    assert [span.name for span in exporter.get_finished_spans()] == ["use"]
`},
}

const (
	forkedSlots = 20
	forkedLives = 50 // workers of each slot
)

// TestThousandForks has each floor fork a thousand workers. All that a fork by a
// program without a supervisor does is done, once for each worker or, in the floor, once
// for workers that are forked together; nothing is left of any of them;
// and no two draw the same by chance.
func TestThousandForks(t *testing.T) {
	library := hooksLibrary(t)
	onEachSuite(t, func(t *testing.T, m machine) {
		m.WriteFile(t, "/opt/app/hooks.so", library)
		for _, name := range []string{"forks.py", "look.py"} {
			content, err := os.ReadFile("testdata/forks/" + name)
			if err != nil {
				t.Fatal(err)
			}
			m.WriteFile(t, "/opt/app/"+name, string(content))
		}
		for _, f := range forkedFloors {
			if (f.only == "" || f.only == m.Suite) && f.except != m.Suite {
				t.Run(f.name, func(t *testing.T) { m.forkThousand(t, f) })
			}
		}
	})
}

// hooksLibrary compiles hooks.c, and returns it.
func hooksLibrary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hooks.so")
	out, err := exec.Command("cc", "-shared", "-fPIC", "-Wall", "-o", path, "testdata/forks/hooks.c").CombinedOutput()
	switch {
	case err != nil && os.Getenv("CI") != "true" && len(out) == 0:
		t.Skip("counting C's hooks needs a C compiler: ", err)
	case err != nil:
		t.Fatalf("cc: %v\n%s", err, out)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// look is what look.py says.
type look struct {
	Forks, Spares, Ready, Generation int

	Hooks    map[string]int
	Born     int // processes in which a hook of the child has run
	Draws    int
	Repeated []string       // sources of chance that gave two workers the same
	Left     map[string]int // what there is beside the draws: processes, descriptors, files, groups
}

func (m machine) forkThousand(t *testing.T, f forkedFloor) {
	threads := "refuse"
	if f.threads {
		threads = "allow"
	}
	unit := "prefork@" + f.name + ".service"
	m.WriteFile(t, "/opt/"+f.name+"/floor.py", f.source)
	m.WriteFile(t, "/etc/prefork/"+f.name+".toml", fmt.Sprintf(`
[floor]
path = ["/opt/app", "/opt/%s"]
preload = ["forks", "floor"]
threads = %q
env = { OPENBLAS_NUM_THREADS = "1" }
%s
[worker.forked]
entry = "forks:serve"
args = [%d]
count = %d
restart = "always"
restart_sec = 0
restart_max_delay_sec = 0
`, f.name, threads, f.keys, forkedLives, forkedSlots))

	m.Run(t, "systemctl", "start", unit)
	first := m.atRest(t, f, 1, nil)
	m.Run(t, "prefork", "kill", "--signal", "USR1", f.name, "forked")
	for lives := 2; lives <= forkedLives; lives++ {
		m.WaitFor(t, fmt.Sprintf("worker %d of %s", lives*forkedSlots, f.name), func() bool {
			return strings.Count(m.ReadFile(t, "/var/lib/prefork/"+f.name+"/draws"), "\n") >= lives*forkedSlots
		})
	}
	last := m.atRest(t, f, forkedLives, first.Left)

	// Workers that are forked together have one middle process, and one run of Python's
	// hooks in the floor.
	middles := last.Hooks["before"]
	want := map[string]int{"before": middles, "parent": middles, "child": last.Forks}
	for _, hook := range []string{"prepare", "parent", "child"} {
		// A floor with threads has C's hooks run in both its forks.
		want["C's "+hook] = last.Forks
		if f.threads {
			want["C's "+hook] += middles
		}
	}
	if !maps.Equal(last.Hooks, want) || last.Born != last.Forks || middles < last.Forks/16 || middles > last.Forks {
		t.Errorf("%s: after %d forks hooks ran %v, in %d workers", m.Suite, last.Forks, last.Hooks, last.Born)
	}
	if last.Generation != 1 || len(last.Repeated) > 0 {
		t.Errorf("%s: floor %d; drawn twice: %v", m.Suite, last.Generation, last.Repeated)
	}
	m.Run(t, "systemctl", "stop", unit)
	if u := m.Service(t, unit); u.Result != "success" || u.NRestarts != 0 {
		t.Errorf("%s: after stop: %+v", m.Suite, u)
	}
	// Workers have nothing to say, nor has the interpreter.
	m.Run(t, "journalctl", "--sync")
	m.WriteFile(t, "/run/left.sh", `
ls -d /run/prefork/$1 2>/dev/null
ls /dev/shm
pgrep --full --list-full "^prefork: .*[[]$1[]]"
journalctl --quiet _SYSTEMD_UNIT=prefork@$1.service --priority=warning
journalctl --quiet _SYSTEMD_UNIT=prefork@$1.service | grep -v ' prefork\[[0-9]*\]: '
`)
	if left, _ := m.Try("sh", "/run/left.sh", f.name); left != "" {
		t.Errorf("%s: there is\n%s", m.Suite, left)
	}
}

// atRest returns a look at the fleet once each slot's last worker waits and what
// there is beside the workers is what there was before; the first time, what the
// look before saw: a process that has just ended leaves a descriptor for a moment.
func (m machine) atRest(t *testing.T, f forkedFloor, lives int, before map[string]int) look {
	t.Helper()
	var now look
	defer func() {
		if t.Failed() {
			for what := range before {
				if now.Left[what] -= before[what]; now.Left[what] == 0 {
					delete(now.Left, what)
				}
			}
			t.Logf("%s: %+v", m.Suite, now)
		}
	}()
	m.WaitFor(t, "rest of "+f.name, func() bool {
		seen := now.Left
		now = look{}
		out := m.Run(t, "python3", "/opt/app/look.py", f.name)
		if err := json.Unmarshal([]byte(out), &now); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return now.Draws == lives*forkedSlots && now.Ready == forkedSlots && now.Spares == 1 &&
			now.Left["prefork: spare ["+f.name+"] gen 1"] == 1 && // it waits at its gate
			now.Hooks["child"] >= now.Forks && now.Hooks["parent"] == now.Hooks["before"] &&
			(maps.Equal(now.Left, before) || before == nil && maps.Equal(now.Left, seen))
	})
	return now
}
