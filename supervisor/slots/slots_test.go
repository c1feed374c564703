// SPDX-License-Identifier: AGPL-3.0-or-later

package slots

import (
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/slots/slotstest"
)

// A slot is what the state machine means by its id, with what the file says of its worker.
func TestTheSlotsOfAFleet(t *testing.T) {
	file := &fleetfile.File{Workers: []fleetfile.Worker{
		{Name: "a", Count: 2, NotifyAccess: fleetfile.NotifyNone}, {Name: "none"}, {Name: "b", Count: 1, NotifyAccess: fleetfile.NotifyNone},
	}}
	infos := slotstest.Infos(file)
	table := New(file, infos, nil, nil, nil, poll.Source{}, poll.Source{})
	if len(table.All()) != 3 {
		t.Fatalf("%d slots, want 3", len(table.All()))
	}
	for i, want := range []struct {
		name   string
		worker *fleetfile.Worker
	}{{"a.0", &file.Workers[0]}, {"a.1", &file.Workers[0]}, {"b.0", &file.Workers[2]}} {
		s := table.All()[i]
		if s.Name != want.name || s.Config != want.worker || table.Worker(s.Worker) != want.worker || s.ID != infos[i].ID ||
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
