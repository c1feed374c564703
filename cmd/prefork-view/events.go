// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/decnet/prefork/cmd/internal/display"
	"github.com/decnet/prefork/supervisor/control"
)

// event is something that happened: to a slot, a change of its state; else what.
type event struct {
	at       time.Time
	who      string
	from, to string // from is "" if it is not known
	what     string
}

// maxEvents bounds what is remembered; it is more than a screen holds.
const maxEvents = 200

func (m *model) happened(all ...event) {
	slices.SortStableFunc(all, func(a, b event) int { return a.at.Compare(b.at) })
	m.past = append(m.past, all...)
	m.past = slices.Delete(m.past, 0, max(0, len(m.past)-maxEvents))
}

// remember compares a sample with the one before. Of states that came and went
// between the two, only the last is known.
func (m *model) remember(f *control.Status, at time.Time) {
	var all []event
	before := map[string]control.SlotStatus{}
	if old := m.fleet; old != nil {
		for _, s := range withTasks(old.Slots) {
			before[s.Name] = s
		}
		all = append(all, ofTheFleet(old, f, m.lost, at)...)
	}
	slots := withTasks(f.Slots)
	for i := range slots {
		s := &slots[i]
		old := before[s.Name] // a new one has no state before
		if hasMoved(&old, s) {
			all = append(all, event{at: display.Time(s.StateTimestamp), who: s.Name, from: old.State, to: s.State, what: s.Reason})
		}
		if (old.FreezerState == frozen) != (s.FreezerState == frozen) && old.FreezerState != "" {
			all = append(all, event{at: at, who: s.Name, what: map[bool]string{true: frozen, false: "thawed"}[s.FreezerState == frozen]})
		}
	}
	m.happened(all...)
}

// hasMoved reports whether a slot has changed its state, perhaps to come back to it.
// The time of that is no sign: it moves with the clock of the machine.
func hasMoved(old, s *control.SlotStatus) bool {
	return old.State != s.State || old.MainPID != s.MainPID || old.NRestarts != s.NRestarts || old.Failures != s.Failures
}

func ofTheFleet(old, f *control.Status, lost string, at time.Time) (all []event) {
	add := func(who, format string, args ...any) {
		all = append(all, event{at: at, who: who, what: fmt.Sprintf(format, args...)})
	}
	switch {
	case old.MainPID != f.MainPID:
		add("master", "process %d in place of %d", f.MainPID, old.MainPID)
	case lost != "":
		add("master", "it answers again")
	}
	switch {
	case old.FloorPID == f.FloorPID && old.Generation == f.Generation:
	case f.FloorPID == 0:
		add("floor", "process %d has gone", old.FloorPID)
	default:
		add("floor", "process %d, generation %d", f.FloorPID, f.Generation)
	}
	return all
}
