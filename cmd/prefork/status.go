// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
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
		Use:     "status [FLEET]",
		Aliases: []string{"ps", "list", "ls"},
		Short:   "Show the status of one fleet, or of all",
		Long: `Show the status of a fleet: its slots, worst first, with why and what comes next.
Without FLEET, a line for each fleet. ps, list and ls are other names for it.

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
		Args:              atMostOneFleet,
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

func newIsActive() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "is-active FLEET",
		Short: "Tell whether a fleet is active, for scripts",
		Long: `Print the state of a fleet in one word: active, activating, deactivating, inactive
or failed. Of a fleet that systemd runs it is that of its master; prefork status
says whether its slots are well.

Exit status, as of systemctl is-active: 0 it is active; 3 it is not; 4 there is no
such fleet; 1 its master does not answer, or may not be asked.`,
		Example:           "  prefork is-active fleet\n  prefork is-active --quiet fleet || prefork start fleet",
		Args:              oneFleet,
		ValidArgsFunction: completeFleet,
		RunE: func(cmd *cobra.Command, args []string) error {
			state, known, err := reach.State(args[0])
			if err != nil {
				return err
			}
			if !quiet {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), state); err != nil {
					return err
				}
			}
			switch {
			case !known:
				return exit.Silent(exit.NoSuch)
			case state != "active":
				return exit.Silent(exit.NotActive)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing")
	return cmd
}

func writeJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// statusOfAll looks at every fleet that has a file or runs.
func statusOfAll(out io.Writer, asJSON bool) error {
	fleets, hidden, errs := reach.All()
	err := errors.Join(errs...)
	if asJSON {
		err = errors.Join(writeJSON(out, fleets), err)
	} else {
		err = errors.Join(writeFleets(out, fleets), err)
	}
	if hidden > 0 {
		fmt.Fprintf(os.Stderr, "prefork: %d more of root or of other users, who alone may look at them: sudo prefork status\n", hidden)
	}
	if err != nil {
		return exit.Failed("%v", err)
	}
	return nil
}
