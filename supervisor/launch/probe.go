// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/zygote"
)

// Probe has a process at its gate list the objects of the floor that it was forked from.
func (l *Launcher) Probe(id fleet.Proc) []fleet.Event {
	p := l.procs.Of(id)
	if p == nil {
		return nil // it ended in this turn; its end is an event
	}
	p.Name = "probe"
	if l.book.revisions.Current().File.Floor.Zygote != nil {
		return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: "floor.zygote is another program, which has no Python objects"}}
	}
	err := gate.Send(p.Birth.Gate, l.book.probeOrders(p))
	if err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) { // it has ended; that is the event
		return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: err.Error()}}
	}
	p.Birth.Assigned = true
	return nil
}

// maxOOMScoreAdjust has the kernel end a process first, when memory is short.
const maxOOMScoreAdjust = 1000

// probeOrders make a process none of the fleet's slots. It has the output of its floor.
func (b *book) probeOrders(p *procs.Process) *gate.Orders {
	name := b.revisions.Current().File.Name
	return &gate.Orders{
		Fleet: name, Slot: p.Name, Generation: p.Generation, Comm: "prefork-probe",
		Title:       fmt.Sprintf("prefork: probe [%s] gen %d", name, p.Generation),
		DeathSignal: !b.managed, Master: b.pid,
		OOMScoreAdjust: new(maxOOMScoreAdjust),
		Probe:          zygote.Probe,
	}
}
