// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/envfile"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/rights"
	"github.com/decnet/prefork/supervisor/slots"
	"github.com/decnet/prefork/supervisor/zygote"
)

// floorOrders make the shim the interpreter of a floor.
func (m *master) floorOrders(generation int) *gate.Orders {
	floor := m.file.Floor
	return &gate.Orders{
		Fleet: m.file.Name, Slot: "floor", Generation: generation,
		User:        floor.User,
		DeathSignal: !m.manager.Managed(), Master: m.pid,
		OOMScoreAdjust: m.resetOOMScore(),
		Base:           m.base,
		// Workers inherit the variable: what is the same need not be set in each.
		Env:     append(list(floor.Env), "PREFORK_FLEET="+m.file.Name),
		Reserve: m.reserve(),
		Argv:    zygote.Argv(floor.Python, m.reserve()),
	}
}

// floorMessage tells the interpreter what to load.
func (m *master) floorMessage(generation int) zygote.Floor {
	floor := m.file.Floor
	msg := zygote.Floor{
		Fleet: m.file.Name, Generation: generation,
		Title:   fmt.Sprintf("prefork: floor [%s] gen %d", m.file.Name, generation),
		Path:    floor.Path,
		Preload: floor.Preload, Setup: floor.Setup,
		AllowThreads: floor.Threads == fleetfile.Allow,
		AllowFDs:     floor.FDs == fleetfile.Allow,
		GCFreeze:     floor.GCFreeze,
		Prctl:        !m.manager.Managed(),
	}
	for i := range m.file.Workers {
		w := &m.file.Workers[i]
		if w.Entry == "" {
			continue
		}
		msg.Entries = append(msg.Entries, w.Entry)
		msg.Prctl = msg.Prctl || w.NoNewPrivileges
	}
	return msg
}

// reserve is how many descriptors from 3 on a floor keeps free for its workers.
func (m *master) reserve() (most int) {
	for i := range m.file.Workers {
		if w := &m.file.Workers[i]; w.Entry != "" {
			most = max(most, len(m.sockets.Of(w.Sockets))+w.FDStoreMax)
		}
	}
	return most
}

// slotOrders make a process at its gate one slot. The descriptors, of which that
// of the output is not one, stay the master's.
func (m *master) slotOrders(p *procs.Process, s *slots.Slot, journal string) (*gate.Orders, []int, error) {
	w := s.Config
	o := *m.workerOrders(s.Worker)
	o.Slot, o.Index, o.Comm, o.Generation = s.Name, s.Index, s.Name, p.Generation
	p.Title = fmt.Sprintf("prefork: %s [%s] gen %d", s.Name, m.file.Name, p.Generation)
	o.Title = p.Title
	env, ignored, err := envfile.Read(w.EnvironmentFiles)
	if err != nil {
		return nil, nil, err
	}
	if w.Entry != "" {
		ignored = append(ignored, withoutEffect(env, append(list(m.file.Floor.Env), m.base...))...)
	}
	for _, line := range ignored {
		m.log.Warn(s.Name + ": environment_file: " + line)
	}
	o.Env = append(append(env, list(w.Environment)...),
		"PREFORK_FLEET="+m.file.Name,
		"PREFORK_WORKER="+w.Name,
		"PREFORK_SLOT="+s.Name,
		"PREFORK_INVOCATION_ID="+p.Invocation,
	)
	if path := s.NotifySocket(); path != "" {
		o.Env, o.Notify = append(o.Env, "NOTIFY_SOCKET="+path), path
	}
	if w.FDStoreMax > 0 {
		o.Env = append(o.Env, fmt.Sprintf("FDSTORE=%d", w.FDStoreMax))
	}
	if journal != "" {
		o.Env = append(o.Env, "JOURNAL_STREAM="+journal)
	}
	var fds []int
	for _, l := range m.sockets.Of(w.Sockets) {
		o.Listen = append(o.Listen, l.Name)
		fds = append(fds, l.FD)
	}
	names, stored := s.Stored()
	o.Stored = names
	return &o, append(fds, stored...), nil
}

// withoutEffect says of which variables an entry of a floor that has others is past.
func withoutEffect(env, floor []string) (lines []string) {
	for _, variable := range env {
		name, _, _ := strings.Cut(variable, "=")
		if fleetfile.Early(name) && !slices.Contains(floor, variable) {
			lines = append(lines, name+" has no effect in a worker that is forked: it is read before; write it into floor.env")
		}
	}
	return lines
}

// resetOOMScore lets a process be killed for memory before the master is: the
// unit protects that one, and every child inherits it.
func (m *master) resetOOMScore() *int {
	if m.oomScore < 0 {
		return new(0)
	}
	return nil
}

// workerOrders is the part of the orders that is the same for each start of a
// worker.
func (m *master) workerOrders(worker int) *gate.Orders {
	if o := m.prepared[worker]; o != nil {
		return o
	}
	w := &m.file.Workers[worker]
	o := &gate.Orders{
		Fleet: m.file.Name, Worker: w.Name,
		Dir: w.WorkingDirectory, User: w.User, Group: w.Group, ExtraGroups: w.SupplementaryGroups,
		Umask: w.Umask, Nice: w.Nice, NoNewPrivs: w.NoNewPrivileges,
		DeathSignal: !m.manager.Managed(), Master: m.pid,
	}
	for _, l := range w.Limits {
		o.Limits = append(o.Limits, gate.Limit{Resource: l.Resource, Soft: l.Soft, Hard: l.Hard})
	}
	if w.Entry == "" {
		o.Base, o.Argv, o.IgnoreSIGPIPE = m.base, w.Exec, w.IgnoreSIGPIPE
		o.Ambient, o.OOMScoreAdjust = rights.Ambient(w), m.resetOOMScore()
	} else {
		o.Entry, o.AfterFork = w.Entry, m.file.Floor.AfterFork
		o.Args, o.Kwargs = zygote.ListLiteral(w.Args), zygote.DictLiteral(w.Kwargs)
	}
	if w.OOMScoreAdjust != nil {
		o.OOMScoreAdjust = w.OOMScoreAdjust
	}
	if w.Policy.Watchdog > 0 && w.Policy.Watchdog != fleet.Forever {
		o.Watchdog = w.Policy.Watchdog
	}
	m.prepared[worker] = o
	return o
}

// newInvocation is fresh for each start, like systemd's INVOCATION_ID.
func newInvocation() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// list turns variables into NAME=VALUE, sorted.
func list(env map[string]string) []string {
	var kvs []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		kvs = append(kvs, name+"="+env[name])
	}
	return kvs
}
