// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExitStatusIsThatOfTheEntry(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, func(f *LoadRequest) { f.Entries = []string{"probe:coroutine", "absent:run", "probe:nope"} })
		for _, test := range []struct {
			orders string
			status int
			output string // what it must have; "" is no output at all
		}{
			{"entry=probe:returns", 0, ""},
			{"entry=probe:exits_with args=(None,)", 0, ""},
			{"entry=probe:exits_with args=(3,)", 3, ""},
			{"entry=probe:exits_with args=(256,)", 0, ""},
			{"entry=probe:exits_with args=(2**40+4,)", 4, ""},
			{"entry=probe:exits_with args=(True,)", 1, ""},
			{"entry=probe:exits_with args=('no%20database',)", 1, "no database\n"},
			{"entry=probe:interrupted", 0, ""},
			{"entry=probe:raises", 1, "probe.py\", line "},
			{"entry=probe:coroutine", 0, "in the loop\n"},
			{"entry=probe:makes_coroutine", 0, "in the loop\n"},
		} {
			r := z.fork().run(test.orders)
			if r.status.ExitStatus() != test.status || r.failed != "" {
				t.Errorf("%s: status %#x, gate %q, want %d and nothing", test.orders, r.status, r.failed, test.status)
			}
			if test.output == "" && r.output != "" || !strings.Contains(r.output, test.output) || strings.Contains(r.output, "prefork zygote") {
				t.Errorf("%s: output %q, want %q", test.orders, r.output, test.output)
			}
		}
	})
}

// What the worker itself left behind is finished on its way out, and nothing of
// the floor's: no exit handler and no text in a buffer.
func TestWorkerFinishesItsOwn(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		r := z.fork().run("entry=probe:leaves_things")
		lines := strings.Split(strings.TrimSpace(r.output), "\n")
		directory, rest := lines[0], strings.Join(lines[1:], "\n")
		if want := "thread done\nown handler\nown finalizer\nlogging flushed"; r.status != 0 || rest != want {
			t.Errorf("status %#x, output %q, want %q", r.status, rest, want)
		}
		if _, err := os.Stat(directory); !os.IsNotExist(err) {
			t.Errorf("the temporary directory is still there: %v", err)
		}
	})
}

// A reader of its output that goes away does not make a clean exit a failure.
func TestClosedOutputIsTolerated(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		w := load(t, python, nil).fork()
		if err := w.order("entry=probe:unfinished").Close(); err != nil {
			t.Fatal(err)
		}
		if status := w.wait(); status != 0 {
			t.Errorf("status %#x, want exit status 0", status)
		}
	})
}

// The gate is closed just before the entry is called.
func TestGateClosesWhenEntryIsCalled(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		w := load(t, python, nil).fork()
		output := w.order("entry=probe:waits")
		if text := w.read(); text != "" {
			t.Errorf("the gate has %q", text)
		}
		b := make([]byte, 100)
		if n, err := output.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "waiting") {
			t.Errorf("output %q, %v", b[:n], err)
		}
		if err := unix.Kill(w.pid, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if status := w.wait(); status.Signal() != unix.SIGTERM {
			t.Errorf("status %#x, want SIGTERM", status)
		}
	})
}
