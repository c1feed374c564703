// SPDX-License-Identifier: AGPL-3.0-or-later

package floorreport

import (
	"fmt"
	"strings"

	"github.com/decnet/prefork/cmd/internal/display"
	"github.com/decnet/prefork/supervisor/examine"
)

// page is a text in lines of a width.
type page struct {
	strings.Builder
	width int
}

func (p *page) line(format string, args ...any) {
	fmt.Fprintln(p, strings.TrimRight(display.CutTo(fmt.Sprintf(format, args...), p.width), " "))
}

func (p *page) title(text string) {
	fmt.Fprintf(p, "\n%s\n", text)
}

// para breaks a text into lines, which begin with indent, and those after the first with
// two blanks more.
func (p *page) para(indent, format string, args ...any) {
	for i, line := range display.Wrap(fmt.Sprintf(format, args...), p.width-len(indent)-2) {
		if i == 1 {
			indent += "  "
		}
		p.line("%s%s", indent, line)
	}
}

// item is something that was found, and where it comes from.
func (p *page) item(from examine.Origin, format string, args ...any) {
	p.para("  ", format, args...)
	if from.During != "" {
		at := from.During
		if from.Where != "" {
			at += ", " + from.Where
		}
		p.para("    ", "by %s", at)
	}
}

func (p *page) table(rows [][]string) {
	for _, line := range display.Table(rows) {
		p.line("%s", line)
	}
}

// memory has a line for each way to load the floor.
func (p *page) memory(r *examine.Report) {
	m := r.Memory
	if m == nil || len(m.Rows) == 0 {
		return
	}
	p.title(fmt.Sprintf("Private memory of a worker of %s, kB, median of %d", m.Worker, m.Samples))
	rows := [][]string{{"  floor", "gate", "entry", "gc", "work", "gc", "floor"}}
	for i := range m.Rows {
		row := &m.Rows[i]
		rows = append(rows, []string{
			"  " + loadedAs(row), kB(row.Birth), kB(row.Entry), kB(row.Collected), kB(row.Worked), kB(row.WorkedCollected), kB(row.Floor),
		})
	}
	for _, line := range display.AlignRight(rows) {
		p.line("%s", line)
	}
	p.para("  ", "* as the fleet loads it. gate: a worker waits to become a slot; entry: its entry was imported; gc: gc.collect() was called; "+
		"work: floor.warm was called in it; floor: what the floor itself has, resident.")
	why := ""
	for i := range m.Rows {
		row := &m.Rows[i]
		if row.Error != "" && row.Error != why {
			why = row.Error // the other one has it, too
			p.para("  ", "%s: %s", loadedAs(row), row.Error)
		}
		if row.WorkError != "" && row.WorkError != why {
			why = row.WorkError
			p.para("  ", "%s: floor.warm fails in a worker: %s", loadedAs(row), row.WorkError)
		}
	}
}

func loadedAs(row *examine.Row) string {
	if row.AsFile {
		return row.Words() + "*"
	}
	return row.Words()
}

func kB(n int64) string {
	if n == 0 {
		return "-"
	}
	text := fmt.Sprint(n >> 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func (p *page) advice(r *examine.Report) {
	if len(r.Advice) == 0 && !r.Usable {
		return // mend it
	}
	p.title("Advice")
	if len(r.Advice) == 0 {
		p.line("  nothing")
	}
	for _, a := range r.Advice {
		key := a.Key
		if a.Value != "" {
			key += " = " + a.Value
		}
		p.para("  ", "%s: %s", key, a.Text)
	}
}
