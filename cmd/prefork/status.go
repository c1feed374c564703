// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
)

func newStatus() *cobra.Command {
	var asJSON bool
	var wait readyWait
	cmd := &cobra.Command{
		Use:   "status [FLEET]",
		Short: "Show the status of one fleet, or of all",
		Long: `Show the status of a fleet: its slots, worst first, with why and what comes next.
Without FLEET, a line for each fleet.

With --json, the same as one object, or as a list of them; the manual describes
the fields.

With --wait-ready, wait until the fleet is ready as /readyz says: it is active, and
each worker that has sockets, or that metrics.ready names, has a slot that is ready
or listens. With --worker, until those workers have, and with --min so many slots of
each. With --timeout, a fleet that does not run yet is waited for, too. If the fleet
stops or ends, or is not ready in time, it says why.

Exit status: 0 success; 1 the fleet does not run, does not answer, or, with
--wait-ready, is not ready.`,
		Example: "  prefork status\n  prefork status fleet\n  prefork status ./fleet.toml --json\n" +
			"  prefork status --wait-ready --timeout 30s --worker web --min 2 fleet",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeFleet,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			timeout, err := wait.check(cmd, len(args))
			switch {
			case err != nil:
				return err
			case len(args) == 0:
				return statusOfAll(out, asJSON)
			}
			f := (*control.Status)(nil)
			if wait.on {
				f, err = wait.wait(args[0], timeout)
			} else {
				f, err = reach.Look(args[0])
			}
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(out, f)
			}
			return writeFleet(out, f, reach.NewerCode(f, args[0]), time.Now())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	wait.flags(cmd)
	return cmd
}

func writeJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// statusOfAll looks at every fleet that has a file or runs.
func statusOfAll(out io.Writer, asJSON bool) error {
	fleets, errs := reach.All()
	err := errors.Join(errs...)
	if asJSON {
		err = errors.Join(writeJSON(out, fleets), err)
	} else {
		err = errors.Join(writeFleets(out, fleets), err)
	}
	if err != nil {
		return exit.Failed("%v", err)
	}
	return nil
}
