// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/rundir"
)

func newStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [FLEET]",
		Short: "Show the status of one fleet, or of all",
		Long: `Show the status of a fleet: its slots, worst first, with why and what comes next.
Without FLEET, a line for each fleet.

With --json, the same as one object, or as a list of them; the manual describes
the fields.

Exit status: 0 success; 1 the fleet does not run or does not answer.`,
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
			return writeFleet(out, f, newerThanFloor(f, args[0]), time.Now())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
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
		return failed("%v", err)
	}
	return nil
}

// withoutMaster is a fleet that has none.
func withoutMaster(name, state, text string) control.Status {
	return control.Status{
		Name: name, ActiveState: state, StatusText: text, Slots: []control.SlotStatus{},
		Floors: map[uint32]uint32{}, SparePIDs: map[uint32]uint32{},
	}
}

func allFleets() (fleets []control.Status, errs []error) {
	found, err := fleetfile.Find(fleetfile.Dirs)
	if err != nil {
		errs = append(errs, err)
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
			one = withoutMaster(f.Name, inactive, "")
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
