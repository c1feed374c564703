// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/output/outputtest"
	"github.com/decnet/prefork/supervisor/policy"
)

var http3 = []fleet.Saturation{{Socket: "http", Waiting: 3}}

// What has to be said is said within a second of when the connections came, and is taken
// back at the first look that finds none.
func TestSaturationIsSaidWithinASecond(t *testing.T) {
	v := vigil{lookAt: policy.Never}
	begin := policy.Instant(time.Hour)
	v.woken(begin)
	if v.look(v.lookAt, nil); v.lookAt != policy.Never {
		t.Fatalf("it does not fall asleep: %v", v.lookAt)
	}
	begin = begin.Add(time.Hour)
	v.woken(begin) // and all workers have become busy just now
	looks := 0
	for looks++; !v.look(v.lookAt, http3); looks++ {
		if looks > 100 {
			t.Fatal("it is never said")
		}
	}
	said := begin.Add(period + time.Duration(looks-1)*again)
	if !slices.Equal(v.saidNow, http3) || looks != enough || said.Sub(begin) >= time.Second {
		t.Errorf("said %v after %d looks, in %s", v.saidNow, looks, said.Sub(begin))
	}
	if got := v.lookAt.Sub(said); got != period {
		t.Errorf("the next look comes after %s", got)
	}
	if v.look(v.lookAt, http3) {
		t.Error("the same is said again")
	}
	if !v.look(v.lookAt, []fleet.Saturation{{Socket: "http", Waiting: 4}}) || v.saidNow[0].Waiting != 4 {
		t.Errorf("said %v", v.saidNow)
	}
	if !v.look(v.lookAt, nil) || len(v.saidNow) != 0 {
		t.Errorf("nothing waits, said %v", v.saidNow)
	}
}

// A burst that workers take is never told.
func TestBurstsAreNotSaid(t *testing.T) {
	v := vigil{}
	now := policy.Instant(0)
	for n := range 1000 {
		waits := http3
		if n%4 == 3 {
			waits = nil
		}
		if v.look(now, waits) {
			t.Fatalf("look %d: said %v", n, v.saidNow)
		}
		now = now.Add(again)
	}
}

// However many connections come, the loop is woken little more than once a second; it is
// not, while none comes, and seldom while the same ones wait for ever.
func TestLooksAreRare(t *testing.T) {
	wakes := func(span time.Duration, waits []fleet.Saturation) (n int) {
		v, now := vigil{lookAt: policy.Never}, policy.Instant(time.Hour)
		for end := now.Add(span); now < end; n++ {
			if v.lookAt == policy.Never { // the doorbell rings at once
				now = now.Add(time.Millisecond)
				v.woken(now)
				continue
			}
			now = v.lookAt
			v.look(now, waits)
		}
		return n
	}
	if n := wakes(time.Minute, nil); n > 90 {
		t.Errorf("%d times in a busy minute", n)
	}
	if n := wakes(time.Minute, http3); n > 30 {
		t.Errorf("%d times in a minute in which the same connections wait", n)
	}
}

// looked are sockets and what is said of them, by a loop.
func looked(t *testing.T, all ...fleetfile.Socket) (s *Sockets, turn func() []fleet.Event) {
	t.Helper()
	p := polltest.New(t)
	log, _ := outputtest.NewLog()
	s, err := Open(&fleetfile.File{Sockets: all}, nil, false, log, p.Source(7), p.Source(8))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, func() (events []fleet.Event) {
		for _, ready := range p.Wait(min(s.LookAt(), poll.Now().Add(10*time.Second)), poll.Now()) {
			if ready.Kind == 8 {
				s.Arrived(poll.Now())
			} else {
				events = append(events, s.Waits(int(ready.ID))...)
			}
		}
		return append(events, s.Look(poll.Now())...)
	}
}

// freeAddress is one at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing was written
	return l.Addr().String()
}

func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// accept takes n connections from a socket, as a worker does.
func accept(t *testing.T, fd, n int) {
	t.Helper()
	for range n {
		got, _, err := unix.Accept(fd)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(got)
	}
}

