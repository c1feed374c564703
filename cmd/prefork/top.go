// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
)

// viewName is a program of its own: what it takes to draw in a terminal stays out
// of the master's.
const viewName = "prefork-view"

func newTop() *cobra.Command {
	return &cobra.Command{
		Use:   "top [FLEET]",
		Short: "Watch a fleet",
		Long: `Watch a fleet in a live view: each slot with its state, restarts, processor time
and memory, private against shared; what waits at the sockets, what is due next, and
the last events. It is drawn anew each second, and as soon as a state changes.
Without FLEET it is the one that runs, if there is just one.

Keys: arrows or j and k select a slot, s sorts, / filters; r restarts the selected
slot, x stops and S starts it, f freezes and t thaws it, each after a question; Enter
shows the tasks of a slot, which are folded while all are well; ? shows all keys, q
quits.` + whoMay + `

It needs a terminal; prefork status is for everything else. NO_COLOR=1 leaves out
colours. Nothing is asked of a master while nobody watches.

Exit status: 0 success; 1 the fleet does not run or does not answer, or there
is no terminal.`,
		Example:           "  prefork top fleet\n  NO_COLOR=1 prefork top ./fleet.toml",
		Args:              atMostOneFleet,
		ValidArgsFunction: completeFleet,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				one, err := reach.TheOne(cmd.Name())
				if err != nil {
					return err
				}
				args = []string{one}
			}
			m, err := reach.Connect(args[0])
			if err != nil {
				return err
			}
			m.Close()
			view, err := findView("top")
			if err != nil {
				return err
			}
			err = unix.Exec(view, []string{viewName, "top", "--socket", m.Address.Socket, "--name", m.Status.Name, "--file", m.Status.File, "--", args[0]}, os.Environ())
			return exit.Failed("exec %s: %v", view, err)
		},
	}
}

// findView looks for the view beside this program, where make build puts it, and
// where make install does; what is what needs it.
func findView(what string) (string, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return "", exit.Failed("%v", err)
	}
	places := []string{filepath.Join(filepath.Dir(self), viewName), filepath.Join(filepath.Dir(self), "../lib/prefork", viewName)}
	for _, place := range places {
		if unix.Access(place, unix.X_OK) == nil {
			return place, nil
		}
	}
	return "", exit.Failed("%s is a program of its own, which is not installed: install %s, from the package or the build that prefork is from, as %s or %s",
		what, viewName, places[0], places[1])
}
