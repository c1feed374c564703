// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// slotNames is what the master asks the state machine about a slot.
type slotNames interface {
	Slot(id fleet.SlotID) (worker, index int, name string)
}

// master is the real system: the process table and everything that touches the
// kernel. Only the loop calls its methods.
type master struct {
	file     *fleetfile.Fleet
	log      *Log
	notify   *notifier
	slots    slotNames
	sockets  *listeners
	procs    *processes
	poller   *poller
	signals  *signals
	wake     *wakeup
	outputs  *outputTable
	devNull  int
	pid      int
	managed  bool // systemd started this process, and ends what is left if it dies
	request  *process
	prepared map[int]*gate.Orders // by worker: what is the same for each start
	base     []string             // the environment of programs
}

func newMaster(opts Options, notify *notifier) (*master, error) {
	if err := checkRights(opts.File); err != nil {
		return nil, err
	}
	m := &master{
		file: opts.File, log: opts.Log, notify: notify,
		procs: newProcesses(), pid: os.Getpid(), devNull: -1,
		managed:  opts.Env.SystemdExecPID == fmt.Sprint(os.Getpid()),
		prepared: map[int]*gate.Orders{},
		base:     os.Environ(),
	}
	if err := m.open(opts); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *master) open(opts Options) (err error) {
	if m.sockets, err = openListeners(opts, m.managed); err != nil {
		return err
	}
	if err := linux.SetChildSubreaper(); err != nil {
		return err
	}
	if m.devNull, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return &os.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	if m.poller, err = newPoller(); err != nil {
		return err
	}
	if m.wake, err = newWakeup(); err != nil {
		return err
	}
	if err := m.poller.add(m.wake.fd, newToken(wakeups, 0)); err != nil {
		return err
	}
	m.signals = newSignals(m.wake)
	m.outputs = newOutputTable(m.log, m.poller, m.wake)
	return nil
}

// close gives back what the master holds when the fleet has ended.
func (m *master) close() {
	if m.signals != nil {
		m.endStragglers()
		m.signals.close()
	}
	if m.outputs != nil {
		m.outputs.close()
	}
	if m.sockets != nil {
		m.sockets.close()
	}
	closeFD(&m.devNull)
	if m.wake != nil {
		m.wake.close()
	}
	if m.poller != nil {
		closeFD(&m.poller.epfd)
	}
}

func (m *master) now() fleet.Instant { return monotonic() }

// wait turns what has happened into events. Messages of processes come before
// their ends: a worker that dies at once has then said who it is.
func (m *master) wait(until fleet.Instant) []fleet.Event {
	now := m.now()
	tokens := m.poller.wait(min(until, m.notify.retryAt), now)
	var events []fleet.Event
	for s := wakeups; s < sourceEnd; s++ {
		for _, t := range tokens {
			if t.source() != s {
				continue
			}
			switch s {
			case gates:
				said, _ := m.gateReadable(fleet.Proc(t.id())) // the rest is there next time
				events = append(events, said...)
			case commands:
				said, _ := m.commandReadable(fleet.Proc(t.id())) // the same
				events = append(events, said...)
			case outputs:
				m.outputs.readable(t.id())
			case wakeups:
				m.wake.clear()
				m.outputs.resume()
				events = append(events, m.takeSignals()...)
			case deaths, sourceEnd:
			}
		}
	}
	return append(events, m.reap(tokens)...)
}

func (m *master) takeSignals() (events []fleet.Event) {
	for {
		select {
		case sig := <-m.signals.pending:
			events = append(events, m.signalled(sig)...)
		default:
			return events
		}
	}
}

func (m *master) signalled(sig os.Signal) []fleet.Event {
	name := unix.SignalName(sig.(unix.Signal))
	switch sig {
	case unix.SIGTERM, unix.SIGINT:
		return []fleet.Event{fleet.StopRequested{Why: name}}
	case unix.SIGHUP:
		if m.log.terminal != nil {
			return []fleet.Event{fleet.StopRequested{Why: name + ": the terminal is gone"}}
		}
	}
	m.log.Notice(name + " is ignored: it has no meaning for a running fleet")
	return nil
}

// do carries out one action.
func (m *master) do(act fleet.Action) []fleet.Event {
	switch act := act.(type) {
	case fleet.LoadFloor:
		return m.loadFloor(act)
	case fleet.StopFloor:
		if p := m.procs.byID[act.Proc]; p != nil {
			closeFD(&p.command)
		}
	case fleet.Fork:
		return m.fork(act)
	case fleet.Abandon:
		m.abandon(act.Proc)
	case fleet.StartShim:
		return m.startSlot(act)
	case fleet.Go:
		return m.tell(act)
	case fleet.Kill:
		m.kill(act)
	case fleet.Ready:
		m.notify.ready = true
	case fleet.Stopping:
		m.notify.stopping = true
	case fleet.Status:
		m.notify.setStatus(act.Text)
	case fleet.Extend:
		m.notify.extend = act.By
	case fleet.Ping:
		m.notify.ping = true
	case fleet.Report:
		m.report(act)
	case fleet.Quit:
	default:
		panic(fmt.Sprintf("supervisor: unknown action %T", act))
	}
	return nil
}

func (m *master) flush() { m.notify.flush(m.now()) }

func (m *master) report(r fleet.Report) {
	text := r.Text
	if r.Slot != "" {
		text = r.Slot + ": " + text
	}
	var attrs []slog.Attr
	if r.PID != 0 {
		attrs = append(attrs, slog.Int("pid", r.PID))
	}
	if r.Generation != 0 {
		attrs = append(attrs, slog.Int("gen", r.Generation))
	}
	m.log.at(r.Level, text, attrs...)
}

func (m *master) kill(act fleet.Kill) {
	p := m.procs.byID[act.Proc]
	if p == nil {
		return // it ended in this turn
	}
	if err := p.signal(unix.Signal(act.Signal)); err != nil {
		m.log.Error(fmt.Sprintf("%s: %s: %v", p.name, act.Signal, err), slog.Int("pid", p.pid))
	}
}

// abandon forgets a request. The worker, should it come, finds its gate closed
// and ends; it is then reaped as an orphan.
func (m *master) abandon(id fleet.Proc) {
	if p := m.procs.byID[id]; p != nil {
		if m.request == p {
			m.request = nil
		}
		m.procs.forget(p)
	}
}
