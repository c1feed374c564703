// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/bridge"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/errands"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/launch"
	"github.com/decnet/prefork/supervisor/manager"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/revisions"
	"github.com/decnet/prefork/supervisor/rights"
	"github.com/decnet/prefork/supervisor/rundir"
	"github.com/decnet/prefork/supervisor/slots"
	"github.com/decnet/prefork/supervisor/sockets"
)

// master is the real system: the rooms of the house, each with a life of its own, and
// the loop between them. Only the loop calls its methods.
type master struct {
	revisions *revisions.Table
	log       *output.Log
	manager   *manager.Manager
	poller    *poll.Poller
	signals   *poll.Signals
	errands   *errands.Pool
	outputs   *output.Outputs
	sockets   *sockets.Sockets
	procs     *procs.Table
	slots     *slots.Table
	launch    *launch.Launcher
	bridge    *bridge.Bridge
	snapshots snapshots
	beside
	ending
}

// beside is what is read of processes beside the loop.
type beside struct {
	gauge *gauge
	looks looks
}

// ending is what the end of the fleet has to know.
type ending struct {
	stops   int      // signals that asked for it
	closers []func() // of what has been opened, in that order
}

// newMaster opens the house of a fleet, and makes the state machine that decides in it.
func newMaster(opts Options, mgr *manager.Manager) (*master, *fleet.Fleet, error) {
	if err := rights.Check(opts.File, mgr.Managed()); err != nil {
		return nil, nil, err
	}
	m := &master{log: opts.Log, manager: mgr}
	f, err := m.open(opts)
	if err != nil {
		m.close()
		return nil, nil, err
	}
	return m, f, nil
}

// open opens the rooms. Who is opened later is closed earlier: clients, then what is still
// a child, then where that writes to.
func (m *master) open(opts Options) (*fleet.Fleet, error) {
	dir, err := rundir.Open(opts.File)
	if err != nil {
		return nil, err
	}
	m.opened(dir.Close)
	if m.poller, err = poll.New(wakeups); err != nil {
		return nil, err
	}
	m.opened(m.poller.Close)
	m.errands = errands.New(m.poller.Wake())
	passed, err := sdnotify.Listeners(opts.Env)
	if err != nil {
		return nil, fmt.Errorf("sockets from systemd: %w", err)
	}
	kept, passed := slots.Split(passed)
	m.sockets, err = sockets.Open(opts.File, passed, m.manager.Managed(), m.log, m.poller.Source(connections), m.poller.Source(arrivals))
	if err != nil {
		return nil, err
	}
	m.opened(m.sockets.Close)
	m.revisions = revisions.New(opts.File, m.sockets)
	if err := m.openProcesses(opts.Env); err != nil {
		return nil, err
	}
	f := fleet.New(m.config(opts))
	m.slots = slots.New(m.revisions.Current(), f.Slots(), m.log, m.manager, m.errands, m.poller.Source(notices), m.poller.Source(storedFDs))
	m.opened(m.slots.Close)
	if err := m.slots.Listen(dir.Notify); err != nil {
		return nil, err
	}
	m.slots.TakeKept(kept)
	return f, m.openBridge(dir.Control())
}

// openProcesses makes ready for children.
func (m *master) openProcesses(env sdnotify.Environment) error {
	groups, err := openGroups(m.file(), m.manager.Managed(), m.log)
	if err != nil {
		return err
	}
	m.opened(groups.Close)
	if err := linux.SetChildSubreaper(); err != nil {
		return err
	}
	m.procs = procs.New(groups, m.log, m.poller.Source(deaths), m.poller.Source(groupEvents))
	m.outputs = output.New(env, m.log, m.poller.Source(outputs), m.poller.Wake())
	m.opened(m.outputs.Close)
	m.signals = poll.CatchSignals(m.poller.Wake())
	m.gauge = newGauge(groups.Tree(), m.errands)
	m.opened(m.signals.Close)
	m.opened(m.endStragglers)
	m.launch, err = launch.New(launch.Config{
		Revisions: m.revisions, Managed: m.manager.Managed(), OOMScore: rights.OOMScoreAdjust(), Log: m.log,
		Outputs: m.outputs, Groups: groups, Procs: m.procs, Errands: m.errands,
		Gates: m.poller.Source(gates), Commands: m.poller.Source(commands),
	})
	if err != nil {
		return err
	}
	m.opened(m.launch.Close)
	return nil
}

// openBridge offers the fleet on a control socket, on the system bus, and to monitoring.
func (m *master) openBridge(path string) (err error) {
	if m.snapshots.file, err = filepath.Abs(m.file().Path); err != nil {
		return err
	}
	m.bridge = bridge.New(bridge.Config{
		File: m.file(), Log: m.log, Managed: m.manager.Managed(), Tree: m.procs.Groups().Tree(), Wake: m.poller.Wake(),
	})
	m.opened(m.bridge.Close)
	if err := m.bridge.Listen(path); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if m.manager.Managed() {
		m.bridge.JoinBus(control.BusName(m.file().Name), func(err error) {
			m.log.Notice(fmt.Sprintf("not on the system bus: %v; %s works as always", err, path))
		})
	}
	if m.file().Metrics == nil {
		return nil
	}
	listener, err := sockets.ListenMetrics(m.file().Metrics.Listen)
	if err != nil {
		return fmt.Errorf("%s: %w", fleetfile.PlaceOf(m.file().Path, "metrics.listen"), err)
	}
	m.bridge.ServeMetrics(listener)
	return nil
}

// file is the fleet file as it is in effect.
func (m *master) file() *fleetfile.File { return m.revisions.Current().File }

func (m *master) opened(closer func()) { m.closers = append(m.closers, closer) }

// close gives back what the master holds when the fleet has ended.
func (m *master) close() {
	for _, closer := range slices.Backward(m.closers) {
		closer()
	}
}
