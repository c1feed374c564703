// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/rundir"
)

func newStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [FLEET]",
		Short: "Show how a fleet is, or all fleets",
		Long: `Show how a fleet is: its slots, the worst first, with why and what comes next.
Without FLEET, a line for each fleet.

With --json, the same as one object, or as a list of them; the manual describes
the fields.

Exit status: 0 it was shown; 1 the fleet does not run or does not answer.`,
		Example:           "  prefork status\n  prefork status fleet\n  prefork status ./fleet.toml --json",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeFleet,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			if len(args) == 0 {
				return statusOfAll(out, asJSON)
			}
			f, err := lookAt(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(out, f)
			}
			return writeFleet(out, f, time.Now())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// answerTimeout is how long a master may take to answer before it is called
// stuck.
const answerTimeout = 5 * time.Second

// lookAt asks the master of the fleet that FLEET names.
func lookAt(arg string) (*control.Status, error) {
	_, f, err := find(arg)
	return f, err
}

// find returns the control socket of the fleet that FLEET names, too.
func find(arg string) (at control.Address, f *control.Status, err error) {
	path, missing := fleetfile.Resolve(arg)
	if faults := fleetfile.Errors(nil); missing != nil && !errors.As(missing, &faults) {
		return at, nil, &status{exitUsage, missing.Error()}
	}
	sockets, err := socketsOf(arg, path)
	if err != nil {
		return at, nil, &status{exitFailed, "prefork: " + err.Error()}
	}
	for _, at := range sockets {
		f, err := look(at)
		if err == nil || !isAbsent(err) {
			return at, f, explain(arg, err)
		}
	}
	if missing == nil {
		_, missing = os.Stat(path)
	}
	if missing != nil {
		return at, nil, &status{exitFailed, fmt.Sprintf("prefork: no fleet runs by that name, and: %v", missing)}
	}
	return at, nil, &status{exitFailed, fmt.Sprintf("prefork: fleet %s does not run%s; start it: %s", arg, unitSays(arg), startWith(arg))}
}

func look(at control.Address) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	return control.Look(ctx, at)
}

// socketsOf are the places where the master may be: that of the unit, and that of
// a fleet that this user runs from the file at path, which may be "".
func socketsOf(arg, path string) (sockets []control.Address, err error) {
	if !fleetfile.IsPath(arg) {
		sockets = append(sockets, rundir.ControlOfUnit(arg))
	}
	if path == "" {
		return sockets, nil
	}
	own, ok, err := rundir.ControlOfFile(path)
	if ok {
		sockets = append(sockets, own)
	}
	return sockets, err
}

// isAbsent reports whether an error says that there is no master.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}

// explain says what to do about an error.
func explain(fleet string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return &status{exitFailed, fmt.Sprintf("prefork: fleet %s: only root and the user that it runs as may look at it: sudo prefork status %s", fleet, fleet)}
	case errors.Is(err, context.DeadlineExceeded):
		return &status{exitFailed, fmt.Sprintf("prefork: fleet %s: its master does not answer: it is stuck, or stopped; "+
			"systemd's watchdog ends it, else see ps and kill -ABRT, which has it say what it does", fleet)}
	default:
		return &status{exitFailed, fmt.Sprintf("prefork: fleet %s: %v", fleet, err)}
	}
}

// unitSays is what systemd says of a fleet that does not run, if it is not just
// stopped.
func unitSays(arg string) string {
	if fleetfile.IsPath(arg) {
		return ""
	}
	if f, ok := unitFleets()[arg]; ok && f.StatusText != "" {
		return fmt.Sprintf(" (%s: %s)", f.ActiveState, f.StatusText)
	}
	return ""
}

func startWith(arg string) string {
	if fleetfile.IsPath(arg) {
		return "prefork run " + arg
	}
	return "systemctl start prefork@" + arg
}

func writeJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// inactive is the state of a fleet that has a file and no master.
const inactive = "inactive"

// statusOfAll looks at every fleet that has a file or runs.
func statusOfAll(out io.Writer, asJSON bool) error {
	fleets, errs := allFleets()
	err := errors.Join(errs...)
	if asJSON {
		err = errors.Join(writeJSON(out, fleets), err)
	} else {
		err = errors.Join(writeFleets(out, fleets), err)
	}
	if err != nil {
		return &status{exitFailed, err.Error()}
	}
	return nil
}

func allFleets() (fleets []control.Status, errs []error) {
	found, err := fleetfile.Find(fleetfile.Dirs)
	if err != nil {
		errs = append(errs, fmt.Errorf("prefork: %w", err))
	}
	sockets := rundir.Controls()
	looked := make([]*control.Status, len(sockets))
	failed := make([]error, len(sockets))
	var all sync.WaitGroup
	for i, at := range sockets {
		all.Go(func() { looked[i], failed[i] = look(at) })
	}
	all.Wait()
	fleets = []control.Status{}
	var stuck []string
	for i, f := range looked {
		switch {
		case f != nil:
			fleets = append(fleets, *f)
		case !isAbsent(failed[i]):
			stuck = append(stuck, sockets[i].Socket)
			errs = append(errs, explain(fleetOfSocket(sockets[i].Socket), failed[i]))
		}
	}
	return append(fleets, idleFleets(found, fleets, stuck)...), errs
}

// idleFleets are those that have a file, or a unit, and no master, stuck or not.
func idleFleets(found []fleetfile.Found, running []control.Status, stuck []string) (idle []control.Status) {
	units := unitFleets()
	for _, f := range found {
		if f.Err != nil || f.Masked {
			continue
		}
		one, known := units[f.Name]
		if !known {
			one = control.Status{Name: f.Name, ActiveState: inactive, Slots: []control.SlotStatus{}}
		}
		one.File = f.Path
		units[f.Name] = one
	}
	for name, one := range units {
		runs := slices.ContainsFunc(running, func(o control.Status) bool { return o.File == one.File || o.Name == name && one.File == "" })
		if !runs && !slices.Contains(stuck, rundir.ControlOfUnit(name).Socket) {
			idle = append(idle, one)
		}
	}
	return idle
}
