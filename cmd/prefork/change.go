// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/spf13/cobra"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/verb"
)

// itWaits is in the help of what changes a fleet as a whole.
const itWaits = `

It waits until that is done, with a line for each slot, or, with --json, an object
for each. Ctrl-C ends the wait, not the change: prefork cancel FLEET does that.

Exit status: 0 it is done; 1 it failed, and the fleet is as it was; 78 the fleet
file cannot be used, and nothing was done.`

func newReload() *cobra.Command {
	var w wait
	var dry bool
	cmd := &cobra.Command{
		Use:   "reload FLEET",
		Short: "Make a fleet that runs what its file says now",
		Long: `Read the fleet file again and apply the difference. What has not changed is not
touched. A worker that has changed in its policy or its limits alone keeps its
processes; else they are replaced slot by slot, as roll, max_unavailable and
settle_sec say. A changed floor is loaded beside the one that there is. If
something of it fails, what was replaced goes back: all is as it was. A file without
a worker is refused: it may be half written, and prefork stop ends a fleet.` + itWaits + whoMay,
		Example:           "  prefork reload fleet --dry-run\n  prefork reload fleet",
		Args:              oneFleet,
		ValidArgsFunction: completeFleet,
		RunE: func(cmd *cobra.Command, args []string) error {
			if dry {
				return showPlan(cmd.OutOrStdout(), args[0], w.json)
			}
			return change(cmd.OutOrStdout(), args[0], w, func(m *master, ctx context.Context) (uint64, error) { return m.Reload(ctx) })
		},
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "tell what would be done, and do nothing")
	return cmd
}

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
			case now && (w.json || w.not):
				return misused("restart --now stops and starts: there is no change to wait for, or to tell of")
			case slices.ContainsFunc(args[1:], isTask):
				if slices.ContainsFunc(args[1:], func(name string) bool { return !isTask(name) }) {
					return misused("restart: name tasks, or workers and slots, not both")
				}
				return operate(args[0], args[1:], verb.Call{Name: verb.Restart})
			case now && len(args) > 1:
				return operate(args[0], args[1:], verb.Call{Name: verb.Restart})
			case now:
				return restartUnit(out, args[0])
			case len(args) == 1 && !runs(args[0]):
				return onUnit(args[0], "restart", startAnew)
			}
			newer := ""
			err := change(out, args[0], w, func(m *master, ctx context.Context) (uint64, error) {
				if len(args) > 1 && !w.json && !w.quiet {
					newer = newerThanFloor(m.status, args[0])
				}
				for _, name := range args[1:] {
					if _, err := choose(args[0], name, slotNames(m.status)); err != nil {
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

// runs reports whether there is a master that answers, or one that does not.
func runs(fleet string) bool {
	m, err := connect(fleet)
	if err == nil {
		m.Close()
		return true
	}
	return !errors.As(err, new(*notRunning))
}

func startAnew(ctx context.Context, c *systemd.Conn, unit string, done chan<- string) error {
	if err := c.ReloadContext(ctx); err != nil { // the generator makes its sockets
		return err
	}
	_, err := c.RestartUnitContext(ctx, unit, "replace", done)
	return err
}

func newScale() *cobra.Command {
	var w wait
	cmd := &cobra.Command{
		Use:   "scale FLEET WORKER=N",
		Short: "Give a worker more slots, or fewer",
		Long: `Give a worker so many slots: the newest come last and go first. That holds until
the fleet stops, or a reload finds another count in the file; WORKER=file is the
count of the file again.` + itWaits + whoMay,
		Example:           "  prefork scale fleet web=8\n  prefork scale fleet web=file",
		Args:              fleetAnd("WORKER=N", 1, 1),
		ValidArgsFunction: completeFleet,
		RunE: func(cmd *cobra.Command, args []string) error {
			worker, count, err := parseScale(args[1])
			if err != nil {
				return err
			}
			return change(cmd.OutOrStdout(), args[0], w, func(m *master, ctx context.Context) (uint64, error) {
				return m.Scale(ctx, worker, count)
			})
		},
	}
	w.flags(cmd)
	return cmd
}

func parseScale(arg string) (worker string, count int, err error) {
	worker, text, ok := strings.Cut(arg, "=")
	if text == "file" {
		return worker, -1, nil
	}
	count, err = strconv.Atoi(text)
	if !ok || worker == "" || err != nil || count < 0 {
		return "", 0, misused("scale %q: must be WORKER=N, with a number of slots, or WORKER=file", arg)
	}
	return worker, count, nil
}

func newCancel() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel FLEET",
		Short: "Take back the change of a fleet that is under way",
		Long: `End a reload, restart or scale that has not come to its end: what it has replaced
goes back, slot by slot. If one waits for another, the one that waits is ended. The
recycling of a slot (recycle_after and its like) is put off.` + whoMay,
		Example:           "  prefork cancel fleet",
		Args:              oneFleet,
		ValidArgsFunction: completeFleet,
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := connect(args[0])
			if err != nil {
				return err
			}
			defer m.Close()
			ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
			defer cancel()
			if err := m.Cancel(ctx); err != nil {
				return refused(args[0], args[0], err)
			}
			return nil
		},
	}
}

// costs say what becomes of a part, by its step.
var costs = map[string]string{
	"fleet update": "changes at once", "fleet wait": "waits for the next start of the fleet: prefork restart --now",
	"floor roll": "a new one is loaded, beside the one that there is", "floor add": "is loaded", "floor remove": "ends with its last worker",
	"floor update": "changes at once", "socket update": "changes at once", "socket roll": "is bound anew", "socket add": "is bound", "socket remove": "is closed",
	"worker update": "changes at once, its processes go on", "worker add": "starts", "worker remove": "stops",
	"worker roll": "its processes are replaced, slot by slot", "worker keep": "goes on",
}

// showPlan tells what a reload would do.
func showPlan(out io.Writer, fleet string, asJSON bool) error {
	m, err := connect(fleet)
	if err != nil {
		return err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	steps, err := m.Plan(ctx)
	if err != nil {
		return notChanged(fleet, err)
	}
	if asJSON {
		return writeJSON(out, append([]control.PlanStep{}, steps...))
	}
	if len(steps) == 0 {
		_, err := fmt.Fprintln(out, "nothing would change")
		return err
	}
	rows := [][]string{{"PART", "WHAT", "BECAUSE OF"}}
	for _, s := range steps {
		what := costs[s.Kind+" "+s.Step]
		if s.Kind == "worker" && s.From != s.To {
			what += fmt.Sprintf(": %d slots, now %d", s.To, s.From)
		}
		rows = append(rows, []string{strings.TrimSpace(strings.Replace(s.Kind+" "+s.Name, "floor floor", "floor", 1)), what, strings.Join(s.Keys, ", ")})
	}
	for _, line := range table(rows) {
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}
