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
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/rights"
	"github.com/decnet/prefork/supervisor/slots"
	"github.com/decnet/prefork/supervisor/zygote"
)

// startShim starts this program again as the shim: a child that waits at its
// gate. The environment is empty: what it becomes gets its own with the orders.
func (m *master) startShim(p *procs.Process) (err error) {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	p.Birth.Gate = ours
	defer linux.CloseFD(&theirs)
	pidfd := -1
	args := []string{gate.ShimName}
	attr := &syscall.ProcAttr{
		Files: []uintptr{uintptr(m.devNull), 1, 2, uintptr(theirs)},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	}
	if p.Group != nil {
		args, attr.Files = append(args, gate.InGroup), append(attr.Files, uintptr(p.Group.Procs()))
	}
	pid, err := syscall.ForkExec("/proc/self/exe", args, attr)
	if err != nil {
		return fmt.Errorf("start the shim: %w", os.NewSyscallError("fork/exec", err))
	}
	if err := m.procs.Identify(p, pid, pidfd); err != nil {
		return err
	}
	return m.poller.Source(gates).Add(p.Birth.Gate, uint64(p.ID))
}

func (m *master) spawnFailed(p *procs.Process, err error) []fleet.Event {
	if p.PID != 0 {
		m.log.Error(fmt.Sprintf("%s: %v", p.Name, err), slog.Int("pid", p.PID))
		_ = p.Signal(unix.SIGKILL) // it is of no use; its end follows
		return nil
	}
	m.forget(p)
	return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: err.Error()}}
}

// startSlot starts the shim for a slot that has a program.
func (m *master) startSlot(act fleet.StartShim) []fleet.Event {
	p := m.takeShim(act.Proc)
	if p == nil {
		p = m.procs.Add(act.Proc)
		if err := m.newShim(p); err != nil {
			return m.spawnFailed(p, err)
		}
	}
	p.Name = m.slots.Of(act.Slot).Name
	return []fleet.Event{fleet.Introduced{Proc: p.ID, PID: p.PID}}
}

func (m *master) newShim(p *procs.Process) (err error) {
	if p.Group, err = m.groups.Take(); err != nil {
		return err
	}
	return m.startShim(p)
}

// loadFloor starts a zygote. The shim becomes the interpreter.
func (m *master) loadFloor(act fleet.LoadFloor) []fleet.Event {
	p := m.procs.Add(act.Proc)
	p.Floor, p.Birth.Told, p.Name, p.Generation = true, true, "floor", act.Generation
	if err := m.startZygote(p, act.Generation); err != nil {
		return m.spawnFailed(p, err)
	}
	m.log.Info("floor: loading", slog.Int("pid", p.PID), slog.Int("gen", act.Generation))
	return nil
}

func (m *master) startZygote(p *procs.Process, generation int) error {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	p.Birth.Command = ours
	defer linux.CloseFD(&theirs)
	source, err := linux.Memfd("prefork-zygote", []byte(zygote.Source))
	if err != nil {
		return err
	}
	defer linux.CloseFD(&source)
	if p.Group, err = m.groups.TakeFloor(generation); err != nil {
		return err
	}
	if err := m.startShim(p); err != nil {
		return err
	}
	if err := m.poller.Source(commands).Add(p.Birth.Command, uint64(p.ID)); err != nil {
		return err
	}
	fds := []int{theirs, source}
	orders := m.floorOrders(generation)
	to, err := m.outputs.For(p.Name)
	if err != nil {
		return err
	}
	if to.Journal != "" {
		orders.Env = append(orders.Env, "JOURNAL_STREAM="+to.Journal)
	}
	if err := m.sendGo(p, orders, to, fds); err != nil {
		return err
	}
	return linux.Send(p.Birth.Command, m.floorMessage(generation).Encode())
}

// fork asks a floor for one worker at its gate.
func (m *master) fork(act fleet.Fork) []fleet.Event {
	p := m.procs.Add(act.Proc)
	if err := m.sendFork(p, m.procs.Of(act.Floor)); err != nil {
		return m.spawnFailed(p, err)
	}
	m.request = p
	return nil
}

