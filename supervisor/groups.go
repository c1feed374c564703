// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/output"
)

// groups gives each process a control group of its own, where the service
// manager has delegated that. One is made ahead, and what was left is removed
// between turns: neither is on the way from a crash to its successor.
type groups struct {
	log     *output.Log
	tree    *cgroup.Tree  // nil: there are none
	next    *cgroup.Group // made ahead
	made    int
	retired []*cgroup.Group // to be given back
	managed bool            // systemd removes them with the unit
	leave   bool            // to systemd, as the fleet ends
}

// openGroups takes the master's own group, if it may. Limits that nobody could
// keep are an error.
func openGroups(opts Options, managed bool) (*groups, error) {
	g := &groups{log: opts.Log, managed: managed}
	tree, err := cgroup.Open()
	if err != nil {
		return g, g.without(opts, err)
	}
	g.tree = tree
	if err := g.enable(opts.File); err != nil {
		g.close()
		return nil, err
	}
	g.retired = tree.Leftover()
	for _, left := range g.retired {
		opts.Log.Warn(fmt.Sprintf("cgroup %s of an earlier master is removed with what is in it", left.Name()))
	}
	g.flush()
	return g, nil
}

// without is for a master that has no right to make control groups.
func (g *groups) without(opts Options, why error) error {
	for i := range opts.File.Workers {
		w := &opts.File.Workers[i]
		if keys := w.Limited(); len(keys) > 0 {
			return &forbidden{fmt.Sprintf("%s: worker.%s.%s: needs control groups, and there are none (%v): "+
				"run the fleet as prefork@%s.service, which has Delegate=, or remove the key",
				opts.File.Path, w.Name, keys[0], why, opts.File.Name)}
		}
	}
	text := fmt.Sprintf("no control groups (%v): what a worker leaves behind is found by its session and parent instead", why)
	if g.managed {
		opts.Log.Notice(text)
	} else {
		opts.Log.Debug(text)
	}
	return nil
}

// enable turns on the controllers that are asked for, and those that tell what
// a slot used, where there are any.
func (g *groups) enable(file *fleetfile.Fleet) error {
	available := g.tree.Available()
	wanted := []string{"memory", "pids"}
	for i := range file.Workers {
		w := &file.Workers[i]
		for _, name := range limitsOf(w).Controllers() {
			if !slices.Contains(available, name) {
				return &forbidden{fmt.Sprintf("%s: worker.%s: %s need the %s controller, which this unit does not have (it has: %s): "+
					"add it to Delegate= of the unit, or remove the keys", file.Path, w.Name,
					strings.Join(w.Limited(), ", "), name, cmp.Or(strings.Join(available, " "), "none"))}
			}
			if !slices.Contains(wanted, name) {
				wanted = append(wanted, name)
			}
		}
	}
	wanted = slices.DeleteFunc(wanted, func(name string) bool { return !slices.Contains(available, name) })
	return g.tree.Enable(wanted...)
}

// limitsOf are the limits of each slot of a worker.
func limitsOf(w *fleetfile.Worker) cgroup.Limits {
	return cgroup.Limits{
		MemoryHigh: w.MemoryHigh, MemoryMax: w.MemoryMax, TasksMax: w.TasksMax,
		CPUWeight: w.CPUWeight, IOWeight: w.IOWeight, CPUQuota: w.CPUQuota,
	}
}

// take returns an empty group for a process, nil if there are none.
func (g *groups) take() (*cgroup.Group, error) {
	if g.tree == nil {
		return nil, nil
	}
	next := g.next
	if next != nil {
		g.next = nil
		return next, nil
	}
	return g.makeOne()
}

func (g *groups) makeOne() (*cgroup.Group, error) {
	g.made++
	return g.tree.Make(fmt.Sprintf("p-%d", g.made))
}

func (g *groups) takeFloor(generation int) (*cgroup.Group, error) {
	if g.tree == nil {
		return nil, nil
	}
	return g.tree.Make(fmt.Sprintf("floor-%d", generation))
}

// ending is for a fleet that stops. Before version 258 a systemd that signals the
// processes of the unit gives up on a group that is removed under its hands
// (systemctl kill), so that it keeps those of its unit.
func (g *groups) ending() { g.leave = g.managed }

// give gives a group back. The error wraps EBUSY if something is left in it.
func (g *groups) give(group *cgroup.Group) error {
	if g.leave {
		return group.Leave()
	}
	return group.Remove()
}

// retire gives a group back when nothing is left in it.
func (g *groups) retire(group *cgroup.Group) {
	if group != nil {
		g.retired = append(g.retired, group)
	}
}

// flush does what can wait for the end of a turn.
func (g *groups) flush() {
	if g.tree == nil {
		return
	}
	g.retired = slices.DeleteFunc(g.retired, func(group *cgroup.Group) bool {
		err := g.give(group)
		if errors.Is(err, unix.EBUSY) {
			_ = group.Kill() // nothing in there is wanted; it is tried again in the next turn
			return false
		}
		if err != nil {
			g.log.Error(fmt.Sprintf("remove cgroup %s: %v", group.Name(), err))
		}
		return true
	})
	if g.next == nil && !g.leave {
		g.next, _ = g.makeOne() // who needs it will be told why it is not there
	}
}

func (g *groups) close() {
	if g.tree == nil {
		return
	}
	if g.next != nil {
		g.retire(g.next)
	}
	for _, group := range g.retired {
		_ = group.Kill()  // whatever is left in there
		_ = g.give(group) // else systemd removes it with the unit
	}
	g.tree.Close()
	g.tree = nil
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
