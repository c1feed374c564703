// SPDX-License-Identifier: AGPL-3.0-or-later

package examine

import (
	"slices"
	"strings"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// Imported is a callable that a fleet file names, and what has come of it in a worker.
type Imported struct {
	fleetfile.Call
	Preloaded bool   // its module is in the floor
	Count     int    // modules that each worker imports for itself
	Error     string // why it cannot be called; "": it can
}

// Import loads the floor of a file once, as its fleet does, and resolves in a worker each
// callable that the file names; it calls none but those of the floor. cause is why the floor
// cannot be used: then nothing is resolved. It blocks and runs as [Run] does, and the error,
// too, is of this side.
func Import(file *fleetfile.File, o Options) (all []Imported, cause string, err error) {
	r, end, err := begin(file, o)
	if err != nil {
		return nil, "", err
	}
	defer end()
	r.onlyImports = true
	r.Progress("loading the floor as the fleet does")
	s, broken, err := r.start(r.asFile(), false)
	if err != nil {
		return nil, "", err
	}
	defer s.close()
	if broken != "" {
		return nil, broken, nil
	}
	r.Progress("resolving the entries")
	for _, call := range r.file.Calls() {
		all = append(all, r.resolve(s, call))
	}
	return all, "", nil
}

// resolve has the first worker that would call something look for it; for what is the
// floor's any worker will do.
func (r *run) resolve(s *scratch, call fleetfile.Call) Imported {
	found := Imported{Call: call}
	var of *fleetfile.Worker
	for _, w := range r.entries() {
		if slices.Contains(w.Callables(), call.Name) {
			of = w
			break
		}
	}
	err := r.withWorker(s, of, r.loud, func(worker *spare) error {
		said, err := worker.step(r.file.TimeoutStart, "resolve", call.Name)
		if err != nil {
			return err
		}
		found.Count = number(said, 2)
		module, _, _ := strings.Cut(call.Name, ":")
		found.Preloaded = len(said) < 4 || !slices.Contains(said[3:], module)
		return nil
	})
	if err != nil {
		found.Error = err.Error()
	}
	return found
}
