// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A worker's own memory stays small, and a collection must not unshare the
// floor. The test compares floors with and without gc.freeze(), side by side.
func TestMemoryOfWorkerStaysSmall(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		frozen, thawed := collect(t, python, true), collect(t, python, false)
		t.Logf("private kB: at the gate %d, in its entry %d, after gc.collect() %d; without gc.freeze() %d",
			frozen.gate, frozen.idle, frozen.collected, thawed.collected)
		if 2*frozen.collected > thawed.collected {
			t.Errorf("after a collection %d kB with gc.freeze(), %d without: want less than half", frozen.collected, thawed.collected)
		}
	})
}

// Objects that are immortal are not written to, whatever a worker does with them, and a
// worker ends as any other.
func TestAnImmortalFloor(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		if !knowsImmortality(t, python) {
			cause, _ := loadBroken(t, python, func(f *LoadRequest) { f.Python.Immortal = true })
			if !strings.HasPrefix(cause, "floor.immortal: it needs CPython 3.12 or later, not 3.11") || !strings.HasSuffix(cause, "; remove the key") {
				t.Errorf("cause %q", cause)
			}
			return
		}
		mortal, immortal := collect(t, python, true), collect(t, python, true, func(f *LoadRequest) { f.Python.Immortal = true })
		t.Logf("private kB: at the gate %d, in its entry %d, after gc.collect() %d; not immortal %+v", immortal.gate, immortal.idle, immortal.collected, mortal)
		if immortal.idle >= mortal.idle {
			t.Errorf("in its entry a worker has %d kB, without immortality %d", immortal.idle, mortal.idle)
		}
		// Each worker uses all of it, makes and drops references, and ends.
		z := load(t, python, func(f *LoadRequest) {
			module(t, "app", `
import ctypes, gc, json, logging, sys, weakref
def keep():
    kept = []
    for _ in range(100):
        kept.append(("a", "constant"))
    return kept[0]
class Thing:
    def __init__(self, n): self.n, self.more = n, {"n": [n] * 3}
things = [Thing(n) for n in range(1000)]
named = {f"name {n}": thing for n, thing in enumerate(things)}
refs = [weakref.ref(thing) for thing in things]
def use():
    for _ in range(50):
        keep()
        copy = [thing for thing in things if thing.more["n"][0] == thing.n]
        assert [ref() for ref in refs] == copy == list(named.values())
        assert json.loads(json.dumps([thing.more for thing in copy]))[7] == {"n": [7, 7, 7]}
        logging.getLogger("use").debug("%s", copy)
    gc.collect()
def entry():
    head = (ctypes.c_char * 8).from_address(id(keep()))
    count = head.raw
    use()
    assert head.raw == count, f"a constant is counted: {count!r}, then {head.raw!r}"
    before = sys.getrefcount(things[3])
    things[3].n = "changed"
    new = Thing(5)
    gone = weakref.ref(new)
    del new
    assert gone() is None, "what a worker makes is freed"
    named.clear(), things.clear(), refs.clear()
    gc.collect()
    print("done", before)
`)(f)
			f.Warm, f.Python.Immortal = "app:use", true
		})
		var counts []string
		for range 5 {
			r := z.fork().run("entry=app:entry")
			if r.status != 0 || !strings.HasPrefix(r.output, "done ") {
				t.Errorf("a worker ends with %d: %s", r.status, r.output)
			}
			counts = append(counts, r.output)
		}
		if slices.ContainsFunc(counts, func(c string) bool { return c != counts[0] }) {
			t.Errorf("counts that are written: %q", counts)
		}
	})
}

