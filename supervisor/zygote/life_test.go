// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A worker whose parent is not the master would never be waited for.
func TestWorkerOfAnotherParentExits(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, module(t, "reaper", "import ctypes\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0) # PR_SET_CHILD_SUBREAPER"))
		gate := z.request()
		defer unix.Close(gate)
		if text := read(t, gate); text != "" {
			t.Errorf("a worker that the zygote adopted says %q", text)
		}
	})
}

// Before a process has its orders it has no name and no sockets, also for hooks of
// fork(2). Who asks too early may ask again.
func TestSpareHasNoNameYet(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, module(t, "hooks", `
import os, prefork
seen = []
os.register_at_fork(after_in_child=lambda: seen.append((prefork.fleet, prefork.worker, prefork.slot, prefork.index, prefork.generation, prefork.sockets())))
def entry():
    print(set(map(str, seen)), *prefork.sockets())
`))
		if r := z.fork().run("entry=hooks:entry listen=http", listeners(t, 1)...); r.output != "{'(None, None, None, None, None, {})'} http\n" {
			t.Errorf("got %q", r.output)
		}
	})
}

func TestSpareSaysWhatItIs(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		w := z.fork()
		title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", w.pid))
		if got := strings.TrimRight(string(title), "\x00"); err != nil || got != "prefork: spare [test] gen 2" {
			t.Errorf("title %q, %v", got, err)
		}
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", w.pid))
		if string(comm) != "prefork-spare\n" || err != nil {
			t.Errorf("comm %q, %v", comm, err)
		}
		w.abandon()
		if text := z.output(); strings.Count(text, "\n") != 1 {
			t.Errorf("a worker that has no orders is not silent: %q", text)
		}
	})
}

// Orders that do not fit into one message come in a memfd.
func TestLongOrdersComeInMemfd(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		long := strings.Repeat("é", 100_000)
		w := z.fork()
		f := parseFacts(t, w.finish(w.orderFields([]string{"entry=probe:facts", "env=LONG=" + long, "listen=a"}, listeners(t, 1)...)))
		if f.Env["LONG"] != long || len(f.FDs) != 5 {
			t.Errorf("LONG has %d bytes, descriptors %v", len(f.Env["LONG"]), f.FDs)
		}
	})
}

// Workers outlive their zygote: nobody notices that it was killed.
func TestWorkersOutliveZygote(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		w := z.fork()
		if err := z.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		z.wait()
		if f := parseFacts(t, w.run("entry=probe:facts")); f.PPID != os.Getpid() {
			t.Errorf("parent %d, want %d", f.PPID, os.Getpid())
		}
	})
}

// A zygote that is killed at any moment leaves a worker that says hello, or
// none: never one that hangs.
func TestZygoteKilledWhileForking(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		for range 5 {
			z := load(t, python, func(f *LoadRequest) { f.Preload = []string{"json"} })
			gate := z.request()
			if err := z.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			z.wait()
			if text := read(t, gate); text != "" && !strings.HasPrefix(text, "hello\x00") {
				t.Errorf("the gate has %q", text)
			}
			_ = unix.Close(gate) // a worker that waits there exits now
			reapOrphans()
		}
	})
}

// reapOrphans waits for every child of this process. No other may be alive.
func reapOrphans() {
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
