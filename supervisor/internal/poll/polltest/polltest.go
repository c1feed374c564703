// SPDX-License-Identifier: AGPL-3.0-or-later

// Package polltest is what the tests of rooms that wait for something need.
package polltest

import (
	"testing"

	"github.com/decnet/prefork/supervisor/internal/poll"
)

// New makes a poller that is closed when the test ends; kind 0 wakes it.
func New(t testing.TB) *poll.Poller {
	t.Helper()
	p, err := poll.New(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}
