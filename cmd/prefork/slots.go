// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/decnet/prefork/supervisor/control"
)

// slotsNamed are the slots that WORKER or WORKER.N means: those of the fleet that
// runs, else those of its file.
func slotsNamed(fleet, name string) ([]string, error) {
	if f, err := lookAt(fleet); err == nil {
		return choose(fleet, name, slotNames(f))
	}
	file, err := load(fleet)
	if err != nil {
		return nil, err
	}
	var all []string
	for i := range file.Workers {
		for n := range file.Workers[i].Count {
			all = append(all, fmt.Sprintf("%s.%d", file.Workers[i].Name, n))
		}
	}
	return choose(fleet, name, all)
}

func slotNames(f *control.Status) (all []string) {
	for i := range f.Slots {
		all = append(all, f.Slots[i].Name)
	}
	return all
}

// choose returns those of all slots that WORKER or WORKER.N means.
func choose(fleet, name string, all []string) ([]string, error) {
	slots := slices.DeleteFunc(slices.Clone(all), func(s string) bool {
		worker, _, _ := strings.Cut(s, ".")
		return s != name && worker != name
	})
	if len(slots) == 0 {
		return nil, failed("fleet %s has no worker or slot %q; it has %s", fleet, name, listed(all))
	}
	return slots, nil
}

// taskNamed finds what WORKER.N/TASK means in a fleet that runs.
func taskNamed(fleet, name string, f *control.Status) (*control.SlotStatus, *control.TaskStatus, error) {
	slot, task, _ := strings.Cut(name, "/")
	i := slices.IndexFunc(f.Slots, func(s control.SlotStatus) bool { return s.Name == slot })
	if i < 0 {
		return nil, nil, failed("fleet %s has no slot %q; it has %s", fleet, slot, listed(slotNames(f)))
	}
	s := &f.Slots[i]
	var names []string
	for j := range s.Tasks {
		if s.Tasks[j].Name == task {
			return s, &s.Tasks[j], nil
		}
		names = append(names, s.Tasks[j].Name)
	}
	return nil, nil, failed("%s has no task %q; it has %s", slot, task, listed(names))
}

// isTask reports whether a name is that of a task.
func isTask(name string) bool { return strings.Contains(name, "/") }

// listed joins some names.
func listed(names []string) string {
	const most = 8
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + ", …"
	default:
		return strings.Join(names, ", ")
	}
}
