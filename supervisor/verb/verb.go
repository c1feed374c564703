// SPDX-License-Identifier: AGPL-3.0-or-later

// Package verb is the one list of what operators can do to a slot. A row of it is a
// command, a method of the slot's object on the bus, and what the state machine carries
// out.
package verb

import (
	"fmt"
	"slices"
	"strings"
)

// Name is the name of a verb, and of its command.
type Name string

// The verbs.
const (
	Start   Name = "start"   // now, if it does not run
	Stop    Name = "stop"    // and let it be until it is started
	Restart Name = "restart" // end its process and start the next at once
	Reset   Name = "reset"   // forget its failures; what waits or gave up starts now
	Kill    Name = "kill"    // send its process a signal
	Freeze  Name = "freeze"  // keep its processes from running; nothing is held against them
	Thaw    Name = "thaw"    // let them run again
	Stacks  Name = "stacks"  // have its process write where its threads are
)

// All are the verbs, in the order in which they are shown.
var All = []Name{Start, Stop, Restart, Reset, Kill, Freeze, Thaw, Stacks}

// maxSignal is that of Linux (signal(7)).
const maxSignal = 64

// Member is the name of the method on the bus: "Start".
func (n Name) Member() string { return strings.ToUpper(string(n[:1])) + string(n[1:]) }

// Moves reports whether the verb changes what becomes of the slot: one that a change of the
// fleet is about must wait for its end.
func (n Name) Moves() bool { return n != Kill && n != Stacks }

// TakesSignal reports whether the verb has a signal for its argument.
func (n Name) TakesSignal() bool { return n == Kill }

// TakesTask reports whether the verb can be about one task of a slot.
func (n Name) TakesTask() bool { return n == Start || n == Stop || n == Restart }

// Call is a verb with its arguments.
type Call struct {
	Name   Name
	Signal int    // 0 if the verb takes none
	Task   string // of the slot; "": all of it
}

// Check reports what is wrong with a call.
func (c Call) Check() error {
	switch {
	case !slices.Contains(All, c.Name):
		return fmt.Errorf("there is no verb %q", string(c.Name))
	case c.Name.TakesSignal() && (c.Signal < 1 || c.Signal > maxSignal):
		return fmt.Errorf("there is no signal %d", c.Signal)
	case c.Task != "" && !c.Name.TakesTask():
		return fmt.Errorf("%s is for slots, not for one of their tasks", c.Name)
	}
	return nil
}
