// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

// Action is something to be done now. The outcome, where there is one, comes
// back as an event.
type Action interface{ action() }

// The actions.
type (
	// LoadFloor starts a process that loads the floor. Answered by
	// FloorProgress, FloorLoaded, FloorBroken, SpawnFailed and Exited.
	LoadFloor struct {
		Proc       Proc
		Generation int
		Revision   Revision
	}

	// StopFloor asks the floor's process to end, by closing its socket.
	StopFloor struct{ Proc Proc }

	// Fork asks a loaded floor for a process at its gate. With More it is asked together
	// with the next one. Answered by Introduced or SpawnFailed.
	Fork struct {
		Proc, Floor Proc
		More        bool
	}

	// Abandon forgets a request that was not answered in time: should the
	// process still come, it finds its gate closed.
	Abandon struct{ Proc Proc }

	// StartShim starts a process at its gate that will execute the program of
	// the slot. Answered by Introduced or SpawnFailed.
	StartShim struct {
		Proc Proc
		Slot SlotID
	}

	// Assign makes a process at its gate become the slot. Answered by Running,
	// CannotBecome, SpawnFailed, Unfit or Exited. Count is how many slots its worker has.
	Assign struct {
		Proc  Proc
		Slot  SlotID
		Count int
	}

	// Probe makes a process at its gate list the objects of the floor that it was forked
	// from. Answered by Running, CannotBecome, SpawnFailed or Exited.
	Probe struct{ Proc Proc }

	// Kill sends a signal to a process; with All also to what came from it, which
	// is all that is there once the process has ended.
	Kill struct {
		Proc   Proc
		Signal policy.Signal
		All    bool
	}

	// Freeze keeps a process, and all of its control group, from running; or
	// lets it run again. Answered by FreezeFailed if that cannot be done.
	Freeze struct {
		Proc   Proc
		Frozen bool
	}

	// TakeStacks has a process write where its threads are; of one that does not, what
	// the kernel knows of it is told. Answered by StacksTaken, if it does not.
	TakeStacks struct{ Proc Proc }

	// OrderTask tells a process what to do with one of its tasks: to start, to stop or to
	// restart it. Answered by TaskOrdered.
	OrderTask struct {
		ID   uint64 // of the Operate
		Proc Proc
		Verb verb.Name
		Task string
		Why  string
	}

	// Watch asks for one Demand, when a connection waits at the sockets of a
	// worker. Unwatch takes that back.
	Watch   struct{ Worker WorkerID }
	Unwatch struct{ Worker WorkerID }

	// PollSockets asks whether a connection waits at the sockets of a worker now.
	// Answered by Demand or NoDemand.
	PollSockets struct{ Worker WorkerID }

	// Measure asks how much memory a slot's process has of its own. Answered by
	// Measured.
	Measure struct{ Proc Proc }

	// Ready tells the service manager that the fleet is ready.
	Ready struct{}

	// Draining tells the service manager that the fleet is to stop, and serves until then;
	// Stopping that it stops.
	Draining struct{}
	Stopping struct{}

	// Status tells the service manager and the operator how the fleet is.
	Status struct{ Text string }

	// Extend asks the service manager for this much more time.
	Extend struct{ By time.Duration }

	// Ping tells the service manager's watchdog that the loop turns.
	Ping struct{}

	// Report is a line for the log: what happened, why, and what comes next.
	Report struct {
		Level      Level
		Kind       Kind   // "" if it is of no kind that is told apart
		Slot       string // "" if it is not about a slot
		Task       string // "" if it is not about one of the slot's tasks
		PID        int    // 0 if there is none
		Generation int
		Text       string
		End        End  // of the slot's last process, or of the task
		Code       Code // where the task is
	}

	// Answer answers an Operate, Propose, Cancel or Examine: Refusal says why nothing is
	// done; "" is yes. Change is that which has been proposed, and Plan what it does, as far
	// as that is known: another change may be under way. PID is the process that examines a
	// floor.
	Answer struct {
		ID      uint64
		Refusal string
		Change  ChangeID
		Plan    *policy.Plan
		PID     int
	}

	// OpenSlot says that there is one more slot, which may take the place of another of
	// its name. CloseSlot says that nothing is left of one.
	OpenSlot  struct{ Info SlotInfo }
	CloseSlot struct{ Slot SlotID }

	// LimitSlot sets what a slot's process may use to what the fleet says now.
	LimitSlot struct {
		Proc Proc
		Slot SlotID
	}

	// Commit says that the fleet is that of a revision; Slots are those that stay, of
	// which some were born with the revision before. Discard says that one will not be.
	Commit struct {
		Revision Revision
		Slots    []SlotID
	}
	Discard struct{ Revision Revision }

	// Reloading tells the service manager that the fleet reloads; Ready follows.
	Reloading struct{}

	// Outcome says what has become of a change.
	Outcome struct {
		Change ChangeID
		Kind   ChangeKind
		Result string // ChangeDone, for example
		Text   string
	}

	// Show answers an Inspect.
	Show struct{ Snapshot Snapshot }

	// Quit ends the master: nothing of the fleet is left. It is the last action.
	Quit struct {
		Code int
		Why  string
	}
)

