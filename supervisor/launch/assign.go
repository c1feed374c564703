// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/rights"
	"github.com/decnet/prefork/supervisor/slots"
)

// Assign lets a process at its gate become a slot, one of so many. One whose environment
// files are to be read waits for them there ([Launcher.Resume]).
func (l *Launcher) Assign(id fleet.Proc, s *slots.Slot, count int) []fleet.Event {
	p := l.procs.Of(id)
	if p == nil {
		return nil // it ended in this turn; its end is an event
	}
	if why := p.Unfit(); why != "" && p.Generation > 0 {
		return []fleet.Event{fleet.Unfit{Proc: id, Why: why}}
	}
	p.Name, p.Invocation, p.Birth.Count = s.Name, newInvocation(), count
	s.Assign(p)
	if len(s.Config.EnvironmentFiles) > 0 {
		l.reader.read(id, s)
		return nil
	}
	return l.send(p, s, nil)
}

// send sends a process its orders, with what its environment files hold.
func (l *Launcher) send(p *procs.Process, s *slots.Slot, env []string) []fleet.Event {
	if err := l.sendOrders(p, s, env); err != nil {
		return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: err.Error()}}
	}
	p.Birth.Assigned = true
	return nil
}

func (l *Launcher) sendOrders(p *procs.Process, s *slots.Slot, env []string) error {
	if err := cmp.Or(s.Broken(), limit(p, s)); err != nil {
		return err
	}
	if err := preset(p, s.Config); err != nil {
		return err
	}
	// Who has to change its user gives its socket away by itself, while it may.
	if s.NotifySocket() != "" && s.Config.Forked() && p.Birth.UID != l.book.uid {
		if err := s.GiveNotifySocket(p.Birth.UID); err != nil {
			return err
		}
	}
	to, err := l.outputs.For(output.Author{Name: s.Name, Worker: s.Config.Name, PID: p.PID})
	if err != nil {
		return err
	}
	orders, fds := l.book.slotOrders(p, s, env, to.Journal)
	if orders.Tasks != "" {
		ours, theirs, err := linux.OneWay()
		if err != nil {
			to.Close()
			return err
		}
		defer linux.CloseFD(&theirs) // the message holds its own
		p.Birth.Tasks, fds = ours, append(fds, theirs)
	}
	err = l.sendTo(p, orders, to, fds)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil // it has ended; that is the event
	}
	return err
}

// OrderTask tells a worker what to do with one of its tasks. It does not block: a worker
// that does not read is an error.
func (l *Launcher) OrderTask(act fleet.OrderTask) error {
	p := l.procs.Of(act.Proc)
	if p == nil || p.Birth.Tasks < 0 {
		return errors.New("its process has ended")
	}
	err := linux.Send(p.Birth.Tasks, []byte(strings.Join([]string{string(act.Verb), act.Task, act.Why}, "\x00")))
	switch {
	case errors.Is(err, unix.EAGAIN):
		return errors.New("its process does not read its orders: is its loop blocked?")
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return errors.New("its process does not take orders any more")
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

// sendTo tells a process at its gate what it is, and where its output goes.
func (l *Launcher) sendTo(p *procs.Process, o *gate.Orders, to output.Output, fds []int) error {
	defer to.Close()
	o.Stdout, o.Stderr = to.Stdout >= 0, to.Stderr >= 0
	if o.Stderr {
		fds = slices.Insert(fds, 0, to.Stderr)
	}
	if o.Stdout {
		fds = slices.Insert(fds, 0, to.Stdout)
	}
	return gate.Send(p.Birth.Gate, o, fds...)
}

// preset gives a forked worker what only a capability of the master can: what is
// forked from a floor has none for itself. The process is at its gate, and finds that
// it has been given already what it then asks for.
func preset(p *procs.Process, w *fleetfile.Worker) error {
	if !w.Forked() || os.Geteuid() == 0 { // who is root can do it itself, before it is another
		return nil
	}
	if w.Nice != nil {
		if err := unix.Setpriority(unix.PRIO_PROCESS, p.PID, *w.Nice); err != nil {
			return fmt.Errorf("nice %d: %w", *w.Nice, err)
		}
	}
	if w.OOMScoreAdjust != nil {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.PID), []byte(strconv.Itoa(*w.OOMScoreAdjust)), 0); err != nil {
			return err
		}
	}
	for _, l := range w.Limits {
		if err := unix.Prlimit(p.PID, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
	}
	return nil
}
