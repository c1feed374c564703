// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/errands"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/manager"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/output/outputtest"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/revisions"
	"github.com/decnet/prefork/supervisor/slots"
	"github.com/decnet/prefork/supervisor/slots/slotstest"
	"github.com/decnet/prefork/supervisor/sockets"
)

// house is a launcher with all that it works with, for one file, without control groups.
type house struct {
	*Launcher
	t      *testing.T
	slots  *slots.Table
	poller *poll.Poller
	said   *outputtest.Lines
	dir    string        // where processes may write
	come   []fleet.Event // that nobody has asked for yet
}

func newHouse(t *testing.T, file *fleetfile.File) *house {
	t.Helper()
	log, said := outputtest.NewLog()
	poller := polltest.New(t)
	wake := poller.Wake()
	groups, rubbish := cgroup.NewPool(nil, false), errands.New(wake)
	outputs := output.New(sdnotify.Environment{}, log, poller.Source(pipes), wake)
	t.Cleanup(outputs.Close)
	listeners, err := sockets.Open(file, nil, false, log, poller.Source(connections), poller.Source(connections))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(listeners.Close)
	told := revisions.New(file, listeners)
	l, err := New(Config{
		Revisions: told, Log: log, Outputs: outputs, Groups: groups, Errands: rubbish,
		Procs: procs.New(groups, log, poller.Source(deaths), poller.Source(emptied)),
		Gates: poller.Source(gates), Commands: poller.Source(commands),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	h := &house{Launcher: l, t: t, poller: poller, said: said, dir: t.TempDir()}
	h.slots = slots.New(told.Current(), slotstest.Infos(file), log, manager.New(sdnotify.Environment{}, log), rubbish, poller.Source(notices), poller.Source(hangups))
	if err := h.slots.Listen(h.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.slots.Close)
	return h
}

const (
	pipes poll.Kind = iota + 100
	connections
	notices
	hangups
)

// until plays the loop's part until an event of that type has come, and takes that one out
// of what has come.
func until[E fleet.Event](h *house) (want E) {
	h.t.Helper()
	testutil.Eventually(h.t, reflect.TypeFor[E]().Name(), func() bool {
		for i, ev := range h.come {
			if ev, ok := ev.(E); ok {
				want, h.come = ev, slices.Delete(h.come, i, i+1)
				return true
			}
		}
		h.turn()
		return false
	})
	return want
}

// turn waits for something to happen, and keeps what comes of it.
func (h *house) turn() {
	now := poll.Now()
	for _, ready := range h.poller.Wait(now.Add(testutil.Patience), now) {
		id := fleet.Proc(ready.ID)
		switch ready.Kind {
		case 0:
			h.come = append(h.come, h.Resume()...)
		case gates:
			h.come = append(h.come, h.ReadGate(id)...)
		case commands:
			h.come = append(h.come, h.ReadFloor(id)...)
		case deaths:
			p := h.procs.Dead(id)
			if p == nil {
				continue
			}
			if exit, ok := h.procs.Exit(p); ok {
				h.come = append(append(h.come, h.Drain(p)...), h.procs.Settle(p, exit, nil))
			}
		}
	}
}

// A program is born: a shim at its gate becomes it, with its environment. The next one
// finds a shim that was prepared.
func TestAProgramIsBorn(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	h := newHouse(t, &fleetfile.File{Name: "test", Workers: []fleetfile.Worker{{
		Name: "web", Count: 1, Exec: []string{"/bin/sh", "-c", `echo "$PREFORK_SLOT $WHO $0" >` + out + `; exit 7`},
		Environment: map[string]string{"WHO": "me"},
	}}})
	s := h.slots.All()[0]
	for id := fleet.Proc(1); id <= 2; id++ {
		born := h.StartShim(id, s)
		p := h.procs.Of(id)
		if len(born) != 1 || born[0] != (fleet.Introduced{Proc: id, PID: p.PID}) || p.Name != "web.0" {
			t.Fatalf("got %+v of %+v", born, p)
		}
		if events := h.Assign(id, s, 1); len(events) != 0 || s.Invocation() == "" || s.Invocation() != p.Invocation {
			t.Fatalf("got %+v", events)
		}
		if exited := until[fleet.Exited](h); exited.Proc != id || exited.Exit.Code != 7 {
			t.Errorf("got %+v", exited)
		}
		if text, err := os.ReadFile(out); err != nil || string(text) != "web.0 me /bin/sh\n" {
			t.Errorf("it wrote %q, %v", text, err)
		}
		h.Flush()
		if h.prepared == 0 || h.procs.Of(h.prepared) == nil {
			t.Error("no shim is prepared for the next")
		}
	}
	h.Stopping()
	if until[fleet.Exited](h).Proc != preparedIDs+2 || h.prepared != 0 {
		t.Error("the one that was prepared last does not end with the fleet")
	}
	h.Flush()
	if h.prepared != 0 {
		t.Error("another is prepared while the fleet stops")
	}
	if events := h.Assign(99, s, 1); events != nil {
		t.Errorf("of nobody: got %+v", events)
	}
}

// What ended a prepared shim would end the next: there is none before a slot asks.
func TestAPreparedShimThatEnds(t *testing.T) {
	h := newHouse(t, &fleetfile.File{Workers: []fleetfile.Worker{{Name: "web", Count: 1, Exec: []string{"/bin/true"}}}})
	h.wantsPrepared = true
	h.Flush()
	if err := h.procs.Of(h.prepared).Signal(9); err != nil {
		t.Fatal(err)
	}
	until[fleet.Exited](h)
	h.Flush()
	if h.prepared != 0 {
		t.Error("it has been replaced")
	}
	h.StartShim(1, h.slots.All()[0])
	h.Flush()
	if h.prepared == 0 {
		t.Error("none is prepared any more")
	}
	h.Stopping()
	h.Assign(1, h.slots.All()[0], 1)
	until[fleet.Exited](h)
}

// A program that cannot be run says why, and a shim that cannot be what it is told does
// not become anything else.
func TestAProgramThatIsMissing(t *testing.T) {
	h := newHouse(t, &fleetfile.File{Workers: []fleetfile.Worker{{Name: "web", Count: 1, Exec: []string{"/nonexistent"}}}})
	h.StartShim(1, h.slots.All()[0])
	h.Assign(1, h.slots.All()[0], 1)
	if refused := until[fleet.CannotBecome](h); refused.Proc != 1 || !strings.Contains(refused.Text, "/nonexistent") {
		t.Errorf("got %+v", refused)
	}
	h.Stopping()
	if exited := until[fleet.Exited](h); exited.Exit.Code != 203 {
		t.Errorf("got %+v", exited)
	}
}

// A floor is loaded, and a worker is forked from it; both end when they are told.
func TestAWorkerIsBorn(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	module := "import os\ndef main():\n    open(os.environ['OUT'], 'w').write(os.environ['PREFORK_SLOT'])\n    raise SystemExit(9)\n"
	if err := os.WriteFile(filepath.Join(dir, "born.py"), []byte(module), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	h := newHouse(t, &fleetfile.File{
		Name: "test", Floor: &fleetfile.Floor{Python: python, Path: []string{dir}, Preload: []string{"born"}},
		Workers: []fleetfile.Worker{{Name: "web", Count: 1, Entry: "born:main", Environment: map[string]string{"OUT": out}}},
	})
	if events := h.LoadFloor(fleet.LoadFloor{Proc: 1, Generation: 3, Revision: 1}); len(events) != 0 {
		t.Fatalf("got %+v", events)
	}
	until[fleet.FloorLoaded](h)
	if events := h.Fork(fleet.Fork{Proc: 2, Floor: 1}); len(events) != 0 {
		t.Fatalf("got %+v", events)
	}
	born, s := until[fleet.Introduced](h), h.slots.All()[0]
	if p := h.procs.Of(2); born.Proc != 2 || p.Generation != 3 || p.Birth.UID != os.Geteuid() {
		t.Errorf("got %+v of %+v", born, p)
	}
	h.Assign(2, s, 1)
	if exited := until[fleet.Exited](h); exited.Proc != 2 || exited.Exit.Code != 9 {
		t.Errorf("got %+v", exited)
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "web.0" {
		t.Errorf("it wrote %q, %v", text, err)
	}
	h.StopFloor(1)
	if exited := until[fleet.Exited](h); exited.Proc != 1 || exited.Exit.Code != 0 {
		t.Errorf("the floor: got %+v", exited)
	}
	events := h.Fork(fleet.Fork{Proc: 3, Floor: 1})
	if !slices.Equal(events, []fleet.Event{fleet.SpawnFailed{Proc: 3, Why: "the floor has ended"}}) {
		t.Errorf("of a floor that has ended: got %+v", events)
	}
}

// A request that is given up is nobody's: who comes for it finds its gate closed.
func TestAbandon(t *testing.T) {
	m := newWorld(t)
	m.requests[1] = []*procs.Process{m.p}
	m.Abandon(7)
	m.Abandon(7)
	if len(m.requests) != 0 || m.procs.Of(7) != nil || m.p.Birth.Gate != -1 {
		t.Errorf("got %+v", m.p)
	}
	if events := m.ReadRequests(); events != nil {
		t.Errorf("got %+v", events)
	}
}
