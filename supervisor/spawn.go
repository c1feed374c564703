// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/rights"
	"github.com/decnet/prefork/supervisor/zygote"
)

// startShim starts this program again as the shim: a child that waits at its
// gate. The environment is empty: what it becomes gets its own with the orders.
func (m *master) startShim(p *process) (err error) {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	p.gate = ours
	defer linux.CloseFD(&theirs)
	p.pidfd = -1
	args := []string{gate.ShimName}
	attr := &syscall.ProcAttr{
		Files: []uintptr{uintptr(m.devNull), 1, 2, uintptr(theirs)},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &p.pidfd},
	}
	if p.group != nil {
		args, attr.Files = append(args, gate.InGroup), append(attr.Files, uintptr(p.group.Procs()))
	}
	pid, err := syscall.ForkExec("/proc/self/exe", args, attr)
	if err != nil {
		return fmt.Errorf("start the shim: %w", os.NewSyscallError("fork/exec", err))
	}
	m.procs.identify(p, pid, p.pidfd)
	return m.watch(p)
}

// watch lets the loop hear of the gate and of the end of a process.
func (m *master) watch(p *process) error {
	if err := m.poller.Source(gates).Add(p.gate, uint64(p.id)); err != nil {
		return err
	}
	return m.poller.Source(deaths).Add(p.pidfd, uint64(p.id))
}

func (m *master) spawnFailed(p *process, err error) []fleet.Event {
	if p.pid != 0 {
		m.log.Error(fmt.Sprintf("%s: %v", p.name, err), slog.Int("pid", p.pid))
		_ = p.signal(unix.SIGKILL) // it is of no use; its end follows
		return nil
	}
	m.forget(p)
	return []fleet.Event{fleet.SpawnFailed{Proc: p.id, Why: err.Error()}}
}

// startSlot starts the shim for a slot that has a program.
func (m *master) startSlot(act fleet.StartShim) []fleet.Event {
	p := m.takeShim(act.Proc)
	if p == nil {
		p = m.procs.add(act.Proc)
		if err := m.newShim(p); err != nil {
			return m.spawnFailed(p, err)
		}
	}
	p.name = m.slots[act.Slot].name
	return []fleet.Event{fleet.Introduced{Proc: p.id, PID: p.pid}}
}

func (m *master) newShim(p *process) (err error) {
	if p.group, err = m.groups.Take(); err != nil {
		return err
	}
	return m.startShim(p)
}

// loadFloor starts a zygote. The shim becomes the interpreter.
func (m *master) loadFloor(act fleet.LoadFloor) []fleet.Event {
	p := m.procs.add(act.Proc)
	p.floor, p.told, p.name, p.generation = true, true, "floor", act.Generation
	if err := m.startZygote(p, act.Generation); err != nil {
		return m.spawnFailed(p, err)
	}
	m.log.Info("floor: loading", slog.Int("pid", p.pid), slog.Int("gen", act.Generation))
	return nil
}

func (m *master) startZygote(p *process, generation int) error {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	p.command = ours
	defer linux.CloseFD(&theirs)
	source, err := linux.Memfd("prefork-zygote", []byte(zygote.Source))
	if err != nil {
		return err
	}
	defer linux.CloseFD(&source)
	if p.group, err = m.groups.TakeFloor(generation); err != nil {
		return err
	}
	if err := m.startShim(p); err != nil {
		return err
	}
	if err := m.poller.Source(commands).Add(p.command, uint64(p.id)); err != nil {
		return err
	}
	fds := []int{theirs, source}
	orders := m.floorOrders(generation)
	to, err := m.outputs.For(p.name)
	if err != nil {
		return err
	}
	if to.Journal != "" {
		orders.Env = append(orders.Env, "JOURNAL_STREAM="+to.Journal)
	}
	if err := m.sendGo(p, orders, to, fds); err != nil {
		return err
	}
	return linux.Send(p.command, m.floorMessage(generation).Encode())
}

// fork asks a floor for one worker at its gate.
func (m *master) fork(act fleet.Fork) []fleet.Event {
	p := m.procs.add(act.Proc)
	if err := m.sendFork(p, m.procs.byID[act.Floor]); err != nil {
		return m.spawnFailed(p, err)
	}
	m.request = p
	return nil
}

