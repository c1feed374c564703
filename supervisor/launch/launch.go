// SPDX-License-Identifier: AGPL-3.0-or-later

// Package launch brings processes into the world: shims, floors, and the workers that
// are forked from one. Each waits at its gate (package gate) until it is told what to
// become.
//
//	StartShim ──> shim at its gate ──────────┐
//	LoadFloor ──> shim ──> the interpreter   ├──> Assign: limits, orders, output,
//	Fork ──> floor ──> "hello" at a gate ────┘    sockets ──> the gate closes: Running
//	                        └─────────────> Probe: no slot, lists its floor's objects
//
// What is open for a birth, the gate and a floor's command socket (procs.Birth), is
// this room's: it reads them, and closes them when the process has become what it was
// told, or has ended ([Launcher.Drain]).
package launch

import (
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/errands"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/revisions"
)

// Config is what a launcher works with.
type Config struct {
	Revisions *revisions.Table
	Managed   bool // systemd ends what is left if this process dies
	OOMScore  int  // oom_score_adj of this process
	Log       *output.Log
	Outputs   *output.Outputs
	Groups    *cgroup.Pool
	Procs     *procs.Table
	Errands   *errands.Pool

	Gates    poll.Source // reports by fleet.Proc: [Launcher.ReadGate]
	Commands poll.Source // of floors, by fleet.Proc: [Launcher.ReadFloor]
}

// Launcher makes the processes of a fleet. Only the loop calls its methods, none of
// which blocks.
type Launcher struct {
	log           *output.Log
	outputs       *output.Outputs
	groups        *cgroup.Pool
	procs         *procs.Table
	errands       *errands.Pool
	gates         poll.Source
	commands      poll.Source
	book          *book
	reader        *reader
	devNull       int
	requests      map[fleet.Proc][]*procs.Process // that floors have been asked for
	together      []asked                         // that a floor is about to be asked for
	prepared      fleet.Proc                      // the shim that no slot has asked for; 0: there is none
	lastPrepared  fleet.Proc
	wantsPrepared bool
}

// New opens what each birth needs. Its owner closes it.
func New(c Config) (*Launcher, error) {
	l := &Launcher{
		log: c.Log, outputs: c.Outputs, groups: c.Groups, procs: c.Procs, errands: c.Errands,
		gates: c.Gates, commands: c.Commands, book: newBook(c), reader: newReader(c.Errands),
		requests: map[fleet.Proc][]*procs.Process{},
	}
	var err error
	if l.devNull, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	return l, nil
}

// Close closes what was open for each birth. Processes stay.
func (l *Launcher) Close() { linux.CloseFD(&l.devNull) }

// Flush ends a turn: what may wait is done.
func (l *Launcher) Flush() { l.prepareShim() }

// Stopping ends what a fleet that stops does not need any more.
func (l *Launcher) Stopping() { l.dropShim() }

// Drain reads all that a process said before it ended: that it has become its slot, or why
// it was not able to, or what is wrong with the floor. It closes what was open for its birth.
func (l *Launcher) Drain(p *procs.Process) (events []fleet.Event) {
	for _, readable := range []func(fleet.Proc) ([]fleet.Event, bool){l.readGate, l.readFloor} {
		more := true
		for n := 0; more && n < maxLastWords; n++ {
			var said []fleet.Event
			said, more = readable(p.ID)
			for _, ev := range said {
				switch ev.(type) {
				case fleet.Running, fleet.CannotBecome, fleet.FloorBroken, fleet.FloorProgress:
					events = append(events, ev)
				}
			}
		}
	}
	l.answered(p)
	l.closeBirth(p)
	return events
}

// maxLastWords bounds what is read: a copy that the process made of itself may
// still hold its socket, and talk without end.
const maxLastWords = 64

// Abandon forgets a request. The worker, should it come, finds its gate closed
// and ends; it is then reaped as an orphan.
func (l *Launcher) Abandon(id fleet.Proc) {
	if p := l.procs.Of(id); p != nil {
		l.answered(p)
		l.forget(p)
	}
}

// forget ends a process that never was.
func (l *Launcher) forget(p *procs.Process) {
	l.closeBirth(p)
	l.procs.Forget(p)
}

// closeBirth closes what was open for the birth of a process.
func (l *Launcher) closeBirth(p *procs.Process) {
	l.errands.CloseSocket(l.gates, &p.Birth.Gate)
	l.errands.CloseSocket(l.commands, &p.Birth.Command)
	linux.CloseFD(&p.Birth.Tasks)
	l.gaveUp(p.ID)
	if p.ID == l.prepared {
		l.prepared, l.wantsPrepared = 0, false
	}
}

// failed is the end of a birth for which something is missing.
func (l *Launcher) failed(p *procs.Process, err error) []fleet.Event {
	if p.PID != 0 {
		l.log.Error(fmt.Sprintf("%s: %v", p.Name, err), slog.Int("pid", p.PID))
		_ = p.Signal(unix.SIGKILL) // it is of no use; its end follows
		return nil
	}
	l.forget(p)
	return []fleet.Event{fleet.SpawnFailed{Proc: p.ID, Why: err.Error()}}
}
