// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/rights"
)

// openGroups takes the master's own group, if it may. Limits that nobody could
// keep are an error.
func openGroups(file *fleetfile.File, managed bool, log *output.Log) (*cgroup.Pool, error) {
	tree, err := cgroup.Open()
	if err != nil {
		return cgroup.NewPool(nil, managed), withoutGroups(file, managed, log, err)
	}
	pool := cgroup.NewPool(tree, managed)
	for _, name := range pool.Retired() {
		log.Warn(fmt.Sprintf("cgroup %s of an earlier master is removed with what is in it", name))
	}
	controllers, err := rights.Controllers(file, tree.Available())
	if err == nil {
		err = tree.Enable(controllers...)
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// withoutGroups is for a master that has no right to make control groups.
func withoutGroups(file *fleetfile.File, managed bool, log *output.Log, why error) error {
	if err := rights.WithoutGroups(file, why); err != nil {
		return err
	}
	text := fmt.Sprintf("no control groups (%v): what a worker leaves behind is found by its session and parent instead", why)
	if managed {
		log.Notice(text)
	} else {
		log.Debug(text)
	}
	return nil
}
