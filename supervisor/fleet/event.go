// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

// Proc identifies a process from the request that makes it until it has been
// reaped. It is never used twice; 0 is no process.
type Proc uint64

// Event is something that happened. Every event but [Tick] and [StopRequested]
// is about one process; an event about a process that the fleet does not hold
// changes nothing.
type Event interface{ event() }

// The events.
type (
	// Tick says that time has passed.
	Tick struct{}

	// StopRequested asks the fleet to stop; the second one kills. Why names the
	// cause for the operator ("SIGTERM").
	StopRequested struct{ Why string }

	// FloorProgress is what a floor is doing while it loads.
	FloorProgress struct {
		Proc Proc
		Text string
	}

	// FloorLoaded says that a floor is ready to fork workers.
	FloorLoaded struct{ Proc Proc }

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

	// Running says that the process has left its gate: its entry is called or
	// its program executed.
	Running struct{ Proc Proc }

	// Refused says why a process could not become what it was told; its end
	// follows.
	Refused struct {
		Proc Proc
		Text string
	}

	// Exited says how the process ended. Left counts what it left behind and
	// has been killed; if it is not 0, Swept follows when all of it is gone.
	Exited struct {
		Proc Proc
		Exit Exit
		Left int
	}

	// Swept says that nothing is left of what a process left behind.
	Swept struct{ Proc Proc }
)

func (Tick) event()          {}
func (StopRequested) event() {}
func (FloorProgress) event() {}
func (FloorLoaded) event()   {}
func (FloorBroken) event()   {}
func (Introduced) event()    {}
func (SpawnFailed) event()   {}
func (Running) event()       {}
func (Refused) event()       {}
func (Exited) event()        {}
func (Swept) event()         {}