func (LoadFloor) action()   {}
func (StopFloor) action()   {}
func (Fork) action()        {}
func (Abandon) action()     {}
func (StartShim) action()   {}
func (Assign) action()      {}
func (Probe) action()       {}
func (Kill) action()        {}
func (TakeStacks) action()  {}
func (Freeze) action()      {}
func (OrderTask) action()   {}
func (Watch) action()       {}
func (Unwatch) action()     {}
func (PollSockets) action() {}
func (Measure) action()     {}
func (Ready) action()       {}
func (Draining) action()    {}
func (Stopping) action()    {}
func (Status) action()      {}
func (Extend) action()      {}
func (Ping) action()        {}
func (Report) action()      {}
func (Answer) action()      {}
func (OpenSlot) action()    {}
func (CloseSlot) action()   {}
func (LimitSlot) action()   {}
func (Commit) action()      {}
func (Discard) action()     {}
func (Reloading) action()   {}
func (Outcome) action()     {}
func (Show) action()        {}
func (Quit) action()        {}

// End is how the last process of a slot ended and what follows from it. Result
// is "" before the end.
type End struct {
	Result   policy.Result
	Exit     policy.Exit // if Result is not that of a process that never was
	Usage    Usage
	Failures int           // in a row
	Delay    time.Duration // before the next start, if there is one
}

// Code is a place in the user's program; the zero Code is none.
type Code struct {
	File string
	Line int
	Func string
}

// Kind tells reports apart that an operator may want to find, count or be
// alarmed by. The catalog of the journal explains each.
type Kind string

// The kinds of reports.
const (
	KindFleetReady      Kind = "fleet-ready"
	KindFleetDegraded   Kind = "fleet-degraded"  // ready by its timeout only
	KindSocketUnserved  Kind = "socket-unserved" // its last slot has finished or failed
	KindFleetDrains     Kind = "fleet-drains"    // is to stop, and serves until then
	KindFleetStops      Kind = "fleet-stops"
	KindFleetFails      Kind = "fleet-fails"
	KindFloorLoaded     Kind = "floor-loaded"
	KindFloorLost       Kind = "floor-lost"
	KindSpareFailed     Kind = "spare-failed"
	KindOverslept       Kind = "overslept"
	KindChangeBegins    Kind = "change-begins"
	KindChangeDone      Kind = "change-done"
	KindChangeFailed    Kind = "change-failed" // or cancelled, or superseded
	KindSlotReplaced    Kind = "slot-replaced" // by its successor
	KindSlotRecycled    Kind = "slot-recycled"
	KindSlotNotRecycled Kind = "slot-not-recycled" // its successor failed
	KindSlotReady       Kind = "slot-ready"
	KindSlotListens     Kind = "slot-listens"
	KindSlotExited      Kind = "slot-exited"   // finished, will not restart
	KindSlotRestarts    Kind = "slot-restarts" // ended, will start again
	KindSlotOOMKilled   Kind = "slot-oom-killed"
	KindSlotFailed      Kind = "slot-failed" // gave up
	KindSlotStops       Kind = "slot-stops"
	KindSlotTimeout     Kind = "slot-timeout" // did not start in time, or not end
	KindSlotWatchdog    Kind = "slot-watchdog"
	KindSlotLeft        Kind = "slot-left"  // left processes behind
	KindSlotStuck       Kind = "slot-stuck" // does not end from SIGKILL
	KindTaskReady       Kind = "task-ready"
	KindTaskExited      Kind = "task-exited"   // finished, will not restart
	KindTaskRestarts    Kind = "task-restarts" // ended, will start again
	KindTaskFailed      Kind = "task-failed"   // gave up
	KindTaskLate        Kind = "task-late"     // goes on after its cancellation
	KindLoopBlocked     Kind = "loop-blocked"  // by a task, for all others
)

// Level is the priority of a report, as in syslog(3).
type Level int

// The levels that the core uses.
const (
	Err     Level = 3
	Warning Level = 4
	Notice  Level = 5
	Info    Level = 6
	Debug   Level = 7
)
