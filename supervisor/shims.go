// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/procs"
)

// A fleet with programs keeps one shim at its gate that no slot has asked for: a
// program that is started again waits neither for this one to load nor for a
// control group to be entered. It has run no user code and can become any slot.

// preparedIDs are above those of the state machine, which hears of a prepared
// shim only when a slot asks for one.
const preparedIDs = fleet.Proc(1) << 55

// hasPrograms tells whether some worker is a program.
func hasPrograms(file *fleetfile.Fleet) bool {
	return slices.ContainsFunc(file.Workers, func(w fleetfile.Worker) bool { return len(w.Exec) > 0 && w.Count > 0 })
}

// prepareShim starts the next one, between turns. One that ended unused is not
// replaced before a slot could start: whatever ended it would end the next.
func (m *master) prepareShim() {
	if !m.wantShim || m.shim != nil {
		return
	}
	m.lastShim++
	p := m.procs.Add(preparedIDs + m.lastShim)
	p.Name = "spare shim"
	if err := m.newShim(p); err != nil {
		m.spawnFailed(p, err) // who needs one will start its own
		m.wantShim = false
		return
	}
	m.shim = p
}

// takeShim gives the prepared shim, if there is one, its place in the table.
func (m *master) takeShim(id fleet.Proc) *procs.Process {
	p := m.shim
	m.shim, m.wantShim = nil, hasPrograms(m.file)
	if p == nil {
		return nil
	}
	if m.poller.Source(gates).Rename(p.Birth.Gate, uint64(id)) != nil || m.procs.Rename(p, id) != nil {
		_ = p.Signal(unix.SIGKILL) // it is of no use; its end follows
		return nil
	}
	return p
}

// dropShim ends the prepared shim of a fleet that stops.
func (m *master) dropShim() {
	m.wantShim = false
	if m.shim != nil {
		linux.CloseFD(&m.shim.Birth.Gate)
		m.shim = nil
	}
}
