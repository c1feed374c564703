// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"strings"

	"github.com/decnet/prefork/cmd/internal/display"
	"github.com/decnet/prefork/supervisor/control"
)

// A task is a row below its slot, in the form of a slot without a process. The tasks of a
// slot are folded while all of them are well, unless Enter has said otherwise.

// tasksOf are the tasks of a slot as rows.
func tasksOf(s *control.SlotStatus) (rows []control.SlotStatus) {
	for _, t := range s.Tasks {
		rows = append(rows, control.SlotStatus{
			Name: s.Name + "/" + t.Name, Worker: s.Worker, State: t.State, StateTimestamp: t.StateTimestamp, Reason: t.Reason,
			Result: t.Result, Failures: t.Failures, NRestarts: t.NRestarts, NextStartTimestamp: t.NextStartTimestamp, StatusText: t.StatusText,
		})
	}
	return rows
}

// withTasks are slots, each with all of its tasks behind it.
func withTasks(slots []control.SlotStatus) (all []control.SlotStatus) {
	for i := range slots {
		all = append(append(all, slots[i]), tasksOf(&slots[i])...)
	}
	return all
}

func isTask(s *control.SlotStatus) bool { return strings.Contains(s.Name, "/") }

// slotOf is the name of the slot that a row is, or belongs to.
func slotOf(name string) string {
	slot, _, _ := strings.Cut(name, "/")
	return slot
}

// unfolded are rows with the tasks of those whose tasks are shown.
func (m *model) unfolded(slots []control.SlotStatus) (rows []control.SlotStatus) {
	for i := range slots {
		s := &slots[i]
		show := len(display.TasksInTrouble(s)) > 0
		if said, ok := m.folds[s.Name]; ok {
			show = !said
		}
		rows = append(rows, *s)
		if show {
			rows = append(rows, tasksOf(s)...)
		}
	}
	return rows
}

// fold folds the tasks of the selected slot, or unfolds them.
func (m *model) fold() {
	rows := m.rows()
	if len(rows) == 0 {
		return
	}
	name := slotOf(rows[m.cursor(rows)].Name)
	shown := false
	for i := range rows {
		shown = shown || isTask(&rows[i]) && slotOf(rows[i].Name) == name
	}
	if m.folds == nil {
		m.folds = map[string]bool{}
	}
	m.folds[name], m.selected = shown, name
}

// shownName is the name of a row: a task stands below its slot.
func shownName(s *control.SlotStatus) string {
	if _, task, ok := strings.Cut(s.Name, "/"); ok {
		return " /" + task
	}
	return s.Name
}
