// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"fmt"
	"slices"
	"strings"
)

// Want is what somebody needs of a worker: so many slots that are ready.
type Want struct {
	Worker string
	Min    uint32
}

// Wants are what the fleet as a whole is ready by: of each worker that it needs so many
// slots, and at least so many. There are none where it needs no worker.
func Wants(f *Status, least uint32) (wants []Want) {
	for i := range f.Workers {
		if w := &f.Workers[i]; w.Needs > 0 {
			wants = append(wants, Want{w.Name, max(w.Needs, least)})
		}
	}
	return wants
}

// Readiness says whether a fleet is ready, and in one line how it is: what is missing comes
// first. A fleet is ready if it is active and has what is wanted of each worker; where
// nothing is wanted, if one of its slots serves, or it has none.
func Readiness(f *Status, wants []Want) (ready bool, why string) {
	if f.ActiveState != "active" {
		return false, f.StatusText
	}
	var missing []string
	serves, slots := uint32(0), uint32(0)
	for i := range f.Workers {
		serves += f.Workers[i].Ready
		slots += f.Workers[i].Slots
	}
	for _, want := range wants {
		if w := workerOf(f, want.Worker); w.Ready < want.Min {
			missing = append(missing, fmt.Sprintf("%s: %d of %d ready, needs %d", w.Name, w.Ready, w.Slots, want.Min))
		}
	}
	switch {
	case len(missing) > 0:
		return false, strings.Join(append(missing, f.StatusText), "; ")
	case len(wants) == 0 && serves == 0 && slots > 0:
		return false, f.StatusText
	}
	return true, f.StatusText
}

// workerOf is that of a name; one that is not there has no slots.
func workerOf(f *Status, name string) *WorkerStatus {
	i := slices.IndexFunc(f.Workers, func(w WorkerStatus) bool { return w.Name == name })
	if i < 0 {
		return &WorkerStatus{Name: name}
	}
	return &f.Workers[i]
}

// NoWorker says that a fleet has no worker of that name, and which it has; "" if it has
// one.
func NoWorker(f *Status, name string) string {
	var names []string
	for i := range f.Workers {
		if f.Workers[i].Name == name {
			return ""
		}
		names = append(names, f.Workers[i].Name)
	}
	if len(names) == 0 {
		return fmt.Sprintf("there is no worker %.64q; the fleet has none", name)
	}
	return fmt.Sprintf("there is no worker %.64q; the fleet has %s", name, strings.Join(names, ", "))
}
