// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"context"
	"errors"
	"slices"

	"github.com/godbus/dbus/v5"

	"github.com/decnet/prefork/supervisor/internal/text"
)

// PlanStep is one part of the fleet that a reload changes.
type PlanStep struct {
	Kind string   `json:"kind"` // fleet, floor, socket or worker
	Name string   `json:"name"` // "" of the fleet
	Step string   `json:"step"` // keep, update, roll, add, remove; wait: for the next start of the fleet
	Keys []string `json:"keys"` // that cause it
	From uint32   `json:"from"` // slots of a worker
	To   uint32   `json:"to"`
}

// Outcome is what has become of a change: Result is "" while it is under way.
type Outcome struct {
	Result string // done, failed, cancelled or superseded
	Text   string
}

// ChangeDone is the result of a change that is in effect.
const ChangeDone = "done"

// BadFile says what is wrong with a fleet file, a line for each fault.
type BadFile struct{ Text string }

func (e *BadFile) Error() string { return e.Text }

const badFile = Interface + ".Error.BadFile"

// changeMethods are those of the fleet's object that change it.
func changeMethods() []method {
	return []method{
		{Interface, "Reload", "", "t", accessChange, onFleet(func(c *call) (any, error) { return c.backend.Reload(c.caller) })},
		{Interface, "Plan", "", "a(sssasuu)", accessChange, onFleet(func(c *call) (any, error) { return c.backend.Plan(c.caller) })},
		{Interface, "Restart", "as", "t", accessChange, onFleet(func(c *call) (any, error) { return c.backend.Restart(c.list, c.caller) })},
		{Interface, "Try", "", "t", accessChange, onFleet(func(c *call) (any, error) { return c.backend.Try(c.caller) })},
		{Interface, "Scale", "si", "t", accessChange, onFleet(func(c *call) (any, error) {
			return c.backend.Scale(c.args[0], int(c.number), c.caller)
		})},
		{Interface, "Cancel", "", "", accessChange, onFleet(func(c *call) (any, error) { return nil, c.backend.Cancel(c.caller) })},
		{Interface, "Probe", "i", "u", accessChange, onFleet(func(c *call) (any, error) { return c.backend.Probe(int(c.number), c.caller) })},
		{Interface, "Outcome", "t", "(ss)", accessRead, onFleet(func(c *call) (any, error) { return c.backend.Outcome(c.id) })},
	}
}

// onFleet is a method of the fleet's object.
func onFleet(do func(c *call) (any, error)) func(c *call) (any, *dbus.Error) {
	return func(c *call) (any, *dbus.Error) {
		if c.path != Path {
			return nil, failure("UnknownObject", "there is no fleet at %s: it is at %s", c.path, Path)
		}
		answer, err := do(c)
		switch bad := (*BadFile)(nil); {
		case errors.As(err, &bad):
			return nil, dbus.NewError(badFile, []any{bad.Text})
		case err != nil:
			return nil, failure("Failed", "%v", err)
		}
		return answer, nil
	}
}

// onFleet calls a method of the fleet's object. A [BadFile] comes as itself.
func (c *Client) onFleet(ctx context.Context, method string, args []any, results ...any) error {
	err := c.conn.Object(Interface, Path).CallWithContext(ctx, Interface+"."+method, 0, args...).Store(results...)
	if said := (dbus.Error{}); errors.As(err, &said) && said.Name == badFile {
		return &BadFile{Text: text.PrintableLines(said.Error())}
	}
	return inTime(ctx, err)
}

// Reload asks the master to make the fleet what its file says, and returns the number of
// that change, which goes on. It blocks until ctx ends at the latest; the error of a file
// that cannot be used is a [BadFile].
func (c *Client) Reload(ctx context.Context) (change uint64, err error) {
	err = c.onFleet(ctx, "Reload", nil, &change)
	return change, err
}

// Plan asks the master what Reload would do.
func (c *Client) Plan(ctx context.Context) (steps []PlanStep, err error) {
	err = c.onFleet(ctx, "Plan", nil, &steps)
	for i := range steps {
		s := &steps[i]
		s.Kind, s.Name, s.Step = text.Printable(s.Kind), text.Printable(s.Name), text.Printable(s.Step)
		for j := range s.Keys {
			s.Keys[j] = text.Printable(s.Keys[j])
		}
	}
	return steps, err
}

// Restart asks the master to replace the processes of these workers and slots; of none, to
// make the fleet what its file says, and to replace all of it on a new floor.
func (c *Client) Restart(ctx context.Context, names []string) (change uint64, err error) {
	err = c.onFleet(ctx, "Restart", []any{slices.Concat([]string{}, names)}, &change)
	return change, err
}

// Try asks the master whether Restart could load its floor.
func (c *Client) Try(ctx context.Context) (change uint64, err error) {
	err = c.onFleet(ctx, "Try", nil, &change)
	return change, err
}

// Scale asks the master for so many slots of a worker, or, with -1, for as many as its file
// says.
func (c *Client) Scale(ctx context.Context, worker string, count int) (change uint64, err error) {
	err = c.onFleet(ctx, "Scale", []any{worker, int32(count)}, &change)
	return change, err
}

// Cancel asks the master to end the change that is under way.
func (c *Client) Cancel(ctx context.Context) error { return c.onFleet(ctx, "Cancel", nil) }

// Outcome asks the master what has become of a change.
func (c *Client) Outcome(ctx context.Context, change uint64) (o Outcome, err error) {
	err = c.onFleet(ctx, "Outcome", []any{change}, &o)
	o.Text = text.Printable(o.Text)
	return o, err
}

// Probe asks the master to have the floor of a generation fork a process that lists its
// objects, and returns that process, of which more is told by package memory.
func (c *Client) Probe(ctx context.Context, generation uint32) (pid uint32, err error) {
	err = c.onFleet(ctx, "Probe", []any{int32(generation)}, &pid)
	return pid, err
}
