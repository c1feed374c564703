// SPDX-License-Identifier: AGPL-3.0-or-later

package policy

import "time"

// MaxSlots is how many slots a fleet can have.
const MaxSlots = 10000

// Config is all that the state machine needs to know: of a fleet file, and of the host.
type Config struct {
	Called       string // what commands take for the fleet: its name, or the path of its file
	Workers      []Worker
	ReadyWhen    ReadyWhen
	TimeoutStart time.Duration // of the whole fleet, and of each later floor; 0 or Forever: none
	StopDelay    time.Duration // that it serves on when it is asked to stop
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
	Oneshot  bool // never ready: it has done its work when it has exited well
	OnDemand bool // no process until a connection waits at its sockets
	Counted  bool // its processes are told Count in their values: another one makes others of them
	Sockets  []string
	Needed   bool     // the fleet is ready only while one of its slots serves
	After    []string // workers that are ready before it starts; there is no circle
	Tasks    []string // the names of those that share its process; none: it is not of tasks
	Policy   Policy
	Roll     Rolling
	Recycle  Recycling
	Vital    Vital
	Keys     []Key
}

// EndAction is systemd's FailureAction= and SuccessAction= (systemd.unit(5)): what follows
// when something has ended for good.
type EndAction string

// The values of EndAction.
const (
	EndNone EndAction = "none" // the rest goes on
	EndExit EndAction = "exit" // the whole that it is part of ends: of a slot the fleet, of a task its process
)

// Vital says which ends of the slots of a worker end the fleet. "" is EndNone.
type Vital struct {
	FailureAction EndAction // of one that has failed for good
	SuccessAction EndAction // of one that has finished by itself
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

// ReadyWhen says when a fleet is ready: all slots, the floor, or N slots.
type ReadyWhen struct {
	Floor bool // the floor is loaded; N is not used
	N     int  // so many slots; 0: all of them
}

// Recycling says when the processes of a worker are recycled. 0 is never.
type Recycling struct {
	After    time.Duration // they have been ready for so long, or up to 10 % longer
	Private  uint64        // bytes that they have and share with no other process
	Requests int           // that they count themselves
}

// RecycleReason is why a slot is recycled.
type RecycleReason string

// The reasons.
const (
	RecyclePrivate  RecycleReason = "private"  // recycle_private
	RecycleAge      RecycleReason = "age"      // recycle_after
	RecycleRequests RecycleReason = "requests" // recycle_requests
	RecycleAsked    RecycleReason = "asked"    // its process has asked for it
)

// RecycleReasons are all of them.
var RecycleReasons = [...]RecycleReason{RecyclePrivate, RecycleAge, RecycleRequests, RecycleAsked}

// MinRecycleAge is how long a process is ready at the least before it is recycled, whatever
// it says and however large it is.
const MinRecycleAge = 10 * time.Second
