// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

// Proc identifies a process from the request that makes it until it has been
// reaped. It is never used twice; 0 is no process.
type Proc uint64

// Event is something that happened. Every event but [Tick], [StopRequested],
// [Demand], [NoDemand], [Saturated], [Operate], [TaskOrdered], [Propose], [Cancel], [Examine] and
// [Inspect] is about one process; an event about a process that the fleet does not hold changes nothing.
type Event interface{ event() }

// The events.
type (
	// Tick says that time has passed.
	Tick struct{}

	// StopRequested asks the fleet to stop; the second one kills, or ends the delay of the
	// stop, and then the third kills. Why names the cause for the operator ("SIGTERM").
	StopRequested struct{ Why string }

	// FloorProgress is what a floor is doing while it loads.
	FloorProgress struct {
		Proc Proc
		Text string
	}

	// FloorLoaded says that a floor is ready to fork workers, so many at a time: 0 is one.
	FloorLoaded struct {
		Proc  Proc
		Forks int
	}

	// FloorBroken is the one-line cause of a floor that cannot be used.
	FloorBroken struct {
		Proc Proc
		Text string
	}

	// Introduced says that a process waits at its gate.
	Introduced struct {
		Proc Proc
		PID  int
	}

	// SpawnFailed says that there will be no process. Why is the cause.
	SpawnFailed struct {
		Proc Proc
		Why  string
	}

	// Unfit answers an Assign: the process has no orders and cannot be given any, because
	// somebody has stopped it, or it ends.
	Unfit struct {
		Proc Proc
		Why  string
	}

	// Running says that the process has left its gate: its entry is called or
	// its program executed.
	Running struct{ Proc Proc }

	// CannotBecome says why a process could not become what it was told; its end
	// follows.
	CannotBecome struct {
		Proc Proc
		Text string
	}

	// Notified is what a process says of itself, in the words of sd_notify(3).
	// One event may stand for several datagrams.
	Notified struct {
		Proc      Proc
		Ready     bool
		Reloading bool
		Stopping  bool
		Watchdog  bool
		Trigger   bool          // WATCHDOG=trigger
		Interval  time.Duration // WATCHDOG_USEC=; 0: not said
		Extend    time.Duration // EXTEND_TIMEOUT_USEC=; 0: not said
		HasStatus bool
		Status    string               // one line
		Errno     string               // ERRNO=, BUSERROR= or EXIT_STATUS=, for the operator
		Cause     string               // why it is about to end, in its own words: one short line, "" if it does not say
		Recycle   policy.RecycleReason // "", RecycleRequests or RecycleAsked
		HasLag    bool
		Lag       time.Duration // how late the loop of its tasks was
	}

	// TaskSaid is what a process says of one of its tasks: all of its state.
	TaskSaid struct {
		Proc     Proc
		Task     string
		State    State
		Result   policy.Result  // of its last end; "" before that
		Failures int            // in a row
		Next     policy.Instant // its next start, Never if there is none
		Reason   string         // of the state, one line
		Status   string         // what it says of itself, one line
	}

	// TaskFault is what a process says of a task that is wrong: it blocks the loop of all,
	// or goes on after its cancellation. Task is a word for what is at fault; it need not
	// be a task of the file.
	TaskFault struct {
		Proc   Proc
		Task   string
		Blocks bool
		Reason string // one line
		Code   Code
	}

	// TaskOrdered answers OrderTask. Why is the cause if the process was not told.
	TaskOrdered struct {
		ID  uint64
		Why string
	}

	// Exited says how the process ended. Left counts what it left behind; if it
	// is not 0, Swept follows when all of it is gone, by itself or by Kill.
	Exited struct {
		Proc  Proc
		Exit  policy.Exit
		OOM   bool // the kernel killed for memory in its cgroup
		Usage Usage
		Left  int
	}

	// Swept says that nothing is left of what a process left behind.
	Swept struct{ Proc Proc }

	// Demand says that a connection waits at the sockets of a worker. It answers
	// Watch, once, or PollSockets.
	Demand struct{ Worker WorkerID }

	// NoDemand answers PollSockets: no connection waits.
	NoDemand struct{ Worker WorkerID }

	// Saturated says at which sockets connections wait for longer than a moment now.
	Saturated struct{ At []Saturation }

	// Operate is what an operator wants of a slot. Who names the operator in the
	// log. Answered by Answer.
	Operate struct {
		ID   uint64
		Slot string // its name
		Call verb.Call
		Who  string
	}

	// Propose asks for a change: the fleet of Config, or of the one that there is. Answered
	// by Answer; what is accepted ends with an Outcome, and its revision with Commit or
	// Discard.
	Propose struct {
		ID       uint64
		Kind     ChangeKind
		Revision Revision // a new one
		Config   *policy.Config
		Fresh    bool          // of a restart: from a new floor
		Slots    []string      // of a restart without a Config: their names; none is all
		Scale    *policy.Scale // of a scale
		Reloads  bool          // the service manager is told, and waits
		Dry      bool          // only the plan is wanted: nothing is done
		Who      string
	}

	// Cancel ends the change that is under way, or waits. Answered by Answer.
	Cancel struct {
		ID  uint64
		Who string
	}

	// FreezeFailed says that a process could not be frozen, or thawed.
	FreezeFailed struct {
		Proc Proc
		Why  string
	}

	// Examine asks for a process that a floor forks to list its objects. Answered by
	// Answer, when that process runs.
	Examine struct {
		ID         uint64
		Generation int // of the floor
		Who        string
	}

	// StacksTaken answers TakeStacks: what there was to tell has been told.
	StacksTaken struct{ Proc Proc }

	// Measured answers Measure. Why says why that could not be done.
	Measured struct {
		Proc    Proc
		Private uint64 // bytes that the process has, and shares with no other
		Why     string
	}

	// Inspect asks for a Snapshot. It changes nothing. Answered by Show.
	Inspect struct{}
)

