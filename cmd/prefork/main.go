// SPDX-License-Identifier: AGPL-3.0-or-later

// Prefork is a prefork supervisor for Linux, made for systemd. See README.md.
package main

import (
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/units"
)

// The main thread makes every fork: a parent-death signal belongs to the thread
// that was the parent (PR_SET_PDEATHSIG(2const)).
func init() { runtime.LockOSThread() }

func main() {
	if os.Args[0] == gate.ShimName {
		gate.RunShim()
	}
	if filepath.Base(os.Args[0]) == units.GeneratorName {
		os.Exit(units.RunGenerator(os.Args[1:]))
	}
	os.Exit(execute(os.Args[1:]))
}

// execute runs a command, and returns the exit status.
func execute(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	return exit.Tell(os.Stderr, root.Execute())
}

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
			return exit.Misused("a command is missing")
		},
	}
	root.AddCommand(newRun(), newStatus(), newTop(), newMemory(), newWhy(), newLogs(),
		newStart(), newStop(), newReload(), newRestart(), newScale(), newCancel(), newReset(), newKill(), newFreeze(), newThaw(), newStacks(), newEnable(), newDisable(),
		newCheck(), newCheckZygote(), newInit(), newVersion())
	return root
}
