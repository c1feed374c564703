// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import "time"

// MaxSlots is how many slots a fleet can have.
const MaxSlots = 10000

// Config is all that the state machine needs to know: of a fleet file, and of the host.
type Config struct {
	Workers      []Worker
	ReadyWhen    ReadyWhen
	TimeoutStart time.Duration // of the whole fleet, and of each later floor; 0 or Forever: none
	Spares       int
	Descriptors  int // that a floor keeps free for its workers
	Sockets      []Socket

	Keys      []Key // of the top of the file
	FloorKeys []Key

	Host
}

// Host is what does not come from the fleet file.
type Host struct {
	StopAfter time.Duration // stop by itself after this long; 0: never
	PingEvery time.Duration // Ping for the watchdog this often; 0: never
	Extend    bool          // the service manager wants Extend while the fleet starts, reloads and stops
	Freezer   bool          // slots have control groups, so that they can be frozen
	Seed      uint64        // of the jitter
}

// Worker is one worker of a Config.
type Worker struct {
	Name     string
	Count    int
	Scaled   bool // Count is not what the file says, but what an operator wants
	InFile   int  // if Scaled, what the file says
	Entry    bool // forked from the floor; else started through the shim
	OnDemand bool // no process until a connection waits at its sockets
	Sockets  []string
	Tasks    []string // the names of those that share its process; none: it is not of tasks
	Policy   Policy
	Roll     Rolling
	Recycle  Recycling
	Keys     []Key
}

// Order is which of the two processes of a slot comes first when one replaces the other.
type Order string

// The orders.
const (
	StartFirst Order = "start-first" // the successor is ready before its predecessor is asked to stop
	StopFirst  Order = "stop-first"  // there are never two of them
)

// Rolling says how the processes of a worker are replaced.
type Rolling struct {
	Order          Order
	MaxUnavailable int           // slots that are replaced at the same time; 0 is 1
	Settle         time.Duration // a successor counts when it has been ready for this long
}
