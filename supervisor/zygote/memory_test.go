// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"fmt"
	"os/exec"
	"slices"
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
			cause, _ := loadBroken(t, python, func(f *LoadRequest) { f.Immortal = true })
			if !strings.HasPrefix(cause, "floor.immortal: it needs CPython 3.12 or later, not 3.11") || !strings.HasSuffix(cause, "; remove the key") {
				t.Errorf("cause %q", cause)
			}
			return
		}
		mortal, immortal := collect(t, python, true), collect(t, python, true, func(f *LoadRequest) { f.Immortal = true })
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
			f.Warm, f.Immortal = "app:use", true
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
		f.GCFreeze = freeze
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
