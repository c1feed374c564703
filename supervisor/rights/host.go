// SPDX-License-Identifier: AGPL-3.0-or-later

package rights

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

// Host is what this process gives to a fleet file: the processors that it may use now, its
// runtime directory as systemd has it (/run, or $XDG_RUNTIME_DIR of who is not root), and
// what its environment says of counts.
func Host() fleetfile.Host {
	h := fleetfile.Host{Affinity: affinity(), Quota: cgroup.Processors(), Counts: map[string]string{}}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); os.Geteuid() != 0 && filepath.IsAbs(dir) {
		h.Runtime = filepath.Clean(dir)
	}
	for _, variable := range os.Environ() {
		if name, value, _ := strings.Cut(variable, "="); strings.HasPrefix(name, fleetfile.CountPrefix) {
			h.Counts[name] = value
		}
	}
	return h
}

// affinity is how many processors this process may run on now (sched_getaffinity(2)).
func affinity() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &set); err != nil {
		return runtime.NumCPU() // more than the set has room for
	}
	return set.Count()
}
