// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"errors"
	"fmt"

	"github.com/decnet/prefork/supervisor/bridge"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/revisions"
	"github.com/decnet/prefork/supervisor/rights"
)

// propose gives what somebody wants the fleet to be a revision, and the state machine to
// decide on. Who only asks what would be done gets no more than that.
func (m *master) propose(p bridge.Proposal) []fleet.Event {
	ev := p.Propose
	switch r, err := m.revise(&p); {
	case err != nil:
		m.bridge.Reject(ev.ID, err)
		return nil
	case p.Draft != nil:
		cfg := r.Config(m.sockets.Passed())
		ev.Config, ev.Revision = &cfg, r.ID
	default:
		ev.Revision = r.ID
	}
	return []fleet.Event{ev}
}

func (m *master) revise(p *bridge.Proposal) (*revisions.Revision, error) {
	if p.Draft == nil {
		return m.revisions.Again(), nil
	}
	if err := m.enable(p.Draft.File, p.Dry); err != nil {
		return nil, &control.BadFile{Text: err.Error()}
	}
	if p.Dry {
		return m.revisions.Look(p.Draft, m.slots.Born), nil
	}
	return m.revisions.Add(p.Draft, m.slots.Born)
}

// enable makes sure of the control groups that a file needs, or, dry, of whether they can
// be had.
func (m *master) enable(file *fleetfile.File, dry bool) error {
	tree := m.procs.Groups().Tree()
	if tree == nil {
		return rights.WithoutGroups(file, errors.New("see the journal of its start"))
	}
	controllers, err := rights.Controllers(file, tree.Available())
	if err != nil || dry {
		return err
	}
	return tree.Enable(controllers...)
}

// commit makes a revision the one that is in effect. Who waits for a connection waits at
// its sockets from now on.
func (m *master) commit(act fleet.Commit) (events []fleet.Event) {
	r := m.revisions.Of(act.Revision)
	m.slots.Commit(r, act.Slots)
	waiting := m.sockets.Watching()
	for _, worker := range waiting {
		m.sockets.Unwatch(worker)
	}
	m.revisions.Commit(r.ID)
	for _, worker := range waiting {
		events = append(events, m.watchSockets(worker)...)
	}
	return events
}

// limit sets the limits of a slot that goes on with its process.
func (m *master) limit(act fleet.LimitSlot) {
	p, s := m.procs.Of(act.Proc), m.slots.Of(act.Slot)
	if p == nil || p.Group == nil {
		return
	}
	if err := p.Group.Limit(rights.Limits(s.Config)); err != nil {
		m.log.Error(fmt.Sprintf("%s: %v: its process goes on with the limits that it had", s.Name, err))
	}
}
