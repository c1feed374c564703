// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// series is what was measured of one thing.
type series []float64

func (s series) median() float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// String is the median, with the least and the most beside it.
func (s series) String() string {
	if len(s) == 0 {
		return "-"
	}
	if len(s) == 1 {
		return short(s[0])
	}
	return fmt.Sprintf("%s (%s–%s)", short(s.median()), short(slices.Min(s)), short(slices.Max(s)))
}

// short keeps three digits that matter.
func short(x float64) string {
	switch {
	case x == float64(int64(x)) || x >= 1000:
		return fmt.Sprintf("%.0f", x)
	case x >= 100:
		return fmt.Sprintf("%.1f", x)
	case x >= 10:
		return fmt.Sprintf("%.2f", x)
	default:
		return fmt.Sprintf("%.3f", x)
	}
}

// table collects figures under names, in the order in which they come.
type table struct {
	columns []string
	base    string // the row that the others are divided by
	rows    []string
	cells   map[string]map[string]series
}

// newTable is a table with these columns. With a base each median is followed
// by its ratio to that of the base.
func newTable(base string, columns ...string) *table {
	return &table{columns: columns, base: base, cells: map[string]map[string]series{}}
}

func (t *table) add(row, column string, values ...float64) {
	if t.cells[row] == nil {
		t.cells[row] = map[string]series{}
		t.rows = append(t.rows, row)
	}
	t.cells[row][column] = append(t.cells[row][column], values...)
}

func (t *table) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "\t"+strings.Join(t.columns, "\t")+"\tn")
	for _, row := range t.rows {
		line, n := row, 0
		for _, column := range t.columns {
			cell := t.cells[row][column]
			n = cmp.Or(n, len(cell))
			line += "\t" + cell.String() + t.ratio(row, column)
		}
		fmt.Fprintf(w, "%s\t%d\n", line, n)
	}
	_ = w.Flush() // to standard output: there is nowhere else to say so
}

func (t *table) ratio(row, column string) string {
	base, cell := t.cells[t.base][column], t.cells[row][column]
	if row == t.base || len(cell) == 0 || base.median() == 0 {
		return ""
	}
	return fmt.Sprintf(" ×%.2f", cell.median()/base.median())
}
