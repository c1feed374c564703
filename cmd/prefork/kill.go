// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"github.com/spf13/cobra"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/verb"
)

func newKill() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "kill FLEET WORKER[.N]...",
		Short: "Send a signal to the processes of slots",
		Long: `Send a signal to the main process of each slot. If the signal ends it, its
restart policy applies.` + whoMay,
		Example:           "  prefork kill --signal USR1 fleet web",
		Args:              fleetAnd("WORKER or WORKER.N", 1, 1000),
		ValidArgsFunction: completeSlots,
		RunE: func(_ *cobra.Command, args []string) error {
			signal, ok := fleetfile.ParseSignal(name)
			if !ok {
				return misused("--signal %q: must be a signal, such as TERM, SIGUSR1 or 10", name)
			}
			return operate(args[0], args[1:], verb.Call{Name: verb.Kill, Signal: int(signal)})
		},
	}
	cmd.Flags().StringVarP(&name, "signal", "s", "SIGTERM", "the `SIGNAL`, by name or number")
	return cmd
}
