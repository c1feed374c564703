// SPDX-License-Identifier: AGPL-3.0-or-later

// Package outputtest keeps what a log writes, for tests.
package outputtest

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/decnet/prefork/supervisor/output"
)

// Lines are what a log has written, each with its priority prefix and newline.
type Lines struct {
	mu   sync.Mutex
	text []string
}

// NewLog returns a log that is kept, without a terminal.
func NewLog() (*output.Log, *Lines) {
	l := &Lines{}
	return output.LogTo(l.write), l
}

func (l *Lines) write(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, string(line))
}

// All are the lines so far.
func (l *Lines) All() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.text)
}

// Want fails the test unless one line has all of these parts.
func (l *Lines) Want(t testing.TB, parts ...string) {
	t.Helper()
	for _, line := range l.All() {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			return
		}
	}
	t.Errorf("no line has %q in\n%s", parts, strings.Join(l.All(), ""))
}
