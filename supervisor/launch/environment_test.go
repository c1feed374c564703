// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/envfile"
	"github.com/decnet/prefork/supervisor/internal/errands/errandstest"
)

// A program gets what its files hold at each start, and what means nothing is said.
func TestEnvironmentFilesAreReadAtEachStart(t *testing.T) {
	path, out := filepath.Join(t.TempDir(), "env"), filepath.Join(t.TempDir(), "out")
	h := newHouse(t, &fleetfile.File{Workers: []fleetfile.Worker{{
		Name: "web", Count: 1, Exec: []string{"/bin/sh", "-c", `echo "$WHO" >` + out},
		EnvironmentFiles: []envfile.File{{Path: path}, {Path: "/nonexistent", Optional: true}},
	}}})
	s := h.slots.All()[0]
	for i, who := range []string{"me", "you"} {
		if err := os.WriteFile(path, []byte("WHO="+who+"\nnonsense\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		id := fleet.Proc(i + 1)
		h.StartShim(id, s)
		h.Assign(id, s, 1)
		until[fleet.Exited](h)
		if text, err := os.ReadFile(out); err != nil || string(text) != who+"\n" {
			t.Errorf("it wrote %q, %v, want %s", text, err, who)
		}
	}
	h.said.Want(t, "web.0: environment_file: "+path+":2: not NAME=VALUE")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	h.StartShim(3, s)
	h.Assign(3, s, 1)
	if failed := until[fleet.SpawnFailed](h); failed.Proc != 3 || !strings.Contains(failed.Why, path) {
		t.Errorf("without the file: got %+v", failed)
	}
	h.Stopping()
	if err := h.procs.Of(3).Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until[fleet.Exited](h)
}

// A file system that does not answer holds up the worker that needs it, and not the loop
// or another worker. However often that worker is started meanwhile, one read is under way
// and none is queued; who has ended gets nothing, and is told of; who waits at last gets
// what was read after it came.
func TestAFileThatIsNotRead(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	h := newHouse(t, &fleetfile.File{Workers: []fleetfile.Worker{
		{Name: "stuck", Count: 1, Exec: []string{"/bin/sh", "-c", `echo "$WHO" >` + out}, EnvironmentFiles: []envfile.File{{Path: filepath.Join(dir, "a"), Optional: true}}},
		{Name: "well", Count: 1, Exec: []string{"/bin/true"}, EnvironmentFiles: []envfile.File{{Path: filepath.Join(dir, "b"), Optional: true}}},
	}})
	stuck, well := h.slots.All()[0], h.slots.All()[1]
	answer := make(chan struct{})
	thread := h.errands.Owner()
	h.reader.threads[stuck.Config] = thread // a read that is under way
	thread.Do(func() {
		<-answer
		h.reader.mu.Lock()
		defer h.reader.mu.Unlock()
		h.reader.done = append(h.reader.done, environment{worker: stuck.Config, env: []string{"WHO=stale"}})
	})
	h.StartShim(1, stuck)
	h.StartShim(2, well)
	errandstest.Quick(t, "the loop", func() { h.Assign(1, stuck, 1) })
	h.Assign(2, well, 1)
	if exited := until[fleet.Exited](h); exited.Proc != 2 {
		t.Errorf("got %+v", exited)
	}
	h.Stopping() // no shim is prepared
	last := fleet.Proc(1)
	for next := fleet.Proc(20); next <= 50; next += 10 {
		if err := h.procs.Of(last).Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until[fleet.Exited](h)
		last = next
		h.StartShim(next, stuck)
		h.Assign(next, stuck, 1)
		if len(h.reader.waiting) != 1 || h.reader.threads[stuck.Config] != thread {
			t.Fatalf("%d wait, and another read is under way: %t", len(h.reader.waiting), h.reader.threads[stuck.Config] != thread)
		}
	}
	h.said.Want(t, "stuck.0: ended before environment_file could be read: does the file system answer? "+filepath.Join(dir, "a"))
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("WHO=fresh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	close(answer)
	if exited := until[fleet.Exited](h); exited.Proc != 50 || exited.Exit.Code != 0 {
		t.Errorf("got %+v", exited)
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "fresh\n" {
		t.Errorf("it got %q, %v: it was read before it was asked for", text, err)
	}
	if len(h.reader.waiting) != 0 || len(h.reader.threads) != 0 {
		t.Errorf("afterwards %d wait, %d reads are under way", len(h.reader.waiting), len(h.reader.threads))
	}
}

func TestWithoutEffect(t *testing.T) {
	floor := []string{"PYTHONHASHSEED=1"}
	if got := withoutEffect([]string{"PYTHONHASHSEED=1", "A=b"}, floor); got != nil {
		t.Errorf("what the floor has, too: got %q", got)
	}
	if got := withoutEffect([]string{"PYTHONHASHSEED=2", "A=b"}, floor); len(got) != 1 || !strings.HasPrefix(got[0], "PYTHONHASHSEED has no effect") {
		t.Errorf("got %q", got)
	}
}
