// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"testing"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/manager"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/slots"
)

// The master and the state machine must mean the same slot by a number.
func TestSlotsHaveTheNamesThatTheFleetGivesThem(t *testing.T) {
	file := &fleetfile.Fleet{Workers: []fleetfile.Worker{
		{Name: "a", Count: 2, Exec: []string{"x"}}, {Name: "none", Exec: []string{"x"}}, {Name: "b", Count: 1, Exec: []string{"x"}},
	}}
	table := slots.New(file, nil, nil, nil, poll.Source{}, poll.Source{})
	m := &master{procs: procs.New(&cgroup.Pool{}, nil, poll.Source{}, poll.Source{}), manager: &manager.Manager{}}
	m.file = file
	started, name := 0, ""
	for _, act := range fleet.New(m.config(Options{File: file})).Decide(1, fleet.Tick{}) {
		switch act := act.(type) {
		case fleet.Report:
			name = act.Slot
		case fleet.StartShim:
			started++
			if s := table.Of(act.Slot); s.Name != name || s.ID != act.Slot || &file.Workers[s.Worker] != s.Config {
				t.Errorf("slot %d is %s here and %s there", act.Slot, s.Name, name)
			}
		}
	}
	if started != 3 || len(table.All()) != 3 {
		t.Errorf("%d slots and %d started, want 3", len(table.All()), started)
	}
}
