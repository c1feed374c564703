// SPDX-License-Identifier: AGPL-3.0-or-later

package report

import (
	"fmt"
	"io"
	"strings"
)

// Goal is a figure that prefork is to reach.
type Goal struct {
	Figure string
	Reach  string  // in words, with the unit
	Limit  float64 // at most, or at least
	Least  bool    // Limit is the least
	Scale  float64 // from the column's unit to the goal's
	Ratio  bool    // it is the ratio to the topic's base, and has no scale
	Topic  string
	Column string
	Ours   string // what follows prefork's kind in the name of its row
	Number int    // of the row
}

// Of returns the goal's figure of the row of a kind; ok is false if it was not
// measured.
func (g Goal) Of(r *Run, kind string) (value float64, ok bool) {
	t := r.Topic(g.Topic)
	if t == nil {
		return 0, false
	}
	row := t.find(kind, g.Number)
	if row == nil || len(row.Samples[g.Column]) == 0 {
		return 0, false
	}
	value = row.Samples[g.Column].Median()
	if !g.Ratio {
		return value * g.Scale, true
	}
	base := t.find(t.Base, g.Number)
	if base == nil || len(base.Samples[g.Column]) == 0 {
		return 0, false
	}
	return value / base.Samples[g.Column].Median(), true
}

// reached says whether a value is good enough.
func (g Goal) reached(value float64) bool {
	if g.Least {
		return value >= g.Limit
	}
	return value <= g.Limit
}

// best is the peer that does best, or "".
func (g Goal) best(r *Run, peers []string) (name string, value float64) {
	for _, peer := range peers {
		x, ok := g.Of(r, peer)
		if ok && (name == "" || (x < value) != g.Least && x != value) {
			name, value = peer, x
		}
	}
	return name, value
}

// WriteGoals writes a table of the goals that the run has measured: those of
// ours, and the best of the peers beside them.
func WriteGoals(w io.Writer, r *Run, goals []Goal, ours, peers []string) {
	fmt.Fprintf(w, "| figure | goal | %s | best peer |\n", strings.Join(ours, " | "))
	fmt.Fprintf(w, "| --- | --- |%s --- |\n", strings.Repeat(" --- |", len(ours)))
	for _, g := range goals {
		line, found := "", false
		for _, kind := range ours {
			cell := "-"
			if x, ok := g.Of(r, kind+g.Ours); ok {
				found = true
				if cell = short(x); !g.reached(x) {
					cell += " (missed)"
				}
			}
			line += " | " + cell
		}
		if !found {
			continue
		}
		cell := "-"
		if name, x := g.best(r, peers); name != "" {
			cell = fmt.Sprintf("%s, %s", short(x), name)
		}
		fmt.Fprintf(w, "| %s | %s%s | %s |\n", g.Figure, g.Reach, line, cell)
	}
}