func (m *master) sendFork(p, floor *procs.Process) error {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	p.Birth.Gate = ours
	defer linux.CloseFD(&theirs)
	if floor == nil || floor.Birth.Command < 0 {
		return errors.New("the floor has ended")
	}
	procs := -1
	if p.Group, err = m.groups.Take(); err != nil {
		return err
	}
	if p.Group != nil {
		procs = p.Group.Procs()
	}
	if err := zygote.Fork(floor.Birth.Command, uint64(p.ID), theirs, procs); err != nil {
		return fmt.Errorf("ask the floor: %w", err)
	}
	p.Generation = floor.Generation
	return m.poller.Source(gates).Add(p.Birth.Gate, uint64(p.ID))
}

// tell lets a process at its gate become a slot.
func (m *master) tell(act fleet.Go) []fleet.Event {
	p := m.procs.Of(act.Proc)
	if p == nil {
		return nil // it ended in this turn; its end is an event
	}
	if err := m.sendOrders(p, m.slots.Of(act.Slot)); err != nil {
		return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: err.Error()}}
	}
	p.Birth.Told = true
	return nil
}

func (m *master) sendOrders(p *procs.Process, s *slots.Slot) error {
	p.Name, p.Invocation = s.Name, newInvocation()
	s.Assign(p)
	if err := limit(p, s); err != nil {
		return err
	}
	if err := preset(p, s.Config); err != nil {
		return err
	}
	// Who has to change its user gives its socket away by itself, while it may.
	if s.NotifySocket() != "" && s.Config.Entry != "" && p.Birth.UID != m.uid {
		if err := s.GiveNotifySocket(p.Birth.UID); err != nil {
			return err
		}
	}
	to, err := m.outputs.For(s.Name)
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
func limit(p *procs.Process, s *slots.Slot) error {
	if p.Group == nil {
		return nil
	}
	if limits := rights.Limits(s.Config); limits != (cgroup.Limits{}) {
		if err := p.Group.Limit(limits); err != nil {
			return err
		}
	}
	return p.Group.Mark(s.Name)
}

// sendGo tells a process at its gate what it is, and where its output goes.
func (m *master) sendGo(p *procs.Process, o *gate.Orders, to output.Output, fds []int) error {
	defer to.Close()
	o.Stdout, o.Stderr = to.Stdout >= 0, to.Stderr >= 0
	if o.Stderr {
		fds = slices.Insert(fds, 0, to.Stderr)
	}
	if o.Stdout {
		fds = slices.Insert(fds, 0, to.Stdout)
	}
	return gate.Go(p.Birth.Gate, o, fds...)
}

// gateReadable reads one message of a process at its gate; more is false if
// there was none.
func (m *master) gateReadable(id fleet.Proc) (events []fleet.Event, more bool) {
	p := m.procs.Of(id)
	if p == nil || p.Birth.Gate < 0 {
		return nil, false
	}
	msg, err := gate.Receive(p.Birth.Gate)
	switch {
	case errors.Is(err, io.EOF):
		return m.leftGate(p), false
	case errors.Is(err, unix.EAGAIN):
		return nil, false
	case errors.Is(err, linux.ErrRights):
		return m.pushes(p), false
	case err != nil:
		m.log.Debug(fmt.Sprintf("%s: at its gate: %v", p.Name, err))
		return nil, true
	}
	switch msg := msg.(type) {
	case gate.Hello:
		return m.introduced(p, msg), true
	case gate.Failed:
		if p.Floor {
			return []fleet.Event{fleet.FloorBroken{Proc: p.ID, Text: msg.Text}}, true
		}
		return []fleet.Event{fleet.Refused{Proc: p.ID, Text: msg.Text}}, true
	}
	return nil, true
}

// introduced checks a hello: it must answer the request that is outstanding,
// and its sender must be a child of this process.
func (m *master) introduced(p *procs.Process, hello gate.Hello) []fleet.Event {
	if p != m.request || hello.ID != uint64(p.ID) {
		m.log.Warn("a process introduced itself for a request that is not open; ignored", slog.Int("pid", hello.PID))
		return nil
	}
	m.request = nil
	pidfd, err := procs.Adopt(hello.PID)
	if err != nil {
		m.forget(p)
		return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: fmt.Sprintf("adopt pid %d: %v", hello.PID, err)}}
	}
	p.Name, p.Birth.UID = "spare", hello.UID
	if err := m.procs.Identify(p, hello.PID, pidfd); err != nil {
		return m.spawnFailed(p, err)
	}
	// Before it had a session of its own it may have been taken for something that
	// its floor left behind.
	return append(m.procs.SweepAgain(m.procs.NotLeft(p.PID)), fleet.Introduced{Proc: p.ID, PID: p.PID})
}

