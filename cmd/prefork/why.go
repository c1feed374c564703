// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/display"
	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/policy"
)

func newWhy() *cobra.Command {
	return &cobra.Command{
		Use:   "why FLEET WORKER.N",
		Short: "Tell why a slot is as it is",
		Long: `Tell how a slot is, why, and what comes next, and the last things that happened to
it. journalctl -x has what can be done about each. WORKER.N/TASK is one of the tasks
of a slot.`,
		Example:           "  prefork why fleet web.0\n  prefork why fleet io.0/poller",
		Args:              fleetAnd("WORKER.N", 1, 1),
		ValidArgsFunction: completeSlots,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := reach.Connect(args[0])
			if err != nil {
				return err
			}
			defer m.Close()
			f := m.Status
			if isTask(args[1]) {
				return whyTask(cmd.OutOrStdout(), m, args[0], args[1])
			}
			i := slices.IndexFunc(f.Slots, func(s control.SlotStatus) bool { return s.Name == args[1] })
			if i < 0 {
				return exit.Failed("fleet %s has no slot %q; it has %s", args[0], args[1], listed(slotNames(f)))
			}
			if err := writeWhy(cmd.OutOrStdout(), &f.Slots[i], time.Now()); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			return whatHappened(out, m, args[1], "PREFORK_SLOT="+args[1])
		},
	}
}

// whatHappened prints the last events of a slot or a task, from the journal if it has some.
func whatHappened(out io.Writer, m *reach.Master, name string, matches ...string) error {
	if _, err := io.WriteString(out, "\nThe last events:\n"); err != nil {
		return err
	}
	if !m.FromFile() {
		if told, err := fromJournal(out, m.Status.Name, matches); told || err != nil {
			return err
		}
	}
	return lastEvents(out, m, []string{name})
}

// whyTask tells how a task is.
func whyTask(out io.Writer, m *reach.Master, fleet, name string) error {
	s, t, err := taskNamed(fleet, name, m.Status)
	if err != nil {
		return err
	}
	now := time.Now()
	lines := []string{fmt.Sprintf("%s has been %s for %s, in process %d", name, t.State, ago(t.StateTimestamp, now), s.MainPID)}
	if s.MainPID == 0 {
		lines = []string{fmt.Sprintf("%s does not run: %s is %s", name, s.Name, s.State)}
	}
	if t.Reason != "" {
		lines = append(lines, wrap("why: "+t.Reason, usualWidth-2)...)
	}
	if t.NextStartTimestamp > 0 {
		lines = append(lines, "next: "+display.DoingTask(t, now))
	}
	if t.StatusText != "" {
		lines = append(lines, wrap("it says: "+t.StatusText, usualWidth-2)...)
	}
	lines = append(lines, fmt.Sprintf("restarts: %d in all, failures in a row: %d", t.NRestarts, t.Failures))
	if _, err := fmt.Fprintln(out, strings.Join(lines, "\n  ")); err != nil {
		return err
	}
	return whatHappened(out, m, name, "PREFORK_SLOT="+s.Name, "PREFORK_TASK="+t.Name)
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
	if beside := display.Beside(s); beside != "" {
		lines = append(lines, "it "+beside)
	}
	if s.Scaled {
		lines = append(lines, "its worker has as many slots as prefork scale said, not the file")
	}
	if s.StatusText != "" {
		lines = append(lines, wrap("it says: "+s.StatusText, usualWidth-2)...)
	}
	lines = append(lines, fmt.Sprintf("restarts: %d in all, failures in a row: %d", s.NRestarts, s.Failures))
	if s.NRecycles > 0 {
		lines = append(lines, "recycled: "+recycles(s))
	}
	if at := s.NextRecycleTimestamp; at > 0 {
		lines = append(lines, "is recycled in "+policy.Span(display.Time(at).Sub(now)))
	}
	if len(s.Tasks) > 0 {
		rows := [][]string{{"TASK", "STATE", "SINCE", "RESTARTS", "NOW"}}
		for i := range s.Tasks {
			t := &s.Tasks[i]
			rows = append(rows, []string{t.Name, t.State, ago(t.StateTimestamp, now), fmt.Sprint(t.NRestarts), display.DoingTask(t, now)})
		}
		lines[len(lines)-1] += "\n"
		for _, line := range table(rows) {
			lines = append(lines, cutTo(line, usualWidth-2))
		}
	}
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n  "))
	return err
}

// recycles tells how often a slot was recycled, and why: "3 in all, 2 by age, 1 asked".
func recycles(s *control.SlotStatus) string {
	text := fmt.Sprintf("%d in all", s.NRecycles)
	for _, reason := range policy.RecycleReasons {
		if n := s.Recycles[string(reason)]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, recycledFor[reason])
		}
	}
	return text
}

var recycledFor = map[policy.RecycleReason]string{
	policy.RecyclePrivate: "for private memory", policy.RecycleAge: "for age",
	policy.RecycleRequests: "for requests", policy.RecycleAsked: "as it asked",
}

// fromJournal prints what the journal, if there is one, has of the history of a slot, or of
// what else the fields match.
func fromJournal(out io.Writer, fleet string, matches []string) (told bool, err error) {
	args := []string{
		"--quiet", "--no-pager", "--lines=10", "--output=short",
		"_SYSTEMD_UNIT=" + reach.Unit(fleet), "SYSLOG_IDENTIFIER=prefork",
	}
	if namespace := reach.LogNamespace(fleet); namespace != "" {
		args = append(args, "--namespace="+namespace)
	}
	args = append(args, matches...)
	text, err := exec.Command("journalctl", args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) || err == nil && len(text) == 0 {
		return false, nil // it runs without systemd
	}
	if err != nil {
		return false, exit.Failed("journalctl: %v: %s", err, strings.TrimSpace(string(text)))
	}
	_, err = out.Write(text)
	return true, err
}
