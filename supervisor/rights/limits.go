// SPDX-License-Identifier: AGPL-3.0-or-later

package rights

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

// Limits are the limits of each slot of a worker.
func Limits(w *fleetfile.Worker) cgroup.Limits {
	return cgroup.Limits{
		MemoryHigh: w.MemoryHigh, MemoryMax: w.MemoryMax, TasksMax: w.TasksMax,
		CPUWeight: w.CPUWeight, IOWeight: w.IOWeight, CPUQuota: w.CPUQuota,
	}
}

// Controllers are those that the file asks for and those that tell what a slot used, as
// far as they are available. Limits that nobody could keep are a [*Forbidden].
func Controllers(file *fleetfile.File, available []string) ([]string, error) {
	wanted := []string{"memory", "pids"}
	for i := range file.Workers {
		w := &file.Workers[i]
		for _, name := range Limits(w).Controllers() {
			if !slices.Contains(available, name) {
				return nil, &Forbidden{Text: fmt.Sprintf("%s: worker.%s: %s need the %s controller, which this unit does not have (it has: %s): "+
					"add it to Delegate= of the unit, or remove the keys", file.Path, w.Name,
					strings.Join(w.Limited(), ", "), name, cmp.Or(strings.Join(available, " "), "none"))}
			}
			if !slices.Contains(wanted, name) {
				wanted = append(wanted, name)
			}
		}
	}
	return slices.DeleteFunc(wanted, func(name string) bool { return !slices.Contains(available, name) }), nil
}

// WithoutGroups refuses limits where there are no control groups.
func WithoutGroups(file *fleetfile.File, why error) error {
	for i := range file.Workers {
		w := &file.Workers[i]
		if keys := w.Limited(); len(keys) > 0 {
			return &Forbidden{Text: fmt.Sprintf("%s: worker.%s.%s: needs control groups, and there are none (%v): "+
				"run the fleet as prefork@%s.service, which has Delegate=, or remove the key",
				file.Path, w.Name, keys[0], why, file.Name)}
		}
	}
	return nil
}

// AmbientOfForked are those of all workers that are forked from the floor.
func AmbientOfForked(file *fleetfile.File) (numbers []int) {
	for i := range file.Workers {
		if w := &file.Workers[i]; w.Forked() {
			numbers = append(numbers, Ambient(w)...)
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers)
}

// Ambient are the numbers of a worker's capabilities.
func Ambient(w *fleetfile.Worker) []int {
	var numbers []int
	for _, name := range w.AmbientCapabilities {
		if n, ok := fleetfile.CapabilityNumber(name); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}