// leftGate: the other end of a gate was closed. Who was told to go has become
// what it was told, unless the kernel is closing its descriptors because it
// ends: that is then the event.
func (m *master) leftGate(p *procs.Process) []fleet.Event {
	linux.CloseFD(&p.Birth.Gate)
	if p.PID == 0 {
		return m.stillborn(p, "the worker ended before it had introduced itself")
	}
	if !p.Birth.Told || p.Floor {
		return nil
	}
	if !p.Lives() {
		return nil
	}
	return []fleet.Event{fleet.Running{Proc: p.ID}}
}

func (m *master) stillborn(p *procs.Process, why string) []fleet.Event {
	if m.request == p {
		m.request = nil
	}
	m.forget(p)
	return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: why}}
}

// pushes ends a process that sends descriptors at its gate: it does not keep to the
// protocol.
func (m *master) pushes(p *procs.Process) []fleet.Event {
	const why = "it sends descriptors at its gate"
	m.disposal.CloseSocket(m.poller.Source(gates), &p.Birth.Gate)
	if p.PID == 0 {
		return m.stillborn(p, why)
	}
	m.log.Warn(fmt.Sprintf("%s: %s; it is killed", p.Name, why), slog.Int("pid", p.PID))
	_ = p.Signal(unix.SIGKILL) // its end follows
	return nil
}

// commandReadable reads one message of a floor; more is false if there was none.
func (m *master) commandReadable(id fleet.Proc) (events []fleet.Event, more bool) {
	p := m.procs.Of(id)
	if p == nil || p.Birth.Command < 0 {
		return nil, false
	}
	buf := make([]byte, zygote.MaxMessage)
	n, _, err := linux.Receive(p.Birth.Command, buf)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil, false
	case err != nil: // it ends, and that will be the event; until then there is nothing to read
		if !errors.Is(err, io.EOF) {
			m.log.Warn(fmt.Sprintf("floor: %v; its socket is closed", err), slog.Int("pid", p.PID))
		}
		m.disposal.CloseSocket(m.poller.Source(commands), &p.Birth.Command)
		return nil, false
	}
	return m.floorSaid(p, buf[:n]), true
}

func (m *master) floorSaid(p *procs.Process, text []byte) []fleet.Event {
	msg, err := zygote.Decode(text)
	if err != nil {
		return []fleet.Event{fleet.FloorBroken{Proc: p.ID, Text: err.Error()}}
	}
	switch msg.Kind {
	case zygote.Progress:
		m.log.Debug("floor: " + msg.Text)
		return []fleet.Event{fleet.FloorProgress{Proc: p.ID, Text: msg.Text}}
	case zygote.Loaded:
		return []fleet.Event{fleet.FloorLoaded{Proc: p.ID}}
	case zygote.Broken:
		return []fleet.Event{fleet.FloorBroken{Proc: p.ID, Text: msg.Text}}
	case zygote.Refused:
		return m.refused(msg)
	}
	return nil
}

// refused takes a floor's word that there will be no worker, if it is about the
// request that is outstanding.
func (m *master) refused(msg zygote.Message) []fleet.Event {
	p := m.request
	if p == nil || uint64(p.ID) != msg.ID {
		return nil
	}
	m.request = nil
	m.forget(p)
	return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: "fork: " + msg.Text}}
}
