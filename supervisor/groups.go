// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/rights"
)

// openGroups takes the master's own group, if it may. Limits that nobody could
// keep are an error.
func openGroups(file *fleetfile.Fleet, managed bool, log *output.Log) (*cgroup.Pool, error) {
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
func withoutGroups(file *fleetfile.Fleet, managed bool, log *output.Log, why error) error {
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

// ended tells what a process has used and how much of it is left in its group,
// of whose end it will be heard.
func (m *master) ended(p *process, exit fleet.Exit) (ev fleet.Exited) {
	ev = fleet.Exited{Proc: p.id, Exit: exit}
	if p.group == nil {
		return ev
	}
	used := p.group.Usage()
	ev.OOM = used.OOMKills > 0
	ev.Usage = fleet.Usage{MemoryPeak: used.MemoryPeak, CPU: used.CPU}
	if populated, err := p.group.Populated(); err == nil && !populated {
		return ev
	}
	pids, _ := p.group.Processes() // none: only zombies are left
	if ev.Left = len(pids); ev.Left == 0 {
		return ev
	}
	if err := m.poller.Source(groupEvents).AddFor(p.group.Watch(), uint64(p.id), unix.EPOLLPRI); err != nil {
		m.log.Error(fmt.Sprintf("%s: watch its cgroup: %v; what is left in it is killed", p.name, err))
		ev.Left = 0 // the group is given back, and whoever is in there then gets SIGKILL
	}
	return ev
}

// groupChanged tells when nothing is left in the group of a process that has
// ended.
func (m *master) groupChanged(id fleet.Proc) []fleet.Event {
	p := m.procs.byID[id]
	if p == nil || p.group == nil || !p.reaped {
		return nil
	}
	if populated, err := p.group.Populated(); err == nil && populated {
		return nil
	}
	_ = m.poller.Source(groupEvents).Remove(p.group.Watch()) // it is in there
	m.forget(p)
	return []fleet.Event{fleet.Swept{Proc: p.id}}
}