func (m *master) sendFork(p, floor *process) error {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	p.gate = ours
	defer linux.CloseFD(&theirs)
	if floor == nil || floor.command < 0 {
		return errors.New("the floor has ended")
	}
	procs := -1
	if p.group, err = m.groups.Take(); err != nil {
		return err
	}
	if p.group != nil {
		procs = p.group.Procs()
	}
	if err := zygote.Fork(floor.command, uint64(p.id), theirs, procs); err != nil {
		return fmt.Errorf("ask the floor: %w", err)
	}
	p.generation = floor.generation
	return m.poller.Source(gates).Add(p.gate, uint64(p.id))
}

// tell lets a process at its gate become a slot.
func (m *master) tell(act fleet.Go) []fleet.Event {
	p := m.procs.byID[act.Proc]
	if p == nil {
		return nil // it ended in this turn; its end is an event
	}
	if err := m.sendOrders(p, m.slots[act.Slot]); err != nil {
		return []fleet.Event{fleet.SpawnFailed{Proc: p.id, Why: err.Error()}}
	}
	p.told = true
	return nil
}

func (m *master) sendOrders(p *process, s *slot) error {
	p.name, p.invocation, p.slot = s.name, newInvocation(), s
	s.process, s.invocation = p, p.invocation
	if err := limit(p, s); err != nil {
		return err
	}
	if err := preset(p, s.config); err != nil {
		return err
	}
	if err := m.giveNotify(p, s); err != nil {
		return err
	}
	to, err := m.outputs.For(s.name)
	if err != nil {
		return err
	}
	orders, fds, err := m.slotOrders(p, s, to.Journal)
	if err != nil {
		to.Close()
		return err
	}
	err = m.sendGo(p, orders, to, fds)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil // it has ended; that is the event
	}
	return err
}

// limit sets what the slot's processes may use, before they run.
func limit(p *process, s *slot) error {
	if p.group == nil {
		return nil
	}
	if limits := rights.Limits(s.config); limits != (cgroup.Limits{}) {
		if err := p.group.Limit(limits); err != nil {
			return err
		}
	}
	return p.group.Mark(s.name)
}

// sendGo tells a process at its gate what it is, and where its output goes.
func (m *master) sendGo(p *process, o *gate.Orders, to output.Output, fds []int) error {
	defer to.Close()
	o.Stdout, o.Stderr = to.Stdout >= 0, to.Stderr >= 0
	if o.Stderr {
		fds = slices.Insert(fds, 0, to.Stderr)
	}
	if o.Stdout {
		fds = slices.Insert(fds, 0, to.Stdout)
	}
	return gate.Go(p.gate, o, fds...)
}

// gateReadable reads one message of a process at its gate; more is false if
// there was none.
func (m *master) gateReadable(id fleet.Proc) (events []fleet.Event, more bool) {
	p := m.procs.byID[id]
	if p == nil || p.gate < 0 {
		return nil, false
	}
	msg, err := gate.Receive(p.gate)
	switch {
	case errors.Is(err, io.EOF):
		return m.leftGate(p), false
	case errors.Is(err, unix.EAGAIN):
		return nil, false
	case errors.Is(err, linux.ErrRights):
		return m.pushes(p), false
	case err != nil:
		m.log.Debug(fmt.Sprintf("%s: at its gate: %v", p.name, err))
		return nil, true
	}
	switch msg := msg.(type) {
	case gate.Hello:
		return m.introduced(p, msg), true
	case gate.Failed:
		if p.floor {
			return []fleet.Event{fleet.FloorBroken{Proc: p.id, Text: msg.Text}}, true
		}
		return []fleet.Event{fleet.Refused{Proc: p.id, Text: msg.Text}}, true
	}
	return nil, true
}

