// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/revisions"
	"github.com/decnet/prefork/supervisor/zygote"
)

// LoadFloor starts a zygote. The shim becomes the interpreter.
func (l *Launcher) LoadFloor(act fleet.LoadFloor) []fleet.Event {
	p := l.procs.Add(act.Proc)
	p.Floor, p.Birth.Assigned, p.Name, p.Generation = true, true, "floor", act.Generation
	if err := l.startZygote(p, l.book.revisions.Of(act.Revision), act.Generation); err != nil {
		return l.failed(p, err)
	}
	l.log.Info("floor: loading", slog.Int("pid", p.PID), slog.Int("gen", act.Generation))
	if program := l.book.revisions.Of(act.Revision).File.Floor.Zygote; program != nil {
		return []fleet.Event{fleet.FloorProgress{Proc: p.ID, Text: fmt.Sprintf("waiting for the first word of the zygote %q", program[0])}}
	}
	return nil
}

// StopFloor asks a floor to end: it does when its socket is closed.
func (l *Launcher) StopFloor(id fleet.Proc) {
	if p := l.procs.Of(id); p != nil {
		l.errands.CloseSocket(l.commands, &p.Birth.Command)
	}
}

func (l *Launcher) startZygote(p *procs.Process, r *revisions.Revision, generation int) error {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	p.Birth.Command = ours
	defer linux.CloseFD(&theirs)
	fds := []int{theirs}
	if r.File.Floor.Zygote == nil {
		source, err := linux.Memfd("prefork-zygote", zygote.Source())
		if err != nil {
			return err
		}
		defer linux.CloseFD(&source)
		fds = append(fds, source)
	}
	if p.Group, err = l.groups.TakeFloor(generation); err != nil {
		return err
	}
	if err := l.startShim(p); err != nil {
		return err
	}
	if err := l.commands.Add(p.Birth.Command, uint64(p.ID)); err != nil {
		return err
	}
	orders := l.book.floorOrders(r, generation)
	to, err := l.outputs.For(output.Author{Name: p.Name, PID: p.PID})
	if err != nil {
		return err
	}
	if to.Journal != "" {
		orders.Env = append(orders.Env, "JOURNAL_STREAM="+to.Journal)
	}
	if err := l.sendTo(p, orders, to, fds); err != nil {
		return err
	}
	return linux.Send(p.Birth.Command, l.book.floorMessage(r, generation).Encode())
}

// ReadFloor reads one message of a floor. What it leaves is there the next time.
func (l *Launcher) ReadFloor(id fleet.Proc) []fleet.Event {
	said, _ := l.readFloor(id)
	return said
}

// readFloor is ReadFloor; more is false if there was no message.
func (l *Launcher) readFloor(id fleet.Proc) (events []fleet.Event, more bool) {
	p := l.procs.Of(id)
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
			l.log.Warn(fmt.Sprintf("floor: %v; its socket is closed", err), slog.Int("pid", p.PID))
		}
		l.errands.CloseSocket(l.commands, &p.Birth.Command)
		return nil, false
	}
	return l.floorSaid(p, buf[:n]), true
}

func (l *Launcher) floorSaid(p *procs.Process, text []byte) []fleet.Event {
	msg, err := zygote.Decode(text)
	if err != nil {
		return []fleet.Event{fleet.FloorBroken{Proc: p.ID, Text: err.Error()}}
	}
	switch msg.Kind {
	case zygote.Progress:
		l.log.Debug("floor: " + msg.Text)
		return []fleet.Event{fleet.FloorProgress{Proc: p.ID, Text: msg.Text}}
	case zygote.Loaded:
		if msg.Protocol != zygote.Protocol {
			return []fleet.Event{fleet.FloorBroken{Proc: p.ID, Text: fmt.Sprintf(
				"the zygote speaks protocol %d, this prefork %d; set floor.zygote to one that speaks it", msg.Protocol, zygote.Protocol)}}
		}
		p.Stacks = unix.Signal(msg.Stacks)
		return []fleet.Event{fleet.FloorLoaded{Proc: p.ID, Forks: min(msg.Forks, mostForks)}}
	case zygote.Broken:
		return []fleet.Event{fleet.FloorBroken{Proc: p.ID, Text: msg.Text}}
	case zygote.Refused:
		return l.refused(p.ID, msg)
	}
	return nil
}

// mostForks is how many workers a floor is asked for at a time, however many it takes: the
// first waits for the last. Each takes two descriptors, of which a message has room for 253
// (SCM_MAX_FD), and the kernel counts them (RLIMIT_NOFILE, unix(7)).
const mostForks = 16

// refused takes a floor's word that there will be no worker, if it is about what that
// floor has been asked for.
func (l *Launcher) refused(floor fleet.Proc, msg zygote.Message) []fleet.Event {
	i := slices.IndexFunc(l.requests[floor], func(p *procs.Process) bool { return uint64(p.ID) == msg.ID })
	if i < 0 {
		return nil
	}
	p := l.requests[floor][i]
	l.answered(p)
	l.forget(p)
	return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: "fork: " + msg.Text}}
}
