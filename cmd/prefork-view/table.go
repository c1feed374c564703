// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/decnet/prefork/cmd/internal/display"
	"github.com/decnet/prefork/supervisor/control"
)

const hour = time.Hour

// column is one of the table.
type column struct {
	title string
	width int
	right bool
	cell  func(s *control.SlotStatus) string
	look  func(s *control.SlotStatus) style // nil: normal
}

// The least widths of columns that take what the others leave.
const (
	leastBar = 6
	maxBar   = 24
	leastNow = 16
	wide     = 100 // columns of a terminal in which more is said
)

// columns are those that fit, the most needed first.
func (m *model) columns() (fitting []column) {
	since, sinceWidth := short, 6
	if m.width >= wide {
		since, sinceWidth = long, 9
	}
	name, left := m.nameWidth(), m.width-len(marker)+1
	for _, c := range []column{
		{"SLOT", name, false, func(s *control.SlotStatus) string { return middle(shownName(s), name) }, nil},
		{"STATE", 9, false, stateOf, func(s *control.SlotStatus) style { return colourOf(stateOf(s)) }},
		{"SINCE", sinceWidth, true, func(s *control.SlotStatus) string { return since(m.age(s)) }, nil},
		{"PID", m.pidWidth(), true, func(s *control.SlotStatus) string { return display.Number(s.MainPID) }, nil},
		{"RESTARTS", 8, true, func(s *control.SlotStatus) string { return fmt.Sprint(s.NRestarts) }, nil},
		{"CPU", 6, true, func(s *control.SlotStatus) string { return percent(m.usage.of(s)) }, nil},
		{"PRIVATE", 7, true, func(s *control.SlotStatus) string { return size(s.MemoryPrivate) }, nil},
		{"SHARED", 7, true, func(s *control.SlotStatus) string { return size(s.MemoryShared) }, nil},
	} {
		if c.width+1 > left && len(fitting) > 0 {
			return fitting
		}
		fitting, left = append(fitting, c), left-c.width-1
	}
	return append(fitting, m.flexible(left)...)
}

// flexible are the columns that share what is left: the bar and, in a wide
// terminal, the words.
func (m *model) flexible(left int) (all []column) {
	bar, now := left-1, 0
	if m.width >= wide {
		bar = min(max(left/3, leastBar), maxBar)
		now = left - bar - 3
	}
	if bar >= leastBar {
		most := m.maxMemory()
		all = append(all, column{"MEMORY", bar, false, func(s *control.SlotStatus) string { return barOf(s, most, bar) }, nil})
	}
	if now >= leastNow {
		all = append(all, column{" NOW", now + 1, false, words, nil})
	}
	return all
}

// words say what is next for a slot, or of itself, or why it is as it is.
func words(s *control.SlotStatus) string {
	text := s.Reason
	if beside := display.Beside(s); beside != "" {
		return " " + beside
	}
	switch {
	case len(s.Tasks) > 0 && s.State == "ready":
		text = display.Tasks(s)
	case !display.InTrouble(s) && s.StatusText != "":
		text = s.StatusText
	}
	return " " + text
}

func percent(p float64) string {
	switch {
	case p < 0:
		return "-"
	case p < 999.95:
		return fmt.Sprintf("%.1f%%", p)
	default:
		return fmt.Sprintf("%.0f%%", p)
	}
}

func (m *model) nameWidth() int {
	width := len("SLOT")
	if m.fleet != nil {
		for i := range m.fleet.Slots {
			s := &m.fleet.Slots[i]
			width = max(width, ansi.StringWidth(s.Name))
			for j := range s.Tasks {
				width = max(width, len(" /")+ansi.StringWidth(s.Tasks[j].Name))
			}
		}
	}
	return min(width, max(8, m.width/5))
}

func (m *model) pidWidth() int {
	width := 6
	if m.fleet != nil {
		for i := range m.fleet.Slots {
			width = max(width, len(fmt.Sprint(m.fleet.Slots[i].MainPID)))
		}
	}
	return width
}

// maxMemory is what a bar of full length stands for.
func (m *model) maxMemory() (most uint64) {
	if m.fleet != nil {
		for i := range m.fleet.Slots {
			s := &m.fleet.Slots[i]
			most = max(most, s.MemoryPrivate+s.MemoryShared)
		}
	}
	return most
}

// barOf shows private against shared memory. What there is at all can be seen.
func barOf(s *control.SlotStatus, most uint64, width int) string {
	if most == 0 {
		return ""
	}
	cells := func(bytes uint64) int {
		n := int(float64(bytes)/float64(most)*float64(width) + 0.5)
		if bytes > 0 {
			n = max(n, 1)
		}
		return n
	}
	private := cells(s.MemoryPrivate)
	shared := min(cells(s.MemoryShared), width-private)
	return strings.Repeat("█", private) + strings.Repeat("░", max(shared, 0))
}

// marker stands before the selected slot, for who sees no colours.
const marker = "> "

// scroll keeps the selected slot among those that are shown.
func (m *model) scroll(rows []control.SlotStatus, shown int) {
	at := m.cursor(rows)
	m.top = max(min(m.top, at, len(rows)-shown), at-shown+1, 0)
}

func (m *model) table(rows []control.SlotStatus, p plan) (lines []string) {
	columns := m.columns()
	if p.columns > 0 {
		lines = append(lines, m.titles(columns))
	}
	m.scroll(rows, p.rows)
	for i := m.top; i < m.top+p.rows; i++ {
		lines = append(lines, m.row(&rows[i], columns, i == m.cursor(rows)))
	}
	return lines
}

// titles underlines the one that the order goes by.
func (m *model) titles(columns []column) string {
	line := strings.Repeat(" ", len(marker)-1)
	for _, c := range columns {
		look := faint
		if strings.TrimSpace(c.title) == orders[m.order].column {
			look = normal.Bold().Underline(true)
		}
		title := fit(c.title, c.width)
		space := strings.Repeat(" ", c.width-len(title))
		if c.right {
			line += " " + space + look.Styled(title)
		} else {
			line += " " + look.Styled(title) + space
		}
	}
	return strings.TrimRight(line, " ")
}

// row leaves the colours out of what is old, and of the slot that is marked as a
// whole, but for its bar, which would be another if it were reversed.
func (m *model) row(s *control.SlotStatus, columns []column, selected bool) string {
	old := m.trouble() != ""
	before, look := " ", normal
	switch {
	case selected:
		before, look = "►", chosen
	case old:
		look = faint
	}
	line := look.Styled(before)
	for _, c := range columns {
		text := pad(c.cell(s), c.width, c.right)
		switch {
		case c.title == "MEMORY" && !old:
			bar := strings.TrimRight(text, " ")
			line += look.Styled(" ") + colouredBar(bar) + look.Styled(text[len(bar):])
		case c.look != nil && !selected && !old:
			line += " " + c.look(s).Styled(text)
		default:
			line += look.Styled(" " + text)
		}
	}
	if space := m.width - ansi.StringWidth(line); selected && space > 0 {
		line += look.Styled(strings.Repeat(" ", space))
	}
	return line
}

func colouredBar(bar string) string {
	private := strings.Count(bar, "█") * len("█")
	return cold.Styled(bar[:private]) + faint.Styled(bar[private:])
}
