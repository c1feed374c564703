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
	"github.com/decnet/prefork/supervisor/internal/testutil"
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
		h.Assign(id, s)
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
	h.Assign(3, s)
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
// or another worker. Who has ended meanwhile gets nothing.
func TestAFileThatIsNotRead(t *testing.T) {
	dir := t.TempDir()
	h := newHouse(t, &fleetfile.File{Workers: []fleetfile.Worker{
		{Name: "stuck", Count: 1, Exec: []string{"/bin/true"}, EnvironmentFiles: []envfile.File{{Path: filepath.Join(dir, "a"), Optional: true}}},
		{Name: "well", Count: 1, Exec: []string{"/bin/true"}, EnvironmentFiles: []envfile.File{{Path: filepath.Join(dir, "b"), Optional: true}}},
	}})
	stuck, well := h.slots.All()[0], h.slots.All()[1]
	answer := make(chan struct{})
	h.reader.threads[stuck.Worker] = h.errands.Owner()
	h.reader.threads[stuck.Worker].Do(func() { <-answer })
	h.StartShim(1, stuck)
	h.StartShim(2, well)
	errandstest.Quick(t, "the loop", func() { h.Assign(1, stuck) })
	h.Assign(2, well)
	if exited := until[fleet.Exited](h); exited.Proc != 2 {
		t.Errorf("got %+v", exited)
	}
	if err := h.procs.Of(1).Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until[fleet.Exited](h)
	close(answer)
	testutil.Eventually(t, "the file is read", h.reader.threads[stuck.Worker].Idle)
	if events := h.Resume(); len(events) != 0 || len(h.reader.waiting) != 0 || len(h.reader.done) != 0 {
		t.Errorf("got %+v", events)
	}
	h.Stopping()
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
