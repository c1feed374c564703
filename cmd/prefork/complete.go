// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// completeFleet completes the name of a fleet, or else the path of a file.
func completeFleet(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return fleetNames(), cobra.ShellCompDirectiveDefault
}

// completeSlots completes the name of a fleet, then those of its workers and
// slots, if it runs.
func completeSlots(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return completeFleet(cmd, args, begun)
	}
	f, err := lookAt(args[0])
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

func fleetNames() (names []string) {
	found, _ := fleetfile.Find(fleetfile.Dirs) // what cannot be read has no names
	for _, f := range found {
		if f.Err == nil && !f.Masked {
			names = append(names, f.Name)
		}
	}
	return names
}