// The loop sleeps until a connection comes, says how many wait at which sockets, and falls
// asleep again when none does, whatever the sockets are.
func TestConnectionsThatWaitAreSaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "unix")
	many := ipSocket("many", freeAddress(t))
	many.ReusePort, many.Backlog, many.Listen = true, 1, append(many.Listen, many.Listen[0])
	s, turn := looked(t, ipSocket("tcp", "127.0.0.1:0"), unixSocket("unix", fleetfile.Seqpacket, path), many)
	if events := turn(); len(events) != 0 || s.LookAt() != policy.Never {
		t.Fatalf("got %v, looks at %v", events, s.LookAt())
	}
	address := s.current.byName["tcp"][0].address
	for range 3 {
		dial(t, "tcp", address)
	}
	dial(t, "unixpacket", path)
	// The kernel spreads them over both sockets of that address.
	for sum := s.Queues()[2]; sum.Length < 4; sum = s.Queues()[2] {
		// The one that is full lets none in.
		if conn, err := net.DialTimeout("tcp", sum.Address, 100*time.Millisecond); err == nil {
			defer conn.Close() //nolint:errcheck // a test's
		}
	}
	want := fmt.Sprint([]fleet.Event{fleet.Saturated{At: []fleet.Saturation{
		{Socket: "tcp", Waiting: 3}, {Socket: "unix", Waiting: 1}, {Socket: "many", Waiting: 4, Full: true},
	}}})
	until(t, turn, want)
	accept(t, s.current.byName["tcp"][0].FD, 2)
	accept(t, s.current.byName["unix"][0].FD, 1)
	accept(t, s.current.byName["many"][0].FD, 2)
	accept(t, s.current.byName["many"][1].FD, 2)
	until(t, turn, fmt.Sprint([]fleet.Event{fleet.Saturated{At: []fleet.Saturation{{Socket: "tcp", Waiting: 1}}}}))
	accept(t, s.current.byName["tcp"][0].FD, 1)
	until(t, turn, "[{[]}]")
	for s.LookAt() != policy.Never {
		if events := turn(); len(events) != 0 {
			t.Errorf("got %v", events)
		}
	}
}

// until has the loop turn until that is said: it takes few turns.
func until(t *testing.T, turn func() []fleet.Event, want string) {
	t.Helper()
	var got []fleet.Event
	for range 20 {
		if events := turn(); len(events) > 0 {
			if got = events; fmt.Sprint(got) == want {
				return
			}
		}
	}
	t.Fatalf("got %v last, want %s", got, want)
}

// Where nobody tells how many wait, it is still said that some do; no number is made up.
func TestQueuesThatAreNotKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "unix")
	s, turn := looked(t, unixSocket("unix", fleetfile.Stream, path), unixSocket("d", fleetfile.Datagram, path+"d"))
	s.diag.Close()
	s.diag = nil
	for _, q := range s.Queues() {
		if q.Length != Unknown || q.Limit != Unknown || q.Drops != Unknown {
			t.Errorf("got %+v", q)
		}
	}
	dial(t, "unix", path)
	until(t, turn, "[{[{unix -1 false}]}]")
}

// New sockets are looked at, old ones are not any more; who waits on demand is told beside.
func TestSaturationOfAnotherSet(t *testing.T) {
	dir := t.TempDir()
	old, next := unixSocket("old", fleetfile.Stream, filepath.Join(dir, "old")), unixSocket("next", fleetfile.Stream, filepath.Join(dir, "next"))
	s, turn := looked(t, old)
	turn()
	set, err := s.Prepare(&fleetfile.File{Sockets: []fleetfile.Socket{next}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Watch(1, set.Of([]string{"next"})); err != nil {
		t.Fatal(err)
	}
	s.Use(set)
	dial(t, "unix", filepath.Join(dir, "next"))
	until(t, turn, fmt.Sprint([]fleet.Event{fleet.Demand{Worker: 1}}))
	until(t, turn, "[{[{next 1 false}]}]")
}

// Who connects to a fleet that stops wakes nobody, whether it looked just then or not.
func TestNobodyLooksWhenTheFleetStops(t *testing.T) {
	for _, awake := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "unix")
		p := polltest.New(t)
		log, _ := outputtest.NewLog()
		s, err := Open(&fleetfile.File{Sockets: []fleetfile.Socket{unixSocket("unix", fleetfile.Stream, path)}}, nil, false, log, p.Source(7), p.Source(8))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		s.Look(poll.Now())
		if awake {
			s.Arrived(poll.Now())
		}
		s.StopLooking()
		dial(t, "unix", path)
		if ready := p.Wait(0, 1); len(ready) != 0 || s.LookAt() != policy.Never {
			t.Errorf("awake %t: got %v, looks at %v", awake, ready, s.LookAt())
		}
		if q := s.Queues(); len(q) != 1 || q[0].Length != 1 {
			t.Errorf("who asks is told: %+v", q)
		}
	}
}

func TestQueuesOfDatagrams(t *testing.T) {
	udp := ipSocket("udp", "127.0.0.1:0")
	udp.Type = fleetfile.Datagram
	s, turn := looked(t, udp)
	conn := dial(t, "udp", s.current.byName["udp"][0].address)
	if _, err := conn.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if got := s.Queues(); len(got) != 1 || got[0].Length < 100 || got[0].Limit < got[0].Length || got[0].Drops != 0 {
		t.Errorf("got %+v", got)
	}
	if events := turn(); len(events) != 0 || s.LookAt() != policy.Never {
		t.Errorf("datagrams are no connections: %v", events)
	}
}
