// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/display"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/policy"
)

// writeFleet shows one fleet: what it is, and its slots, the worst first. newer tells of
// code that is newer than its floor, if there is some.
func writeFleet(out io.Writer, f *control.Status, newer string, now time.Time) error {
	width := lineWidth(out)
	var b strings.Builder
	headline := wrap(fmt.Sprintf("%s: %s, %s", f.Name, f.ActiveState, f.StatusText), width-2)
	fmt.Fprintln(&b, strings.Join(headline, "\n  "))
	about := fmt.Sprintf("%s, master %d", f.File, f.MainPID)
	if f.Generation > 0 {
		about += fmt.Sprintf(", floor generation %d", f.Generation)
	}
	fmt.Fprintf(&b, "  %s\n", about)
	for i := range f.Sockets {
		if text := display.Waits(&f.Sockets[i]); text != "" {
			fmt.Fprintln(&b, cutTo(fmt.Sprintf("  socket %s (%s): %s", f.Sockets[i].Name, f.Sockets[i].Address, text), width))
		}
	}
	if r := f.LastChangeResult; r != "" && r != control.ChangeDone {
		fmt.Fprintln(&b, "  "+strings.Join(wrap(fmt.Sprintf("the last change was not made: %s: %s", r, f.LastChangeText), width-4), "\n    "))
	}
	if newer != "" {
		fmt.Fprintln(&b, "  "+strings.Join(wrap(newer, width-4), "\n    "))
	}
	fmt.Fprintln(&b)
	rows, reasons := slotRows(f, now)
	for i, line := range table(rows) {
		fmt.Fprintln(&b, cutTo(line, width))
		if reasons[i] != "" {
			for _, why := range wrap(reasons[i], width-6) {
				fmt.Fprintf(&b, "    %s\n", why)
			}
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// slotRows are those of the slots of a fleet, the worst first, each with its tasks that
// need a look; and for each row why it is in trouble, "" if it is not.
func slotRows(f *control.Status, now time.Time) (rows [][]string, reasons []string) {
	rows, reasons = [][]string{{"SLOT", "STATE", "PID", "SINCE", "RESTARTS", "NOW"}}, []string{""}
	slots := slices.Clone(f.Slots)
	slices.SortStableFunc(slots, display.WorseFirst)
	for i := range slots {
		s := &slots[i]
		tasks := display.TasksInTrouble(s)
		ofTasks := s.State == "ready" && len(tasks) > 0
		rows = append(rows, []string{
			s.Name, s.State, display.Number(s.MainPID), ago(s.StateTimestamp, now), fmt.Sprint(s.NRestarts), display.Doing(s, now),
		})
		reason := ""
		if display.InTrouble(s) && !ofTasks {
			reason = s.Reason
		}
		reasons = append(reasons, reason)
		for j := range tasks {
			if t := &tasks[j]; ofTasks {
				rows = append(rows, []string{
					"  /" + t.Name, t.State, "", ago(t.StateTimestamp, now), fmt.Sprint(t.NRestarts), display.DoingTask(t, now),
				})
				reasons = append(reasons, t.Reason)
			}
		}
	}
	return rows, reasons
}

// writeFleets shows a line for each fleet, the worst first.
func writeFleets(out io.Writer, fleets []control.Status) error {
	slices.SortStableFunc(fleets, func(a, b control.Status) int {
		return cmp.Or(cmp.Compare(-troubles(&a), -troubles(&b)), cmp.Compare(a.Name, b.Name))
	})
	rows := [][]string{{"FLEET", "STATE", "STATUS"}}
	for i := range fleets {
		f := &fleets[i]
		text := f.StatusText
		if text == "" {
			text = f.File
		}
		rows = append(rows, []string{f.Name, f.ActiveState, text})
	}
	for _, line := range table(rows) {
		if _, err := fmt.Fprintln(out, cutTo(line, lineWidth(out))); err != nil {
			return err
		}
	}
	return nil
}

// troubles counts the slots that need a look, and a fleet that does not come up.
func troubles(f *control.Status) (n int) {
	if f.ActiveState == "failed" || f.ActiveState == "activating" && f.MainPID == 0 {
		n++
	}
	for i := range f.Slots {
		if display.InTrouble(&f.Slots[i]) {
			n++
		}
	}
	return n
}

func table(rows [][]string) []string { return display.Table(rows) }

func ago(timestamp uint64, now time.Time) string {
	return policy.Span(now.Sub(display.Time(timestamp)))
}

// usualWidth is that of a terminal, and of prose that goes elsewhere. Lines of facts that go
// elsewhere are as long as they are: a program reads them.
const (
	usualWidth = 80
	anyWidth   = 1 << 16
)

// lineWidth is what lines of facts are cut to, or wrapped at.
func lineWidth(out io.Writer) int {
	if file, ok := out.(*os.File); ok {
		if _, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ); err != nil {
			return anyWidth
		}
	}
	return widthOf(out)
}

func widthOf(out io.Writer) int {
	if file, ok := out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ); err == nil && size.Col >= 40 {
			return int(size.Col)
		}
	}
	return usualWidth
}

func cutTo(line string, width int) string { return display.CutTo(line, width) }

func wrap(text string, width int) []string { return display.Wrap(text, width) }
