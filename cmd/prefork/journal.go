// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/display"
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

A fleet that is run from a file says everything where it runs; of that one, what
last happened to its slots is shown.`,
		Example:           "  prefork logs fleet\n  prefork logs -f fleet web\n  prefork logs fleet web.0",
		Args:              fleetAnd("WORKER or WORKER.N", 0, 1),
		ValidArgsFunction: completeSlots,
		RunE: func(cmd *cobra.Command, args []string) error {
			if fleetfile.IsPath(args[0]) {
				return eventsOf(cmd.OutOrStdout(), args[0], args[1:], follow)
			}
			if err := mustExist(args[0]); err != nil {
				return err
			}
			matches := []string{"--unit=" + unitOf(args[0])}
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
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().IntVarP(&lines, "lines", "n", 100, "begin with so many `LINES`")
	return cmd
}

func newWhy() *cobra.Command {
	return &cobra.Command{
		Use:   "why FLEET WORKER.N",
		Short: "Tell why a slot is as it is",
		Long: `Tell how a slot is, why, and what comes next, and the last things that happened to
it. journalctl -x has what can be done about each.`,
		Example:           "  prefork why fleet web.0",
		Args:              fleetAnd("WORKER.N", 1, 1),
		ValidArgsFunction: completeSlots,
		RunE: func(cmd *cobra.Command, args []string) error {
			at, f, err := find(args[0])
			if err != nil {
				return err
			}
			i := slices.IndexFunc(f.Slots, func(s control.SlotStatus) bool { return s.Name == args[1] })
			if i < 0 {
				return &status{exitFailed, fmt.Sprintf("prefork: fleet %s has no slot %q; it has %s", args[0], args[1], listed(slotNames(f)))}
			}
			if err := writeWhy(cmd.OutOrStdout(), &f.Slots[i], time.Now()); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if _, err := io.WriteString(out, "\nThe last events:\n"); err != nil {
				return err
			}
			if !fleetfile.IsPath(args[0]) {
				if told, err := fromJournal(out, args[0], args[1]); told || err != nil {
					return err
				}
			}
			return lastEvents(out, args[0], at, args[1:])
		},
	}
}

// fleetAnd wants a FLEET and so many of something else.
func fleetAnd(what string, least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if n := len(args) - 1; n < least || n > most {
			return &status{exitUsage, fmt.Sprintf("%s takes a FLEET and a %s: prefork %s", cmd.Name(), what, cmd.Use)}
		}
		return nil
	}
}

// mustExist refuses a name that is not that of a fleet.
func mustExist(fleet string) error {
	_, err := fleetfile.Resolve(fleet)
	if faults := fleetfile.Errors(nil); errors.As(err, &faults) {
		return &status{exitFailed, err.Error()}
	}
	if err != nil {
		return &status{exitUsage, err.Error()}
	}
	return nil
}

func unitOf(fleet string) string { return "prefork@" + fleet + ".service" }

// slotsNamed are the slots that WORKER or WORKER.N means: those of the fleet that
// runs, else those of its file.
func slotsNamed(fleet, name string) ([]string, error) {
	if f, err := lookAt(fleet); err == nil {
		return choose(fleet, name, slotNames(f))
	}
	file, err := load(fleet)
	if err != nil {
		return nil, err
	}
	var all []string
	for i := range file.Workers {
		for n := range file.Workers[i].Count {
			all = append(all, fmt.Sprintf("%s.%d", file.Workers[i].Name, n))
		}
	}
	return choose(fleet, name, all)
}

func slotNames(f *control.Status) (all []string) {
	for i := range f.Slots {
		all = append(all, f.Slots[i].Name)
	}
	return all
}

// choose returns those of all slots that WORKER or WORKER.N means.
func choose(fleet, name string, all []string) ([]string, error) {
	slots := slices.DeleteFunc(slices.Clone(all), func(s string) bool {
		worker, _, _ := strings.Cut(s, ".")
		return s != name && worker != name
	})
	if len(slots) == 0 {
		return nil, &status{exitFailed, fmt.Sprintf("prefork: fleet %s has no worker or slot %q; it has %s", fleet, name, listed(all))}
	}
	return slots, nil
}

// listed joins some names.
func listed(names []string) string {
	const most = 8
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + ", …"
	default:
		return strings.Join(names, ", ")
	}
}

// aboutSlots matches what slots have said, and what their master has said of them.
// Only processes of the unit are believed.
func aboutSlots(fleet string, slots []string) []string {
	unit := "_SYSTEMD_UNIT=" + unitOf(fleet)
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
	return &status{exitFailed, fmt.Sprintf("prefork: journalctl, which has the logs of fleets that systemd runs: %v", err)}
}

// writeWhy tells how a slot is.
func writeWhy(out io.Writer, s *control.SlotStatus, now time.Time) error {
	text := fmt.Sprintf("%s has been %s for %s", s.Name, s.State, ago(s.StateTimestamp, now))
	if s.MainPID > 0 {
		text += fmt.Sprintf(", process %d", s.MainPID)
	}
	lines := []string{text}
	if s.Reason != "" {
		lines = append(lines, wrap("why: "+s.Reason, usualWidth-2)...)
	}
	if next := display.Doing(s, now); next != "" && s.State == "waiting" {
		lines = append(lines, "next: "+next)
	}
	if s.StatusText != "" {
		lines = append(lines, wrap("it says: "+s.StatusText, usualWidth-2)...)
	}
	lines = append(lines, fmt.Sprintf("restarts: %d in all, failures in a row: %d", s.NRestarts, s.Failures))
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n  "))
	return err
}

// fromJournal prints what the journal, if there is one, has of a slot's history.
func fromJournal(out io.Writer, fleet, slot string) (told bool, err error) {
	args := []string{
		"--quiet", "--no-pager", "--lines=10", "--output=short",
		"_SYSTEMD_UNIT=" + unitOf(fleet), "SYSLOG_IDENTIFIER=prefork", "PREFORK_SLOT=" + slot,
	}
	text, err := exec.Command("journalctl", args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) || err == nil && len(text) == 0 {
		return false, nil // it runs without systemd
	}
	if err != nil {
		return false, &status{exitFailed, fmt.Sprintf("prefork: journalctl: %v: %s", err, strings.TrimSpace(string(text)))}
	}
	_, err = out.Write(text)
	return true, err
}

// eventsOf prints what there is of a fleet that is run from a file.
func eventsOf(out io.Writer, fleet string, names []string, follow bool) error {
	if follow {
		return &status{exitFailed, fmt.Sprintf("prefork: a fleet that is run from a file says everything where it runs; of prefork@%s: prefork logs -f %[1]s",
			fleetfile.NameOf(fleet))}
	}
	at, f, err := find(fleet)
	if err != nil {
		return err
	}
	slots := slotNames(f)
	if len(names) > 0 {
		if slots, err = choose(fleet, names[0], slots); err != nil {
			return err
		}
	}
	return lastEvents(out, fleet, at, slots)
}

// lastEvents prints what the master remembers of slots, the oldest first.
func lastEvents(out io.Writer, fleet string, at control.Address, slots []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	c, err := control.Dial(ctx, at)
	if err != nil {
		return explain(fleet, err)
	}
	defer c.Close()
	var all []control.HistoryEntry
	for _, slot := range slots {
		happened, err := c.History(ctx, slot)
		if err != nil {
			return explain(fleet, err)
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
	_, err = io.WriteString(out, lines)
	return err
}
