// SPDX-License-Identifier: AGPL-3.0-or-later

package report

import (
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

// WriteMarkdown writes the conditions of a run and a table for each topic. plots
// are links to the files of [WritePlots], by topic.
func WriteMarkdown(w io.Writer, r *Run, plots map[string][]string) {
	fmt.Fprintln(w, "| condition | |\n| --- | --- |")
	for _, f := range r.Facts {
		fmt.Fprintf(w, "| %s | %s |\n", escape(f.Name), escape(f.Value))
	}
	for _, t := range r.Topics {
		writeTopic(w, t)
		for _, file := range plots[t.Name] {
			fmt.Fprintf(w, "\n![%s](%s)\n", t.Title, path.Clean(file))
		}
	}
}

func writeTopic(w io.Writer, t *Topic) {
	fmt.Fprintf(w, "\n## %s\n\n%s\n\n", t.Title, t.About)
	numbered := false
	for _, r := range t.Rows {
		numbered = numbered || r.Number > 0
	}
	head, rule := "| ", "| --- |"
	if numbered {
		head, rule = head+"| n ", rule+" --- |"
	}
	for _, c := range t.Columns {
		head += "| " + escape(c.label()) + " "
		rule += " --- |"
	}
	fmt.Fprintf(w, "%s| samples |\n%s --- |\n", head, rule)
	for _, r := range t.Rows {
		line, n := "| "+escape(r.Name), 0
		if numbered {
			line += " | " + strconv.Itoa(r.Number)
		}
		for _, c := range t.Columns {
			cell := r.Samples[c.Name]
			n = max(n, len(cell))
			line += " | " + cell.String() + t.ratio(r, c.Name)
		}
		fmt.Fprintf(w, "%s | %d |\n", line, n)
	}
	if before, after, ok := t.loads(); ok {
		fmt.Fprintf(w, "\nLoad average before the first turn: %s; after the last: %s.\n", before, after)
	}
	for i, note := range t.Notes {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "- %s\n", escape(note))
	}
}

// label is a column's name with its unit.
func (c Column) label() string {
	if c.Unit == "" {
		return c.Name
	}
	return c.Name + ", " + c.Unit
}

func (t *Topic) ratio(r *Row, column string) string {
	base := t.find(t.Base, r.Number)
	if base == nil || base == r || len(r.Samples[column]) == 0 || base.Samples[column].Median() == 0 {
		return ""
	}
	return fmt.Sprintf(" ×%.2f", r.Samples[column].Median()/base.Samples[column].Median())
}

func (t *Topic) loads() (before, after string, ok bool) {
	if len(t.Turns) == 0 {
		return "", "", false
	}
	return t.Turns[0].Before, t.Turns[len(t.Turns)-1].After, true
}

// escape keeps a text in its cell.
func escape(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}