// Usage is what a process and its descendants have used. 0 is not known.
type Usage struct {
	MemoryPeak uint64 // bytes
	CPU        time.Duration
}

func (Tick) event()          {}
func (StopRequested) event() {}
func (FloorProgress) event() {}
func (FloorLoaded) event()   {}
func (FloorBroken) event()   {}
func (Introduced) event()    {}
func (SpawnFailed) event()   {}
func (Unfit) event()         {}
func (Running) event()       {}
func (CannotBecome) event()  {}
func (Notified) event()      {}
func (Exited) event()        {}
func (Swept) event()         {}
func (Demand) event()        {}
func (NoDemand) event()      {}
func (Saturated) event()     {}
func (Operate) event()       {}
func (Propose) event()       {}
func (Cancel) event()        {}
func (FreezeFailed) event()  {}
func (Examine) event()       {}
func (Measured) event()      {}
func (StacksTaken) event()   {}
func (TaskSaid) event()      {}
func (TaskFault) event()     {}
func (TaskOrdered) event()   {}
func (Inspect) event()       {}

// handle gives an event to the part that it is about. What is about a process that nobody
// has any more changes nothing.
func (f *Fleet) handle(now policy.Instant, ev Event) {
	switch ev := ev.(type) {
	case Tick:
	case StopRequested:
		f.stopRequested(now, ev.Why)
	case FloorProgress, FloorLoaded, FloorBroken:
		f.handleFloor(now, ev)
	case Introduced:
		f.introduced(now, ev)
	case SpawnFailed:
		f.spawnFailed(now, ev)
	case Unfit:
		if s := f.owners[ev.Proc]; s != nil {
			s.passOver(now, ev.Why)
		}
	case Exited:
		f.exited(now, ev)
	case Swept:
		f.swept(now, ev)
	case Demand:
		if w := f.demanding(ev.Worker); w != nil {
			w.demanded(now)
		}
	case NoDemand:
		if w := f.demanding(ev.Worker); w != nil {
			w.notDemanded()
		}
	case Saturated:
		f.waits = ev.At
	case Operate:
		f.operate(now, ev)
	case Propose:
		f.propose(now, ev)
	case Cancel:
		f.cancel(now, ev)
	case Examine:
		f.examine(now, ev)
	case Inspect:
		f.do(Show{f.snapshot(now)})
	case TaskOrdered:
		f.do(Answer{ID: ev.ID, Refusal: ev.Why})
	default:
		f.handleWords(now, ev)
	}
}

