// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"net"
	"path/filepath"
	"slices"
	"testing"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/output/outputtest"
)

// watched are two sockets, and what the loop hears of them.
func watched(t *testing.T) (s *Sockets, connect func(name string), hear func() []fleet.Event) {
	t.Helper()
	dir, p := t.TempDir(), polltest.New(t)
	log, _ := outputtest.NewLog()
	path := func(name string) string { return filepath.Join(dir, name) }
	s, err := Open(&fleetfile.File{Sockets: []fleetfile.Socket{
		unixSocket("one", fleetfile.Stream, path("one")), unixSocket("two", fleetfile.Stream, path("two")),
	}}, nil, false, log, p.Source(7), p.Source(8))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	connect = func(name string) {
		conn, err := net.Dial("unix", path(name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	return s, connect, func() (events []fleet.Event) {
		for _, ready := range p.Wait(0, 1) {
			if ready.Kind != 7 {
				t.Errorf("got %v", ready)
			}
			events = append(events, s.Waits(int(ready.ID))...)
		}
		return events
	}
}

// Each worker that waits is told once of a connection, wherever it has come; nobody
// accepts it here.
func TestConnectionsAreToldOnce(t *testing.T) {
	s, connect, hear := watched(t)
	for worker, names := range [][]string{{"one", "two"}, {"two"}, {"one"}} {
		if err := s.Watch(fleet.WorkerID(worker), s.Current().Of(names)); err != nil {
			t.Fatal(err)
		}
	}
	if got := hear(); len(got) != 0 || Poll(s.Current().Of([]string{"one", "two"})) {
		t.Errorf("nobody connected: got %v", got)
	}
	connect("two")
	if got := hear(); !slices.Equal(got, []fleet.Event{fleet.Demand{Worker: 0}, fleet.Demand{Worker: 1}}) {
		t.Errorf("got %v", got)
	}
	if got := hear(); len(got) != 0 {
		t.Errorf("nobody waits at two any more: got %v", got)
	}
	if !Poll(s.Current().Of([]string{"two"})) || Poll(s.Current().Of([]string{"one"})) {
		t.Error("the connection waits at two, and still does")
	}
	if err := s.Watch(1, s.Current().Of([]string{"two"})); err != nil {
		t.Fatal(err)
	}
	if got := hear(); !slices.Equal(got, []fleet.Event{fleet.Demand{Worker: 1}}) {
		t.Errorf("who waits anew is told anew: got %v", got)
	}
	s.Unwatch(2)
	connect("one")
	if got := hear(); len(got) != 0 {
		t.Errorf("nobody waits: got %v", got)
	}
}

// Where one socket cannot be watched, the worker waits at none.
func TestWatchIsAllOrNothing(t *testing.T) {
	testutil.WantNoLeak(t)
	s, connect, hear := watched(t)
	s.current.byName["gone"] = []Socket{{FD: -1, Name: "gone"}}
	if err := s.Watch(1, s.Current().Of([]string{"one", "gone"})); err == nil {
		t.Error("a descriptor that is none is watched")
	}
	connect("one")
	if got := hear(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	delete(s.current.byName, "gone")
}

// After a worker is watched no more its socket can be watched again.
func TestUnwatchLeavesThePoller(t *testing.T) {
	p := polltest.New(t)
	s, _, _ := watched(t)
	s.source = p.Source(1)
	for range 2 {
		if err := s.Watch(1, s.Current().Of([]string{"one", "two"})); err != nil {
			t.Fatal(err)
		}
		s.Unwatch(1)
	}
	if len(s.watchers) != 0 || len(p.Wait(poll.Now(), poll.Now())) != 0 {
		t.Errorf("left are %v", s.watchers)
	}
}
