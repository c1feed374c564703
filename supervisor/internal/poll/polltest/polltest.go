// SPDX-License-Identifier: AGPL-3.0-or-later

// Package polltest is what the tests of rooms that wait for something need.
package polltest

import (
	"testing"

	"github.com/decnet/prefork/supervisor/internal/poll"
)

// New makes a poller that is closed when the test ends.
func New(t testing.TB) *poll.Poller {
	t.Helper()
	p, err := poll.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// NewWake makes one that is closed when the test ends, and that its source reports.
func NewWake(t testing.TB, s poll.Source) *poll.Wake {
	t.Helper()
	w, err := poll.NewWake(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}