// introduced checks a hello: it must answer the request that is outstanding,
// and its sender must be a child of this process.
func (m *master) introduced(p *process, hello gate.Hello) []fleet.Event {
	if p != m.request || hello.ID != uint64(p.id) {
		m.log.Warn("a process introduced itself for a request that is not open; ignored", slog.Int("pid", hello.PID))
		return nil
	}
	m.request = nil
	pidfd, err := adopt(hello.PID)
	if err != nil {
		m.forget(p)
		return []fleet.Event{fleet.SpawnFailed{Proc: p.id, Why: fmt.Sprintf("adopt pid %d: %v", hello.PID, err)}}
	}
	m.procs.identify(p, hello.PID, pidfd)
	p.name, p.uid = "spare", hello.UID
	if err := m.poller.Source(deaths).Add(pidfd, uint64(p.id)); err != nil {
		return m.spawnFailed(p, err)
	}
	// Before it had a session of its own it may have been taken for something that
	// its floor left behind.
	return append(m.sweepAgain(m.notLeft(p.pid)), fleet.Introduced{Proc: p.id, PID: p.pid})
}

// leftGate: the other end of a gate was closed. Who was told to go has become
// what it was told, unless the kernel is closing its descriptors because it
// ends: that is then the event.
func (m *master) leftGate(p *process) []fleet.Event {
	linux.CloseFD(&p.gate)
	if p.pid == 0 {
		return m.stillborn(p, "the worker ended before it had introduced itself")
	}
	if !p.told || p.floor {
		return nil
	}
	stat, err := linux.ReadStat(p.pid)
	if err != nil || stat.Exiting || stat.State == 'Z' {
		return nil
	}
	return []fleet.Event{fleet.Running{Proc: p.id}}
}

func (m *master) stillborn(p *process, why string) []fleet.Event {
	if m.request == p {
		m.request = nil
	}
	m.forget(p)
	return []fleet.Event{fleet.SpawnFailed{Proc: p.id, Why: why}}
}

// pushes ends a process that sends descriptors at its gate: it does not keep to the
// protocol.
func (m *master) pushes(p *process) []fleet.Event {
	const why = "it sends descriptors at its gate"
	m.disposal.CloseSocket(m.poller.Source(gates), &p.gate)
	if p.pid == 0 {
		return m.stillborn(p, why)
	}
	m.log.Warn(fmt.Sprintf("%s: %s; it is killed", p.name, why), slog.Int("pid", p.pid))
	_ = p.signal(unix.SIGKILL) // its end follows
	return nil
}

// commandReadable reads one message of a floor; more is false if there was none.
func (m *master) commandReadable(id fleet.Proc) (events []fleet.Event, more bool) {
	p := m.procs.byID[id]
	if p == nil || p.command < 0 {
		return nil, false
	}
	buf := make([]byte, zygote.MaxMessage)
	n, _, err := linux.Receive(p.command, buf)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil, false
	case err != nil: // it ends, and that will be the event; until then there is nothing to read
		if !errors.Is(err, io.EOF) {
			m.log.Warn(fmt.Sprintf("floor: %v; its socket is closed", err), slog.Int("pid", p.pid))
		}
		m.disposal.CloseSocket(m.poller.Source(commands), &p.command)
		return nil, false
	}
	return m.floorSaid(p, buf[:n]), true
}

func (m *master) floorSaid(p *process, text []byte) []fleet.Event {
	msg, err := zygote.Decode(text)
	if err != nil {
		return []fleet.Event{fleet.FloorBroken{Proc: p.id, Text: err.Error()}}
	}
	switch msg.Kind {
	case zygote.Progress:
		m.log.Debug("floor: " + msg.Text)
		return []fleet.Event{fleet.FloorProgress{Proc: p.id, Text: msg.Text}}
	case zygote.Loaded:
		return []fleet.Event{fleet.FloorLoaded{Proc: p.id}}
	case zygote.Broken:
		return []fleet.Event{fleet.FloorBroken{Proc: p.id, Text: msg.Text}}
	case zygote.Refused:
		return m.refused(msg)
	}
	return nil
}

// refused takes a floor's word that there will be no worker, if it is about the
// request that is outstanding.
func (m *master) refused(msg zygote.Message) []fleet.Event {
	p := m.request
	if p == nil || uint64(p.id) != msg.ID {
		return nil
	}
	m.request = nil
	m.forget(p)
	return []fleet.Event{fleet.SpawnFailed{Proc: p.id, Why: "fork: " + msg.Text}}
}
