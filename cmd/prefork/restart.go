// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/verb"
)

func newRestart() *cobra.Command {
	var w wait
	var now bool
	cmd := &cobra.Command{
		Use:   "restart FLEET [WORKER[.N]...]",
		Short: "Replace all processes of a fleet, or some, by new ones",
		Long: `Replace the processes of a fleet, slot by slot, as roll, max_unavailable and
settle_sec say: with start-first, no socket is ever without a worker. Without a
slot this is how new code is deployed: the fleet file is read again, a new floor
is loaded beside the one that there is, and all moves onto it. Workers and slots
that are named are replaced on the floor that there is. If something fails, what was
replaced goes back: all is as it was. A file without a worker is refused, as reload
does. A fleet that does not run is started.

WORKER.N/TASK is one of the tasks of a slot: it is cancelled, and starts again in its
process, with the code that this has.

With --now, slots end at once and the next processes start then; a fleet is
stopped and started as systemctl restart prefork@FLEET does, once its file and its
floor have been found to be good. Connections wait in the sockets meanwhile.` + itWaits + whoMay,
		Example:           "  prefork restart fleet\n  prefork restart fleet web.0\n  prefork restart --now fleet web",
		Args:              fleetAnd("WORKER or WORKER.N", 0, 1000),
		ValidArgsFunction: completeSlots,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			switch {
			case slices.ContainsFunc(args[1:], isTask):
				if slices.ContainsFunc(args[1:], func(name string) bool { return !isTask(name) }) {
					return exit.Misused("restart: name tasks, or workers and slots, not both")
				}
				return operateAndWait(out, args[0], args[1:], verb.Call{Name: verb.Restart}, w)
			case now && len(args) > 1:
				return operateAndWait(out, args[0], args[1:], verb.Call{Name: verb.Restart}, w)
			case now:
				if err := restartUnit(out, args[0], w); err != nil {
					return err
				}
				return w.tellHow(out, args[0])
			case len(args) == 1 && !reach.Runs(args[0]):
				if err := reach.OnUnit(args[0], "restart", w.teller(out), w.job(startAnew)); err != nil {
					return err
				}
				return w.tellHow(out, args[0])
			}
			newer := ""
			err := change(out, args[0], w, func(m *reach.Master, ctx context.Context) (uint64, error) {
				if len(args) > 1 && !w.json && !w.quiet {
					newer = reach.NewerCode(m.Status, args[0])
				}
				for _, name := range args[1:] {
					if _, err := choose(args[0], name, slotNames(m.Status)); err != nil {
						return 0, err
					}
				}
				return m.Restart(ctx, args[1:])
			})
			if err == nil && newer != "" {
				_, err = fmt.Fprintln(out, "the floor is the old one: "+newer)
			}
			return err
		},
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&now, "now", false, "stop and start, rather than replace one after the other")
	return cmd
}

func startAnew(ctx context.Context, c *systemd.Conn, unit string, done chan<- string) error {
	if err := c.ReloadContext(ctx); err != nil { // the generator makes its sockets
		return err
	}
	_, err := c.RestartUnitContext(ctx, unit, "replace", done)
	return err
}

// restartUnit stops a fleet and starts it again, if nothing of it is known to be bad. What
// its file wants otherwise of systemd's sockets is taken up; the others stay open.
func restartUnit(out io.Writer, fleet string, w wait) error {
	if means, err := reach.Means(fleet); err != nil || fleetfile.IsPath(means) {
		return errors.Join(err, reach.OnUnit(fleet, "restart --now", nil, startAnew))
	}
	if !reach.Runs(fleet) {
		if _, err := reach.File(fleet); err != nil {
			return err
		}
		return reach.OnUnit(fleet, "restart", w.teller(out), w.job(startAnew))
	}
	if err := change(out, fleet, wait{json: w.json, quiet: w.quiet}, func(m *reach.Master, ctx context.Context) (uint64, error) { return m.Try(ctx) }); err != nil {
		return err
	}
	others, err := changedSockets(fleet)
	if err != nil {
		return err
	}
	return reach.OnUnit(fleet, "restart", w.teller(out), w.job(func(ctx context.Context, c *systemd.Conn, unit string, done chan<- string) error {
		if err := c.ReloadContext(ctx); err != nil { // the generator makes its sockets
			return err
		}
		stop := func(socket string) bool { return socket == "" || slices.Contains(others, socket) }
		if err := reach.StopSockets(ctx, c, unit, stop); err != nil {
			return err
		}
		_, err := c.RestartUnitContext(ctx, unit, "replace", done)
		return err
	}))
}

// changedSockets are the names of those that systemd holds otherwise than the file says.
func changedSockets(fleet string) ([]string, error) {
	m, err := reach.Connect(fleet)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	steps, err := m.Plan(ctx)
	if err != nil {
		return nil, notChanged(fleet, err)
	}
	names := strings.Fields(m.Status.OutdatedSockets)
	for _, key := range waiting(steps) {
		if parts := strings.Split(key, "."); parts[0] == "socket" && len(parts) == 3 && !slices.Contains(names, parts[1]) {
			names = append(names, parts[1])
		}
	}
	return names, nil
}

// waiting are the keys of a plan that wait for the next start.
func waiting(steps []control.PlanStep) (keys []string) {
	for _, s := range steps {
		if s.Step == "wait" {
			keys = append(keys, s.Keys...)
		}
	}
	return keys
}