// handleWords gives what a slot's process has done or said to its slot.
func (f *Fleet) handleWords(now policy.Instant, ev Event) {
	switch ev := ev.(type) {
	case Running:
		if s := f.owners[ev.Proc]; s != nil {
			s.runs(now)
		}
		f.agenda.probe.runs(f, ev.Proc)
	case CannotBecome:
		if s := f.owners[ev.Proc]; s != nil {
			s.cannotBecome(ev.Text)
		}
		f.agenda.probe.cannotBecome(f, ev)
	case Notified:
		f.tell(ev.Proc, func(s *slot) { s.notified(now, ev) })
	case TaskSaid:
		f.tell(ev.Proc, func(s *slot) { s.taskSaid(now, ev) })
	case TaskFault:
		f.tell(ev.Proc, func(s *slot) { s.taskFault(now, ev) })
	case FreezeFailed:
		f.tell(ev.Proc, func(s *slot) { s.freezeFailed(now, ev.Why) })
	case Measured:
		f.tell(ev.Proc, func(s *slot) { s.measured(now, ev) })
	case StacksTaken:
		f.tell(ev.Proc, func(s *slot) { s.stacksTaken(now) })
	default:
		panic(fmt.Sprintf("fleet: unknown event %T", ev))
	}
}

// tell gives something to the slot that has a process, if one has it.
func (f *Fleet) tell(p Proc, word func(s *slot)) {
	if s := f.owners[p]; s != nil {
		word(s)
	}
}

// handleFloor gives what a floor says to it.
func (f *Fleet) handleFloor(now policy.Instant, ev Event) {
	for _, l := range f.floors {
		switch ev := ev.(type) {
		case FloorProgress:
			l.progressed(ev)
		case FloorLoaded:
			l.becameLoaded(now, ev)
		case FloorBroken:
			l.broke(now, ev)
		}
	}
}

// floorOf is the floor that a process is, or was asked to fork; nil if there is none.
func (f *Fleet) floorOf(p Proc) *floor {
	for _, l := range f.floors {
		if p != 0 && (l.proc == p || slices.Contains(l.pool.requests, p)) {
			return l
		}
	}
	return nil
}

func (f *Fleet) introduced(now policy.Instant, ev Introduced) {
	s, l := f.owners[ev.Proc], f.floorOf(ev.Proc)
	switch {
	case l != nil && ev.Proc != l.proc:
		l.pool.introduced(now, ev)
	case s != nil:
		s.introduced(now, ev)
	}
}

// spawnFailed: there is no process, or (after Assign) one that cannot become the slot and
// must end.
func (f *Fleet) spawnFailed(now policy.Instant, ev SpawnFailed) {
	s, l := f.owners[ev.Proc], f.floorOf(ev.Proc)
	switch {
	case l != nil && ev.Proc == l.proc:
		l.nextGeneration(now, ev.Why)
	case l != nil:
		l.pool.forkFailed(now, ev.Proc, ev.Why)
	case s != nil:
		s.spawnFailed(now, ev.Why)
	case f.agenda.probe.is(ev.Proc):
		f.agenda.probe.kill(now, f, ev.Why)
	}
}

// exited takes the end of any process of the fleet.
func (f *Fleet) exited(now policy.Instant, ev Exited) {
	s, l := f.owners[ev.Proc], f.floorOf(ev.Proc)
	switch {
	case l != nil && ev.Proc == l.proc:
		l.exited(now, ev)
	case l != nil:
		l.pool.forkFailed(now, ev.Proc, howItEnded(ev.Exit))
	case s != nil:
		s.exited(now, ev)
	case f.agenda.probe.is(ev.Proc):
		f.agenda.probe.end(f, howItEnded(ev.Exit))
	default:
		for _, l := range f.floors {
			l.pool.exited(now, ev)
		}
	}
}
