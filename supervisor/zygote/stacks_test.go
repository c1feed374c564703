// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// hung are entries that never end.
const hung = `
import asyncio, ctypes, faulthandler, os, signal, sys, threading, time

def in_a_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

def in_sleep():
    time.sleep(1e6)

def in_c(library):
    mutex = ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)

def in_c_with_the_lock():
    in_c(ctypes.PyDLL(None))

def in_c_without_the_lock():
    in_c(ctypes.CDLL(None))

def in_a_thread():
    threading.Thread(target=in_sleep).start()
    in_a_lock()

async def forever():
    await asyncio.get_running_loop().create_future()

async def second():
    await forever()

async def in_a_loop():
    task = asyncio.ensure_future(second())
    await task

async def in_a_callback():
    asyncio.get_running_loop().call_soon(in_sleep)
    await forever()

def in_a_loop_of_a_thread():
    threading.Thread(target=lambda: asyncio.run(in_a_loop())).start()
    in_sleep()

def has_its_own():
    signal.signal(63, lambda number, frame: print("its own handler", flush=True))
    in_sleep()

def has_its_own_stacks():
    faulthandler.register(63, sys.stdout, all_threads=False)
    in_sleep()

def dies():
    os.abort()
`

// Wherever a worker hangs, the signal has it write where that is; an event loop that
// waits says where its tasks are. Its own handler wins.
func TestHungWorkerWritesWhereItIs(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, module(t, "hung", hung))
		for entry, want := range map[string][]string{
			"in_a_lock":             {"in in_a_lock\n"},
			"in_sleep":              {"in in_sleep\n"},
			"in_c_with_the_lock":    {"in in_c\n", "in in_c_with_the_lock\n"},
			"in_c_without_the_lock": {"in in_c\n", "in in_c_without_the_lock\n"},
			"in_a_thread":           {"in in_a_lock\n", "in in_sleep\n"},
			"in_a_callback":         {"in in_sleep\n", "in run_forever\n"},
			"in_a_loop": {
				"waits for Task 'Task-2' (most recent call first):\n  File ", "in in_a_loop\n",
				"Task 'Task-2' waits for Future (most recent call first):\n  File ", "in forever\n  File ", "in second\n",
			},
			"in_a_loop_of_a_thread": {"in in_sleep\n", "waits for Future"},
			"has_its_own":           {"its own handler\n"},
			"has_its_own_stacks":    {"in has_its_own_stacks\n"},
		} {
			got := z.fork().stacks("hung:"+entry, want)
			if own := strings.HasPrefix(entry, "has_its_own"); own && strings.Contains(got, "Thread 0x") {
				t.Errorf("%s: its own handler does not win:\n%s", entry, got)
			}
			if entry == "in_a_loop" && !strings.Contains(got, "hread 0x") {
				t.Errorf("%s: no threads:\n%s", entry, got)
			}
		}
		if r := z.fork().run("entry=hung:dies"); r.status.Signal() != unix.SIGABRT || r.output != "" {
			t.Errorf("after SIGABRT: status %#x, %q: want the end of any python3", r.status, r.output)
		}
	})
}

// rests reports whether no thread of a process has run for a moment.
func rests(pid int) bool {
	before := switches(pid)
	time.Sleep(20 * time.Millisecond)
	return before != "" && switches(pid) == before
}

// switches is how often each thread of a process has been switched to and from; "" if one runs.
func switches(pid int) (all string) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || strings.Contains(string(text), "State:\tR") {
			return ""
		}
		_, counts, _ := strings.Cut(string(text), "voluntary_ctxt_switches:")
		all += counts
	}
	return all
}

// stacks has the worker run an entry, and asks it where it is until it has said all that
// is wanted: it may not yet hang.
func (w *playedWorker) stacks(entry string, want []string) (got string) {
	w.z.t.Helper()
	output := w.order("entry=" + entry)
	if end := w.read(); end != "" { // it has left its gate
		w.z.t.Fatalf("%s: %q", entry, end)
	}
	defer func() {
		_ = unix.Kill(w.pid, unix.SIGKILL)
		w.wait()
	}()
	missing := ""
	for deadline := time.Now().Add(testutil.Patience); time.Now().Before(deadline); {
		if !rests(w.pid) {
			continue // the frames of a thread that runs may be read while they change
		}
		if err := unix.Kill(w.pid, StackSignal); err != nil {
			w.z.t.Fatal(err)
		}
		text := make([]byte, 1<<16)
		if err := output.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			w.z.t.Fatal(err)
		}
		for n, err := output.Read(text); err == nil; n, err = output.Read(text) {
			got += string(text[:n])
		}
		missing = ""
		for _, part := range want {
			if !strings.Contains(got, part) {
				missing += fmt.Sprintf(" %q", part)
			}
		}
		if missing == "" {
			return got
		}
	}
	w.z.t.Errorf("%s: no%s in\n%s", entry, missing, got)
	return got
}
