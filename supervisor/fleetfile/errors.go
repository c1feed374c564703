// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a fleet file.
type Error struct {
	File string // "" if there is none
	Line int    // counted from 1; 0 if it is about no line
	Key  string // such as worker.web.count; "" if it is about no key
	Text string // the rule and the remedy

	cause error // for errors.Is; nil if the file could be read
}

// Error returns FILE:LINE: KEY: TEXT, without the parts that are not known.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File == "" {
		return e.Text
	}
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	return b.String() + ": " + e.Text
}

// Unwrap returns the error of the system call if the file could not be read.
func (e *Error) Unwrap() error { return e.cause }

// Errors is everything that is wrong with a fleet file, sorted by line.
type Errors []*Error

// Error returns one line for each error.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the single errors.
func (es Errors) Unwrap() []error {
	list := make([]error, len(es))
	for i, e := range es {
		list[i] = e
	}
	return list
}

// tidy sorts and drops repetitions: what [defaults] has wrong is found again
// in each worker.
func (es Errors) tidy() Errors {
	slices.SortStableFunc(es, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), strings.Compare(a.Key, b.Key), strings.Compare(a.Text, b.Text))
	})
	return slices.CompactFunc(es, func(a, b *Error) bool {
		return a.Line == b.Line && a.Key == b.Key && a.Text == b.Text
	})
}

// unknown reports a key that the table does not have, with the nearest key that
// it has, what is here for a word of others, or the table where the key belongs.
func (l *loader) unknown(path, name, header string, isDefaults, isTable bool) {
	here := Table{Header: header}
	var elsewhere []string
	for _, t := range l.schema {
		if t.Header == header {
			here = t
			continue
		}
		for _, k := range t.Keys {
			if plain(k.Name) == plain(name) {
				elsewhere = append(elsewhere, tableText(t.Header))
			}
		}
	}
	names := make([]string, len(here.Keys))
	for i, k := range here.Keys {
		names[i] = k.Name
	}
	near, others := Nearest(name, names), l.ofOthers(name, header, isDefaults, isTable)
	where := tableText(header)
	if isDefaults {
		where = "[defaults]"
	}
	switch {
	case others != "" && plain(near) != plain(name):
		l.errorf(path, "unknown key in %s; %s", where, others)
	case near != "" && (plain(near) == plain(name) || elsewhere == nil):
		l.errorf(path, "unknown key in %s; did you mean %s?", where, near)
	case elsewhere != nil:
		l.errorf(path, "unknown key in %s; move it to %s, where it belongs", where, strings.Join(elsewhere, " or "))
	default:
		l.errorf(path, "unknown key in %s; remove it (prefork init prints all keys that there are)", where)
	}
}

func tableText(header string) string {
	if header == "" {
		return "the top level"
	}
	return header
}

// plain makes RestartSec, restart-sec and restart_sec the same.
func plain(name string) string {
	return strings.ToLower(dashes.Replace(name))
}

var dashes = strings.NewReplacer("_", "", "-", "")

// maxLikely bounds the work of Nearest: no key is longer.
const maxLikely = 40

// Nearest returns the name that is so like the given one that it may have been
// meant, or "".
func Nearest(name string, names []string) string {
	want := plain(name[:min(len(name), maxLikely)])
	best, least := "", 1+max(1, len(want)/4)
	for _, candidate := range names {
		p := plain(candidate)
		if abs(len(p)-len(want)) >= least {
			continue
		}
		if d := distance(want, p); d < least {
			best, least = candidate, d
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// distance counts insertions, deletions, substitutions and swaps of neighbours
// that turn a into b.
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
