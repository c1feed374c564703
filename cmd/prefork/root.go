// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"github.com/spf13/cobra"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "prefork",
		Short: "Prefork supervisor for Linux, made for systemd",
		Long: `prefork loads an expensive floor once (a Python process with its modules
imported), forks each worker from it copy-on-write, hands it the sockets that
systemd passed, and restarts it with a backoff of its own.

FLEET is a name, for NAME.toml in /etc/prefork, /run/prefork or
/usr/lib/prefork, or the path of a fleet file.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return misused("a command is missing")
		},
	}
	root.AddCommand(newRun(), newStatus(), newTop(), newMemory(), newWhy(), newLogs(),
		newStart(), newStop(), newReload(), newRestart(), newScale(), newCancel(), newReset(), newKill(), newFreeze(), newThaw(), newEnable(), newDisable(),
		newCheck(), newCheckZygote(), newInit(), newVersion())
	return root
}
