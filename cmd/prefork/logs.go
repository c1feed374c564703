// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"cmp"
	"context"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

func newLogs() *cobra.Command {
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use:   "logs FLEET [WORKER[.N]]",
		Short: "Show what a fleet, a worker or a slot has said, and what happened to it",
		Long: `Show the journal of a fleet that systemd runs, by journalctl: all of it, or what
the processes of one worker or slot have said, with the master's words about them.

A fleet that is run from a file logs to its own terminal; of that one, the last events
of its slots are shown.`,
		Example:           "  prefork logs fleet\n  prefork logs -f fleet web\n  prefork logs fleet web.0",
		Args:              fleetAnd("WORKER or WORKER.N", 0, 1),
		ValidArgsFunction: completeSlots,
		RunE: func(cmd *cobra.Command, args []string) error {
			if fleetfile.IsPath(args[0]) {
				return eventsOf(cmd.OutOrStdout(), args[0], args[1:], follow)
			}
			if err := reach.Known(args[0]); err != nil {
				return err
			}
			matches := []string{"--unit=" + reach.Unit(args[0])}
			if len(args) == 2 {
				slots, err := slotsNamed(args[0], args[1])
				if err != nil {
					return err
				}
				matches = aboutSlots(args[0], slots)
			}
			options := []string{"--lines=" + strconv.Itoa(lines)}
			if follow {
				options = append(options, "--follow")
			}
			return journalctl(append(options, matches...))
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing new entries")
	cmd.Flags().IntVarP(&lines, "lines", "n", 100, "show the last `LINES` entries")
	return cmd
}

// aboutSlots matches what slots have said, and what their master has said of them.
// Only processes of the unit are believed.
func aboutSlots(fleet string, slots []string) []string {
	unit := "_SYSTEMD_UNIT=" + reach.Unit(fleet)
	said, about := []string{unit}, []string{unit, "SYSLOG_IDENTIFIER=prefork"}
	for _, s := range slots {
		said, about = append(said, "SYSLOG_IDENTIFIER="+s), append(about, "PREFORK_SLOT="+s)
	}
	return slices.Concat(said, []string{"+"}, about)
}

// journalctl becomes journalctl. It returns only if it cannot.
func journalctl(args []string) error {
	path, err := exec.LookPath("journalctl")
	if err == nil {
		err = syscall.Exec(path, append([]string{"journalctl"}, args...), os.Environ())
	}
	return exit.Failed("journalctl, which has the logs of fleets that systemd runs: %v", err)
}

// eventsOf prints what there is of a fleet that is run from a file.
func eventsOf(out io.Writer, fleet string, names []string, follow bool) error {
	if follow {
		return exit.Failed("a fleet that is run from a file logs to its own terminal; of prefork@%s: prefork logs -f %[1]s",
			fleetfile.NameOf(fleet))
	}
	m, err := reach.Connect(fleet)
	if err != nil {
		return err
	}
	defer m.Close()
	slots := slotNames(m.Status)
	if len(names) > 0 {
		if slots, err = choose(fleet, names[0], slots); err != nil {
			return err
		}
	}
	return lastEvents(out, m, slots)
}

// lastEvents prints what the master remembers of slots, the oldest first.
func lastEvents(out io.Writer, m *reach.Master, slots []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), reach.AnswerTimeout)
	defer cancel()
	var all []control.HistoryEntry
	for _, slot := range slots {
		happened, err := m.History(ctx, slot)
		if err != nil {
			return reach.Explain(m.Fleet, err)
		}
		for _, h := range happened {
			all = append(all, control.HistoryEntry{Timestamp: h.Timestamp, Text: slot + ": " + h.Text})
		}
	}
	slices.SortStableFunc(all, func(a, b control.HistoryEntry) int { return cmp.Compare(a.Timestamp, b.Timestamp) })
	lines := ""
	for _, h := range all {
		lines += time.UnixMicro(int64(h.Timestamp)).Format(time.Stamp) + " " + h.Text + "\n"
	}
	_, err := io.WriteString(out, lines)
	return err
}
