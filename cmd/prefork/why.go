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
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "why FLEET [WORKER.N]",
		Short: "Tell why a fleet or a slot is as it is",
		Long: `Tell how a slot is, why, and what comes next, and the last things that happened to
it. journalctl -x has what can be done about each. WORKER.N/TASK is one of the tasks
of a slot. Without a slot, tell what is not well with the fleet: its slots that are in
trouble, its floor, its changes and its sockets.

With --json, the same as one object: of a slot or a task the fields of status --json
and history, a list of timestamp, slot and text; of a fleet well, which is true or
false, and problems, a list of what and text.`,
		Example:           "  prefork why fleet\n  prefork why fleet web.0\n  prefork why fleet io.0/poller",
		Args:              fleetAnd("WORKER.N, if you like", 0, 1),
		ValidArgsFunction: completeSlots,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := reach.Connect(args[0])
			if err != nil {
				return err
			}
			defer m.Close()
			out := cmd.OutOrStdout()
			f := m.Status
			switch {
			case len(args) == 1:
				return whyFleet(out, f, args[0], asJSON)
			case isTask(args[1]):
				return whyTask(out, m, args[0], args[1], asJSON)
			}
			i := slices.IndexFunc(f.Slots, func(s control.SlotStatus) bool { return s.Name == args[1] })
			if i < 0 {
				return exit.Failed("fleet %s has no slot %q; it has %s", args[0], args[1], listed(slotNames(f)))
			}
			if asJSON {
				history, err := remembered(m, args[1:])
				if err != nil {
					return err
				}
				return writeJSON(out, struct {
					control.SlotStatus
					History []happening `json:"history"`
				}{f.Slots[i], append([]happening{}, history...)})
			}
			if err := writeWhy(out, &f.Slots[i], time.Now()); err != nil {
				return err
			}
			return whatHappened(out, m, args[1], "PREFORK_SLOT="+args[1])
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// problem is something of a fleet that is not well.
type problem struct {
	What string `json:"what"` // a slot, floor, change or sockets
	Text string `json:"text"`
}

// problems are those of a fleet, the worst slots first.
func problems(f *control.Status, fleet string, now time.Time) (all []problem) {
	if f.Generation > 0 && f.FloorPID == 0 {
		all = append(all, problem{"floor", "there is none: what needs it waits"})
	}
	slots := slices.Clone(f.Slots)
	slices.SortStableFunc(slots, display.WorseFirst)
	for i := range slots {
		s := &slots[i]
		tasks := display.TasksInTrouble(s)
		if !display.InTrouble(s) {
			continue
		}
		if s.State != "ready" || len(tasks) == 0 {
			all = append(all, problem{s.Name, troubleOf(s.State, s.StateTimestamp, s.Reason, display.Doing(s, now), s.NextStartTimestamp > 0, now)})
			continue
		}
		for j := range tasks {
			t := &tasks[j]
			all = append(all, problem{s.Name + "/" + t.Name, troubleOf(t.State, t.StateTimestamp, t.Reason, display.DoingTask(t, now), t.NextStartTimestamp > 0, now)})
		}
	}
	if f.Change != 0 {
		all = append(all, problem{"change", fmt.Sprintf("%s %d is under way: %s", f.ChangeKind, f.Change, f.ChangeText)})
	}
	if r := f.LastChangeResult; r != "" && r != control.ChangeDone {
		all = append(all, problem{"change", fmt.Sprintf("the last one was not made: %s: %s", r, f.LastChangeText)})
	}
	if f.UnservedSockets != "" {
		all = append(all, problem{"sockets", fmt.Sprintf("no slot is left that serves %s: clients wait; what has finished is started by prefork start %s SLOT", f.UnservedSockets, fleet)})
	}
	if f.OutdatedSockets != "" {
		all = append(all, problem{"sockets", fmt.Sprintf("systemd listens elsewhere than the file says for %s: prefork restart --now %s takes that up", f.OutdatedSockets, fleet)})
	}
	return all
}

// troubleOf tells how a slot or a task is that needs a look.
func troubleOf(state string, since uint64, reason, doing string, due bool, now time.Time) string {
	text := fmt.Sprintf("%s for %s", state, ago(since, now))
	if reason != "" {
		text += ": " + reason
	}
	if due {
		text += "; " + doing
	}
	return text
}

// whyFleet tells what is not well with a fleet.
func whyFleet(out io.Writer, f *control.Status, fleet string, asJSON bool) error {
	all := problems(f, fleet, time.Now())
	well := len(all) == 0 && f.ActiveState == "active"
	if asJSON {
		return writeJSON(out, struct {
			Fleet      string    `json:"fleet"`
			State      string    `json:"active_state"`
			StatusText string    `json:"status_text"`
			Well       bool      `json:"well"`
			Problems   []problem `json:"problems"`
		}{f.Name, f.ActiveState, f.StatusText, well, append([]problem{}, all...)})
	}
	width := lineWidth(out)
	var b strings.Builder
	say := func(indent, text string) {
		fmt.Fprintln(&b, indent+strings.Join(wrap(text, width-len(indent)-2), "\n"+indent+"  "))
	}
	say("", fmt.Sprintf("%s: %s, %s", f.Name, f.ActiveState, f.StatusText))
	if well {
		say("  ", "all is well")
	}
	const most = 12 // a screen; prefork status has all of them
	for i, p := range all {
		if i == most {
			say("  ", fmt.Sprintf("and %d more: prefork status %s", len(all)-most, fleet))
			break
		}
		say("  ", p.What+": "+p.Text)
	}
	if len(all) > 0 && strings.Contains(all[0].What, ".") {
		fmt.Fprintf(&b, "\nwhat happened to a slot: prefork why %s %s\n", fleet, all[0].What)
	}
	_, err := io.WriteString(out, b.String())
	return err
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
func whyTask(out io.Writer, m *reach.Master, fleet, name string, asJSON bool) error {
	s, t, err := taskNamed(fleet, name, m.Status)
	if err != nil {
		return err
	}
	if asJSON {
		history, err := remembered(m, []string{name})
		if err != nil {
			return err
		}
		return writeJSON(out, struct {
			control.TaskStatus
			History []happening `json:"history"`
		}{*t, append([]happening{}, history...)})
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
	if next := display.Doing(s, now); next != "" && next != s.Reason && s.State == "waiting" {
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
