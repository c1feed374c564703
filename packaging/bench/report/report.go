// SPDX-License-Identifier: AGPL-3.0-or-later

// Package report keeps what a run has measured, and shows it: as JSON with every
// sample, as tables in Markdown, and as plots.
package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// Run is all of one run.
type Run struct {
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"`
	Quick   bool      `json:"quick"`   // a smoke run: its figures are not to be quoted
	Systems []string  `json:"systems"` // that were compared
	Facts   []Fact    `json:"facts"`
	Topics  []*Topic  `json:"topics"`
}

// Facts that differ between runs in the same conditions.
const (
	Date       = "date"
	LoadBefore = "load average before"
)

// Complete takes over the topics of an earlier run that this one has not measured, in
// that order. It is an error if the two ran in different conditions.
func (r *Run) Complete(earlier *Run, order []string) error {
	same := func(a, b Fact) bool { return a == b || a.Name == b.Name && (a.Name == Date || a.Name == LoadBefore) }
	if !slices.EqualFunc(r.Facts, earlier.Facts, same) || r.Quick != earlier.Quick {
		return fmt.Errorf("it was measured in other conditions: %v, and now %v", earlier.Facts, r.Facts)
	}
	for _, t := range earlier.Topics {
		if r.Topic(t.Name) == nil {
			r.Topics = append(r.Topics, t)
		}
	}
	slices.SortStableFunc(r.Topics, func(a, b *Topic) int {
		return cmp.Compare(slices.Index(order, a.Name), slices.Index(order, b.Name))
	})
	return nil
}

// Fact is something that the figures depend on.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Topic is one table: systems in rows, figures in columns.
type Topic struct {
	Name    string   `json:"name"`
	Title   string   `json:"title"`
	About   string   `json:"about"`          // how it was measured
	Base    string   `json:"base,omitempty"` // the row that the others are divided by
	Columns []Column `json:"columns"`
	Rows    []*Row   `json:"rows"`
	Notes   []string `json:"notes,omitempty"` // what could not be measured, and why
	Turns   []Turn   `json:"turns"`
}

// Column is one figure.
type Column struct {
	Name string `json:"name"`
	Unit string `json:"unit,omitempty"`
	Plot bool   `json:"plot,omitempty"`
}

// Row is one system, or one variant of it.
type Row struct {
	Name string `json:"name"`
	// Number is how many workers it has, in topics that compare numbers.
	Number  int               `json:"number,omitempty"`
	Samples map[string]Series `json:"samples"` // by column
}

// Turn is when a system was measured, and how busy the machine was.
type Turn struct {
	Row    string    `json:"row"`
	Began  time.Time `json:"began"`
	Before string    `json:"load_before"` // the load averages
	After  string    `json:"load_after"`
	Failed string    `json:"failed,omitempty"`
}

// Row returns the row of that name, a new one at the end if there is none.
func (t *Topic) Row(name string, number int) *Row {
	if r := t.find(name, number); r != nil {
		return r
	}
	r := &Row{Name: name, Number: number, Samples: map[string]Series{}}
	t.Rows = append(t.Rows, r)
	return r
}

func (t *Topic) find(name string, number int) *Row {
	for _, r := range t.Rows {
		if r.Name == name && r.Number == number {
			return r
		}
	}
	return nil
}

// Add adds what was measured of one thing.
func (r *Row) Add(column string, values ...float64) {
	r.Samples[column] = append(r.Samples[column], values...)
}

// Topic returns the topic of that name, or nil.
func (r *Run) Topic(name string) *Topic {
	for _, t := range r.Topics {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Note notes something once.
func (t *Topic) Note(text string) {
	if !slices.Contains(t.Notes, text) {
		t.Notes = append(t.Notes, text)
	}
}

// Write writes it as JSON.
func (r *Run) Write(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// Read reads what Write has written.
func Read(r io.Reader) (*Run, error) {
	var run Run
	return &run, json.NewDecoder(r).Decode(&run)
}
