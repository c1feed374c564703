// SPDX-License-Identifier: AGPL-3.0-or-later

package gauge

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/decnet/prefork/cmd/internal/display"
	"github.com/decnet/prefork/supervisor/memory"
)

// Write shows a report as text, in lines of a width.
func Write(out io.Writer, r *memory.Report, width int) error {
	var b strings.Builder
	for _, floor := range r.Floors {
		for _, line := range display.Wrap(aboutFloor(r.Fleet, &floor), width-2) {
			fmt.Fprintln(&b, line)
		}
	}
	if len(r.Floors) == 0 {
		fmt.Fprintf(&b, "%s: it has no floor\n", r.Fleet)
	}
	fmt.Fprintln(&b)
	for _, line := range table(r, width) {
		fmt.Fprintln(&b, line)
	}
	if total := sentence(&r.Total); total != "" {
		fmt.Fprintln(&b, "\n"+strings.Join(display.Wrap(total, width), "\n"))
	}
	for i := range r.Slots {
		if s := &r.Slots[i]; s.Why != nil {
			writeCauses(&b, s, width)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func aboutFloor(fleet string, f *memory.FloorReport) string {
	text := fmt.Sprintf("%s: floor of generation %d, process %d", fleet, f.Generation, f.PID)
	if f.Problem != "" {
		return text + ": " + f.Problem
	}
	text += fmt.Sprintf(": %s to share, %s of files", display.Size(f.Anonymous), display.Size(f.Files))
	if f.Huge > 0 {
		text += fmt.Sprintf("; %s in huge pages", display.Size(f.Huge))
	}
	if f.Swapped > 0 {
		text += fmt.Sprintf("; %s more swapped out", display.Size(f.Swapped))
	}
	return text
}

// sentence says what the fleet saves; "" if nothing was forked.
func sentence(t *memory.Total) string {
	if t.Forked == 0 || t.Once == 0 {
		return ""
	}
	text := fmt.Sprintf("%s %s once", howMany(t), display.Size(t.Once))
	if t.Slots > 1 {
		text += fmt.Sprintf("; %d separate processes would hold that once each, %s", t.Slots, display.Size(t.Separate))
	}
	written := "nothing"
	if t.Written > 0 {
		written = display.Size(t.Written)
	}
	return text + ". Written since the fork: " + written + "."
}

func howMany(t *memory.Total) string {
	switch spares := t.Forked - t.Slots; {
	case t.Forked == 1:
		return "1 process shares"
	case spares == 0:
		return fmt.Sprintf("%d slots share", t.Slots)
	case spares == 1:
		return fmt.Sprintf("%d slots and 1 spare share", t.Slots)
	default:
		return fmt.Sprintf("%d slots and %d spares share", t.Slots, spares)
	}
}

// column is one of numbers.
type column struct {
	title string
	value func(s *memory.SlotReport) string
}

// columnsOf are those that have something to say.
func columnsOf(r *memory.Report) []column {
	anonymous := map[uint32]uint64{}
	for _, f := range r.Floors {
		anonymous[f.Generation] = f.Anonymous
	}
	some := func(has func(s *memory.SlotReport) bool) bool {
		return slices.ContainsFunc(r.Slots, func(s memory.SlotReport) bool { return has(&s) })
	}
	var all []column
	add := func(title string, value func(s *memory.SlotReport) string) {
		all = append(all, column{title, value})
	}
	sizes := func(title string, of func(s *memory.SlotReport) uint64) {
		add(title, func(s *memory.SlotReport) string { return display.Size(of(s)) })
	}
	if len(r.Floors) > 1 || some(func(s *memory.SlotReport) bool { return s.Generation > 0 && anonymous[s.Generation] == 0 }) {
		add("GEN", func(s *memory.SlotReport) string { return display.Number(s.Generation) })
	}
	sizes("SHARED", func(s *memory.SlotReport) uint64 { return s.Shared })
	add("OF FLOOR", func(s *memory.SlotReport) string {
		if all := anonymous[s.Generation]; all > 0 && s.Generation > 0 {
			return fmt.Sprintf("%.1f%%", 100*float64(s.Shared)/float64(all))
		}
		return "-"
	})
	sizes("WRITTEN", func(s *memory.SlotReport) uint64 { return s.Written })
	sizes("OWN", func(s *memory.SlotReport) uint64 { return s.Own })
	if some(func(s *memory.SlotReport) bool { return s.Former > 0 }) {
		sizes("FORMER", func(s *memory.SlotReport) uint64 { return s.Former })
	}
	if some(func(s *memory.SlotReport) bool { return s.Swapped > 0 }) {
		sizes("SWAPPED", func(s *memory.SlotReport) uint64 { return s.Swapped })
	}
	sizes("FILES", func(s *memory.SlotReport) uint64 { return s.Files })
	if some(func(s *memory.SlotReport) bool { return s.Charged > 0 }) {
		sizes("CHARGED", func(s *memory.SlotReport) uint64 { return s.Charged })
	}
	return all
}

// table has a line for each slot: numbers, or why there are none.
func table(r *memory.Report, width int) (lines []string) {
	columns := columnsOf(r)
	rows := [][]string{{"SLOT"}}
	for _, c := range columns {
		rows[0] = append(rows[0], c.title)
	}
	for i := range r.Slots {
		row := []string{r.Slots[i].Name}
		for _, c := range columns {
			row = append(row, c.value(&r.Slots[i]))
		}
		rows = append(rows, row)
	}
	aligned := display.AlignRight(rows)
	for i, line := range aligned {
		if i == 0 {
			lines = append(lines, display.CutTo(line+"  WRITTEN IN", width))
			continue
		}
		s := &r.Slots[i-1]
		switch {
		case s.PID == 0:
			line = fmt.Sprintf("%-*s  no process: it is %s", nameWidth(rows), s.Name, s.State)
		case s.Problem != "":
			line = fmt.Sprintf("%-*s  %s", nameWidth(rows), s.Name, s.Problem)
		default:
			line += "  " + kinds(s.WrittenIn, width-len([]rune(line))-2)
		}
		lines = append(lines, display.CutTo(strings.TrimRight(line, " "), width))
	}
	return lines
}

func nameWidth(rows [][]string) (width int) {
	for _, row := range rows {
		width = max(width, len(row[0]))
	}
	return width
}

// kinds lists the largest, as many as there is room for.
func kinds(in map[memory.Kind]uint64, width int) string {
	names := slices.SortedFunc(maps.Keys(in), func(a, b memory.Kind) int {
		return cmp.Or(cmp.Compare(in[b], in[a]), cmp.Compare(a, b))
	})
	line := ""
	for _, name := range names {
		next := strings.TrimPrefix(line+fmt.Sprintf(", %s %s", name, display.Size(in[name])), ", ")
		if len(next) > width {
			break
		}
		line = next
	}
	return line
}

// writeCauses tells of a slot why it has written.
func writeCauses(b *strings.Builder, s *memory.SlotReport, width int) {
	if s.Why.Problem != "" {
		fmt.Fprintln(b, "\n"+strings.Join(display.Wrap(fmt.Sprintf("%s: why it has written is not told: %s", s.Name, s.Why.Problem), width), "\n  "))
		return
	}
	fmt.Fprintf(b, "\n%s has written %s of its floor (CPython %s):\n", s.Name, display.Size(s.Written), s.Why.Interpreter)
	rows := [][]string{{"", "WRITTEN", "ALONE"}}
	for _, c := range s.Why.Causes {
		rows = append(rows, []string{"", display.Size(c.Bytes), display.Size(c.Alone)})
	}
	for i, line := range display.AlignRight(rows) {
		cause, key := "BECAUSE OF", "SHARED WITH"
		if i > 0 {
			cause, key = string(s.Why.Causes[i-1].Cause), s.Why.Causes[i-1].Key
		}
		fmt.Fprintln(b, display.CutTo(strings.TrimRight(fmt.Sprintf("%s  %-34s  %s", line, cause, key), " "), width))
	}
	var modules []string
	for _, m := range s.Why.Modules {
		modules = append(modules, fmt.Sprintf("%s %s", m.Module, display.Size(m.Bytes)))
	}
	if len(modules) > 0 {
		fmt.Fprintln(b, "  "+strings.Join(display.Wrap("objects of "+strings.Join(modules, ", "), width-4), "\n    "))
	}
}
