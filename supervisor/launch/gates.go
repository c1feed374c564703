// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/procs"
)

// ReadGate reads one message of a process at its gate. What it leaves is there the next
// time.
func (l *Launcher) ReadGate(id fleet.Proc) []fleet.Event {
	said, _ := l.readGate(id)
	return said
}

// ReadRequests reads one message of each worker that a floor has been asked for.
func (l *Launcher) ReadRequests() (events []fleet.Event) {
	for _, floor := range slices.Sorted(maps.Keys(l.requests)) {
		for _, p := range slices.Clone(l.requests[floor]) {
			events = append(events, l.ReadGate(p.ID)...)
		}
	}
	return events
}

// readGate is ReadGate; more is false if there was no message.
func (l *Launcher) readGate(id fleet.Proc) (events []fleet.Event, more bool) {
	p := l.procs.Of(id)
	if p == nil || p.Birth.Gate < 0 {
		return nil, false
	}
	msg, err := gate.Receive(p.Birth.Gate)
	switch {
	case errors.Is(err, io.EOF):
		p.Birth.Refused = p.Birth.Refused || errors.Is(err, linux.ErrUnread) // as by a hook of the fork
		return l.leftGate(p), false
	case errors.Is(err, unix.EAGAIN):
		return nil, false
	case errors.Is(err, linux.ErrRights):
		return l.pushes(p), false
	case err != nil:
		l.log.Debug(fmt.Sprintf("%s: at its gate: %v", p.Name, err))
		return nil, true
	}
	switch msg := msg.(type) {
	case gate.Hello:
		return l.introduced(p, msg), true
	case gate.Failed:
		if p.Floor {
			return []fleet.Event{fleet.FloorBroken{Proc: p.ID, Text: msg.Text}}, true
		}
		p.Birth.Refused = true
		return []fleet.Event{fleet.CannotBecome{Proc: p.ID, Text: msg.Text}}, true
	}
	return nil, true
}

// leftGate: the other end of a gate was closed. Who has read that it is to go, and has not
// said that it cannot, has become what it was told, however soon it ends: whether its end
// is seen first is chance. No user code runs in between; who is killed there cannot be told
// from who is killed a moment later.
func (l *Launcher) leftGate(p *procs.Process) []fleet.Event {
	linux.CloseFD(&p.Birth.Gate)
	if p.PID == 0 {
		return l.stillborn(p, "the worker ended before it had introduced itself")
	}
	if !p.Birth.Assigned || p.Birth.Refused || p.Floor {
		return nil
	}
	return []fleet.Event{fleet.Running{Proc: p.ID}}
}

// pushes ends a process that sends descriptors at its gate: it does not keep to the
// protocol.
func (l *Launcher) pushes(p *procs.Process) []fleet.Event {
	const why = "it sends descriptors at its gate"
	l.errands.CloseSocket(l.gates, &p.Birth.Gate)
	if p.PID == 0 {
		return l.stillborn(p, why)
	}
	l.log.Warn(fmt.Sprintf("%s: %s; it is killed", p.Name, why), slog.Int("pid", p.PID))
	_ = p.Signal(unix.SIGKILL) // its end follows
	return nil
}
