// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/quantity"
)

// fleetAnd wants a FLEET and so many of something else.
func fleetAnd(what string, least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if n := len(args) - 1; n < least || n > most {
			return exit.Misused("%s takes a FLEET and a %s: prefork %s", cmd.Name(), what, cmd.Use)
		}
		return nil
	}
}

func oneFleet(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return exit.Misused("%s takes one FLEET: a name, or the path of a fleet file", cmd.Name())
	}
	return nil
}

func atMostOneFleet(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return exit.Misused("%s takes one FLEET at most: prefork %s", cmd.Name(), cmd.Use)
	}
	return nil
}

func nothing(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return exit.Misused("%s takes no arguments", cmd.Name())
	}
	return nil
}

func span(flag, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := quantity.ParseTimeSpan(text)
	if err != nil || d <= 0 {
		return 0, exit.Misused(`%s %q: must be a time span above 0, such as "5s" or "1min 30s"`, flag, text)
	}
	return d, nil
}

// slotsNamed are the slots that WORKER or WORKER.N means: those of the fleet that
// runs, else those of its file.
func slotsNamed(fleet, name string) ([]string, error) {
	if f, err := reach.Look(fleet); err == nil {
		return choose(fleet, name, slotNames(f))
	}
	file, err := reach.File(fleet)
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
		return nil, exit.Failed("fleet %s has no worker or slot %q; it has %s", fleet, name, listed(all))
	}
	return slots, nil
}

// taskNamed finds what WORKER.N/TASK means in a fleet that runs.
func taskNamed(fleet, name string, f *control.Status) (*control.SlotStatus, *control.TaskStatus, error) {
	slot, task, _ := strings.Cut(name, "/")
	i := slices.IndexFunc(f.Slots, func(s control.SlotStatus) bool { return s.Name == slot })
	if i < 0 {
		return nil, nil, exit.Failed("fleet %s has no slot %q; it has %s", fleet, slot, listed(slotNames(f)))
	}
	s := &f.Slots[i]
	var names []string
	for j := range s.Tasks {
		if s.Tasks[j].Name == task {
			return s, &s.Tasks[j], nil
		}
		names = append(names, s.Tasks[j].Name)
	}
	return nil, nil, exit.Failed("%s has no task %q; it has %s", slot, task, listed(names))
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

// completeFleet completes the name of a fleet, or else the path of a file.
func completeFleet(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return reach.Arguments(), cobra.ShellCompDirectiveDefault
}

// completeSlots completes the name of a fleet, then those of its workers and
// slots, if it runs.
func completeSlots(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return completeFleet(cmd, args, begun)
	}
	f, err := reach.Look(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for i := range f.Slots {
		s := &f.Slots[i]
		names = append(names, s.Name+"\t"+s.State)
		if !slices.Contains(names, s.Worker) {
			names = append(names, s.Worker)
		}
		for j := range s.Tasks {
			if takesTasks[cmd.Name()] {
				names = append(names, s.Name+"/"+s.Tasks[j].Name+"\t"+s.Tasks[j].State)
			}
		}
	}
	return slices.DeleteFunc(names, func(name string) bool {
		name, _, _ = strings.Cut(name, "\t")
		return slices.Contains(args[1:], name)
	}), cobra.ShellCompDirectiveNoFileComp
}

// takesTasks are the commands that are for tasks, too.
var takesTasks = map[string]bool{"start": true, "stop": true, "restart": true, "why": true}
