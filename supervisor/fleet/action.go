// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import "time"

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
	}

	// StopFloor asks the floor's process to end, by closing its socket.
	StopFloor struct{ Proc Proc }

	// Fork asks a loaded floor for a process at its gate. Answered by
	// Introduced or SpawnFailed.
	Fork struct{ Proc, Floor Proc }

	// Abandon forgets a request that was not answered in time: should the
	// process still come, it finds its gate closed.
	Abandon struct{ Proc Proc }

	// StartShim starts a process at its gate that will execute the program of
	// the slot. Answered by Introduced or SpawnFailed.
	StartShim struct {
		Proc Proc
		Slot SlotID
	}

	// Go tells a process at its gate to become the slot. Answered by Running,
	// Refused, SpawnFailed or Exited.
	Go struct {
		Proc Proc
		Slot SlotID
	}

	// Kill sends a signal to a process.
	Kill struct {
		Proc   Proc
		Signal Signal
	}

	// Ready tells the service manager that the fleet is ready.
	Ready struct{}

	// Stopping tells the service manager that the fleet stops.
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
		Slot       string // "" if it is not about a slot
		PID        int    // 0 if there is none
		Generation int
		Text       string
	}

	// Quit ends the master: nothing of the fleet is left. It is the last action.
	Quit struct {
		Code int
		Why  string
	}
)

func (LoadFloor) action() {}
func (StopFloor) action() {}
func (Fork) action()      {}
func (Abandon) action()   {}
func (StartShim) action() {}
func (Go) action()        {}
func (Kill) action()      {}
func (Ready) action()     {}
func (Stopping) action()  {}
func (Status) action()    {}
func (Extend) action()    {}
func (Ping) action()      {}
func (Report) action()    {}
func (Quit) action()      {}

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
