// SPDX-License-Identifier: AGPL-3.0-or-later

package slots

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/slots/slotstest"
)

// A slot is what the state machine means by its id, with what the file says of its worker.
func TestTheSlotsOfAFleet(t *testing.T) {
	file := &fleetfile.File{Workers: []fleetfile.Worker{
		{Name: "a", Count: 2, NotifyAccess: fleetfile.NotifyNone}, {Name: "none"}, {Name: "b", Count: 1, NotifyAccess: fleetfile.NotifyNone},
	}}
	infos := slotstest.Infos(file)
	table := New(slotstest.Revision(file), infos, nil, nil, nil, poll.Source{}, poll.Source{})
	if len(table.All()) != 3 {
		t.Fatalf("%d slots, want 3", len(table.All()))
	}
	for i, want := range []struct {
		name   string
		worker *fleetfile.Worker
	}{{"a.0", &file.Workers[0]}, {"a.1", &file.Workers[0]}, {"b.0", &file.Workers[2]}} {
		s := table.All()[i]
		if s.Name != want.name || s.Config != want.worker || s.ID != infos[i].ID ||
			table.Of(s.ID) != s || table.Named(s.Name) != s {
			t.Errorf("slot %d: got %+v, want %s", i, s, want.name)
		}
	}
	if s := table.Of(99); s != nil || table.Named("none.0") != nil {
		t.Errorf("of nobody: got %+v", s)
	}
	p := &procs.Process{Invocation: "x"}
	s := table.All()[2]
	s.Assign(p)
	if table.of(p) != s || s.Invocation() != "x" || table.of(&procs.Process{}) != nil {
		t.Errorf("the slot of a process: got %+v", table.of(p))
	}
	if events := table.Drain(p); len(events) != 0 || table.of(p) != nil || s.Invocation() != "x" {
		t.Errorf("when it has ended: got %+v, %+v", events, s)
	}
}

// A slot that is to take the place of another has a notify socket of its own, and what
// that one has stored; with the last of its name nothing is left.
func TestSlotsComeAndGo(t *testing.T) {
	m := newWorld(t, notifyMain())
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	r, w := pipe[0], pipe[1]
	defer linux.CloseFD(&r)
	sendTo(t, m.fd, "FDSTORE=1\nFDNAME=kept\nFDPOLL=0", w)
	m.readAll(t)
	info := fleet.SlotInfo{ID: 9, Name: "web.0", Worker: m.s.Worker, WorkerName: "web"}
	m.Open(m.s.Revision, info)
	if err := m.Of(9).Broken(); err != nil {
		t.Fatal(err)
	}
	next := m.Of(9)
	if next.NotifySocket() == m.s.NotifySocket() || next.NotifySocket() == "" {
		t.Errorf("it is heard at %q", next.NotifySocket())
	}
	before, after := m.s, next
	m.Remove(before.ID)
	if m.Of(before.ID) != nil || m.Named("web.0") != after || len(m.All()) != 1 {
		t.Errorf("left: %+v", m.All())
	}
	if _, err := os.Stat(before.NotifySocket()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its notify socket: %v", err)
	}
	if names, _ := after.Stored(); !slices.Equal(names, []string{"kept"}) {
		t.Errorf("stored: %q", names)
	}
	m.Remove(after.ID)
	linux.CloseFD(&w)
	testutil.Eventually(t, "what was stored is closed", func() bool {
		n, err := unix.Read(r, make([]byte, 1))
		return n == 0 && err == nil
	})
	m.Remove(99)
}