// Functions whose code was moved are what they were, and a worker that runs them has less
// memory of its own.
func TestCodeThatRunsIsSideBySide(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		answer := map[bool]string{}
		own := map[bool]int{}
		for _, repack := range []bool{false, true} {
			z := load(t, python, func(f *LoadRequest) {
				module(t, "app", `
import asyncio, contextlib, functools, inspect, pickle, sys, traceback

# One function in twenty runs, and counts in its code for ever: what it adds is of two kinds.
names = [f"function_{n}" for n in range(8000)]
exec("\n".join(f"def {name}(a, b='{name}'):\n" + "    a = a + b if a else b + a\n" * 4 + "    return a" for name in names))
some = [globals()[name] for name in names[::20]]

class Base:
    def name(self): return "base"
class Thing(Base):
    def name(self): return super().name() + " thing"
    @property
    def size(self): return sum(n for n in range(4))
    @staticmethod
    def twice(n): return (lambda m: 2 * m)(n)
    @functools.lru_cache
    def kept(self, n): return [c for c in str(n)]
def counter(start):
    n = start
    def count():
        nonlocal n
        n += 1
        return n
    return count
count = counter(5)
def numbers():
    yield from (n * n for n in range(3))
running = numbers()
next(running)
async def wait(*, n=1):
    await asyncio.sleep(0)
    return n
@contextlib.contextmanager
def opened():
    try: yield "open"
    finally: pass
def fail():
    raise ValueError("failed")
def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
code_before = fail.__code__
def use():
    for function in some:
        for _ in range(20): function("", "x"); function("a")
    thing = Thing()
    with opened() as how: pass
    try: fail()
    except ValueError: where = traceback.format_exc().splitlines()[-2].strip()
    return [thing.name(), thing.size, Thing.twice(4), thing.kept(12), how, where, fibonacci(10), list(numbers()), counter(1)(),
            inspect.getsource(fail), pickle.loads(pickle.dumps(fail)) is fail, fail.__code__ == code_before,
            asyncio.run(wait(n=3)), wait.__kwdefaults__, str(inspect.signature(counter))]
def warm(): use()
def entry():
    before = own()
    result = use()
    print(own() - before)
    print(result, next(running), count())
def own():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))
own()
`)(f)
				f.Warm, f.Python.Repack = "app:warm", repack
			})
			r := z.fork().run("entry=app:entry")
			first, rest, _ := strings.Cut(r.output, "\n")
			if _, err := fmt.Sscan(first, new(int)); err != nil || r.status != 0 {
				t.Fatalf("a worker ends with %d: %s", r.status, r.output)
			}
			own[repack], _ = strconv.Atoi(first)
			answer[repack] = rest
		}
		t.Logf("private kB that the code of a worker costs: %v", own)
		if answer[true] != answer[false] {
			t.Errorf("with its code moved\n%s, else\n%s", answer[true], answer[false])
		}
		if 4*own[true] > 3*own[false] {
			t.Errorf("a worker writes to %d kB where its code lies side by side, else %d", own[true], own[false])
		}
	})
}

// Who imports ctypes imports threading, with hooks for each fork, from 3.14 on.
func TestNoModuleIsThereTwice(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, module(t, "app", `
import gc, threading
def entry():
    gc.unfreeze()
    print(sum(getattr(found, "__name__", "") == "threading" for found in gc.get_objects() if type(found) is type(gc)))
`))
		if r := z.fork().run("entry=app:entry"); r.output != "1\n" {
			t.Errorf("modules of the name threading: %s", r.output)
		}
	})
}

func knowsImmortality(t *testing.T, python string) bool {
	t.Helper()
	out, err := exec.Command(python, "-c", "import sys; print(sys.version_info >= (3, 12))").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out) == "True\n"
}

type memory struct{ gate, idle, collected int }

func collect(t *testing.T, python string, freeze bool, change ...func(*LoadRequest)) memory {
	t.Helper()
	z := load(t, python, func(f *LoadRequest) {
		f.Python.GCFreeze = freeze
		f.Preload = []string{"probe", "asyncio", "http.server", "email.message", "decimal", "xml.dom.minidom", "argparse"}
		for _, c := range change {
			c(f)
		}
	})
	w := z.fork()
	m := memory{gate: private(t, w.pid)}
	r := w.run("entry=probe:memory")
	if _, err := fmt.Sscan(r.output, &m.idle, &m.collected); err != nil {
		t.Fatalf("%v: %q", err, r.output)
	}
	return m
}
