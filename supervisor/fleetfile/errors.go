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
