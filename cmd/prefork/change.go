// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
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
			return change(cmd.OutOrStdout(), args[0], w, func(m *reach.Master, ctx context.Context) (uint64, error) { return m.Reload(ctx) })
		},
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "tell what would be done, and do nothing")
	return cmd
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
			return change(cmd.OutOrStdout(), args[0], w, func(m *reach.Master, ctx context.Context) (uint64, error) {
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
		return "", 0, exit.Misused("scale %q: must be WORKER=N, with a number of slots, or WORKER=file", arg)
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
			m, err := reach.Connect(args[0])
			if err != nil {
				return err
			}
			defer m.Close()
			ctx, cancel := context.WithTimeout(context.Background(), reach.AnswerTimeout)
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
	m, err := reach.Connect(fleet)
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
