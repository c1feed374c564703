// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/disposal"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/launch"
	"github.com/decnet/prefork/supervisor/manager"
	"github.com/decnet/prefork/supervisor/metrics"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/rights"
	"github.com/decnet/prefork/supervisor/rundir"
	"github.com/decnet/prefork/supervisor/slots"
	"github.com/decnet/prefork/supervisor/sockets"
)

// master is the real system: the process table and everything that touches the
// kernel. Only the loop calls its methods.
type master struct {
	file     *fleetfile.Fleet
	log      *output.Log
	manager  *manager.Manager
	slots    *slots.Table
	runtime  *rundir.Dir
	sockets  *sockets.Sockets
	groups   *cgroup.Pool
	procs    *procs.Table
	poller   *poll.Poller
	signals  *poll.Signals
	outputs  *output.Outputs
	launch   *launch.Launcher
	disposal *disposal.Disposal

	operators *operators      // clients of the control socket
	clock     clock           // in which they are told the time
	control   *control.Server // nil before the fleet has started
	metrics   *metrics.Server // nil if nobody is to see them

	stops int // signals that asked for the end of the fleet
}

func newMaster(opts Options, mgr *manager.Manager) (*master, error) {
	if err := rights.Check(opts.File, mgr.Managed()); err != nil {
		return nil, err
	}
	m := &master{
		file: opts.File, log: opts.Log, manager: mgr,
	}
	if err := m.open(opts); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *master) open(opts Options) (err error) {
	if m.runtime, err = rundir.Open(opts.File); err != nil {
		return err
	}
	if m.poller, err = poll.New(wakeups); err != nil {
		return err
	}
	passed, err := sdnotify.Listeners(opts.Env)
	if err != nil {
		return fmt.Errorf("sockets from systemd: %w", err)
	}
	kept, passed := slots.Split(passed)
	m.sockets, err = sockets.Open(opts.File, passed, m.manager.Managed(), m.log, m.poller.Source(connections))
	if err != nil {
		return err
	}
	if m.groups, err = openGroups(opts.File, m.manager.Managed(), m.log); err != nil {
		return err
	}
	m.procs = procs.New(m.groups, m.log, m.poller.Source(deaths), m.poller.Source(groupEvents))
	if err := linux.SetChildSubreaper(); err != nil {
		return err
	}
	m.disposal = disposal.New(m.poller.Wake())
	m.signals = poll.CatchSignals(m.poller.Wake())
	m.outputs = output.New(opts.Env, m.log, m.poller.Source(outputs), m.poller.Wake())
	m.launch, err = launch.New(launch.Config{
		File: m.file, Managed: m.manager.Managed(), OOMScore: rights.OOMScoreAdjust(), Log: m.log,
		Outputs: m.outputs, Groups: m.groups, Procs: m.procs, Sockets: m.sockets, Disposal: m.disposal,
		Gates: m.poller.Source(gates), Commands: m.poller.Source(commands),
	})
	if err != nil {
		return err
	}
	m.slots = slots.New(m.file, m.log, m.manager, m.disposal, m.poller.Source(notices), m.poller.Source(storedFDs))
	if err := m.slots.Listen(m.runtime.Notify); err != nil {
		return err
	}
	m.slots.TakeKept(kept)
	if err := m.openControl(); err != nil {
		return err
	}
	return m.openMetrics()
}

// close gives back what the master holds when the fleet has ended.
func (m *master) close() {
	m.closeControl()
	m.closeMetrics()
	if m.signals != nil {
		m.endStragglers()
		m.signals.Close()
	}
	if m.outputs != nil {
		m.outputs.Close()
	}
	if m.groups != nil {
		m.groups.Close()
	}
	if m.slots != nil {
		m.slots.Close()
	}
	if m.sockets != nil {
		m.sockets.Close()
	}
	if m.runtime != nil {
		m.runtime.Close()
	}
	if m.launch != nil {
		m.launch.Close()
	}
	if m.poller != nil {
		m.poller.Close()
	}
}

// look answers whether a connection waits for a worker.
func (m *master) look(worker int) []fleet.Event {
	if m.sockets.Look(m.file.Workers[worker].Sockets) {
		return []fleet.Event{fleet.Demand{Worker: worker}}
	}
	return []fleet.Event{fleet.NoDemand{Worker: worker}}
}

// watchSockets: a worker whose sockets cannot be watched is started at once.
func (m *master) watchSockets(worker int) []fleet.Event {
	w := &m.file.Workers[worker]
	if err := m.sockets.Watch(worker, w.Sockets); err != nil {
		m.log.Error(fmt.Sprintf("%s: watch its sockets: %v; started without a connection", w.Name, err))
		return []fleet.Event{fleet.Demand{Worker: worker}}
	}
	return nil
}

// do carries out one action.
func (m *master) do(act fleet.Action) []fleet.Event {
	switch act := act.(type) {
	case fleet.LoadFloor:
		return m.launch.LoadFloor(act)
	case fleet.StopFloor:
		m.launch.StopFloor(act.Proc)
	case fleet.Fork:
		return m.launch.Fork(act)
	case fleet.Abandon:
		m.launch.Abandon(act.Proc)
	case fleet.StartShim:
		return m.launch.StartShim(act.Proc, m.slots.Of(act.Slot))
	case fleet.Go:
		return m.launch.Assign(act.Proc, m.slots.Of(act.Slot))
	case fleet.Kill:
		m.procs.Kill(act)
	case fleet.Watch:
		return m.watchSockets(act.Worker)
	case fleet.Unwatch:
		m.sockets.Unwatch(act.Worker)
	case fleet.Look:
		return m.look(act.Worker)
	case fleet.Ready:
		m.manager.Ready()
		m.operators.Idle()
	case fleet.Stopping:
		m.manager.Stopping()
		m.groups.Ending()
		m.launch.Stopping()
	case fleet.Freeze:
		return m.procs.Freeze(act)
	case fleet.Status:
		m.manager.SetStatus(act.Text)
		m.control.Changed()
	case fleet.Extend:
		m.manager.Extend(act.By)
	case fleet.Ping:
		if err := m.signals.Beat(); err != nil {
			m.log.Error(fmt.Sprintf("watchdog: %v", err))
		}
	case fleet.Report:
		m.report(act)
		if act.Slot != "" && act.Level < fleet.Debug {
			m.operators.remember(m.now(), act.Slot, act.Text)
		}
		m.control.Changed()
	case fleet.Show:
		m.operators.show(m.shown(act.View))
	case fleet.Answer:
		m.operators.answer(act.ID, act.Refusal)
	case fleet.Quit:
	default:
		panic(fmt.Sprintf("supervisor: unknown action %T", act))
	}
	return nil
}

// flush ends a turn: who waits for what it said to be done is told, and what may
// wait is done.
func (m *master) flush() {
	m.procs.FlushSignals()
	m.slots.Flush()
	m.manager.Flush(m.now())
	if err := m.groups.Flush(); err != nil {
		m.log.Error(err.Error())
	}
	m.launch.Flush()
}
