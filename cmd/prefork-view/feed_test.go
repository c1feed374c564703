// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/verb"
)

const patience = time.Minute

// master is one that a test can make silent.
type master struct {
	control.Backend

	looks  atomic.Int32
	silent chan struct{} // nil: it answers
}

func (m *master) Look() (*control.Status, error) {
	n := m.looks.Add(1)
	if m.silent != nil {
		<-m.silent
	}
	f := edge()
	f.Slots[0].NRestarts = uint32(n) // something has always changed
	return f, nil
}

func (*master) Measure(*control.Status) {}

func (*master) Idle() {}

func (*master) MayChange(control.Caller) error { return nil }

func (*master) Operate(string, verb.Call, control.Caller) error { return nil }

func serve(t *testing.T, socket string, m *master) *control.Server {
	t.Helper()
	s, err := control.Listen(socket, m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestFeedFindsItsMasterAgain, and asks nothing after its end.
func TestFeedFindsItsMasterAgain(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "control")
	at := control.Address{Socket: socket, Serves: func(string, string) bool { return true }}
	ctx, cancel := context.WithCancel(context.Background())
	told, ended := make(chan any), make(chan struct{})
	go func() {
		feed(ctx, at, func(what any) {
			select {
			case told <- what:
			case <-ctx.Done():
			}
		})
		close(ended)
	}()
	wait := func(what string, is func(any) bool) {
		t.Helper()
		for end := time.After(patience); ; {
			select {
			case got := <-told:
				if is(got) {
					return
				}
			case <-end:
				t.Fatalf("not within %s: %s", patience, what)
			}
		}
	}
	isSample := func(got any) bool { s, ok := got.(sampled); return ok && len(s.fleet.Slots) == len(edge().Slots) }
	lost := func(why string) func(any) bool {
		return func(got any) bool { m, ok := got.(missed); return ok && m.why == why }
	}

	wait("no master", lost(gone))
	first := &master{}
	server := serve(t, socket, first)
	wait("a sample", isSample)
	wait("a second one", isSample)
	server.Close()
	wait("its end", lost(gone))

	second := &master{silent: make(chan struct{})}
	server = serve(t, socket, second)
	wait("a stuck master", lost(stuck))
	close(second.silent)
	wait("one that answers again", isSample)
	if err := carryOut(ctx, at, operation{verb.Restart, "web.0"}); err != nil {
		t.Error(err)
	}
	if err := carryOut(ctx, at, operation{verb.Restart, "web.7"}); err == nil {
		t.Error("there is no web.7")
	}
	cancel()
	<-ended
	server.Close()
	if n := first.looks.Load(); n > 2+4 { // two: which fleet it is
		t.Errorf("%d looks, when two samples were told", n)
	}
}

// TestFeedFollowsChanges at once, and not each second.
func TestFeedFollowsChanges(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "control")
	at := control.Address{Socket: socket, Serves: func(string, string) bool { return true }}
	server := serve(t, socket, &master{})
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			server.Changed()
			time.Sleep(time.Millisecond)
		}
	}()
	last, soon := time.Time{}, false
	feed(ctx, at, func(what any) {
		s, ok := what.(sampled)
		switch {
		case !ok:
			t.Errorf("got %+v", what)
		case !last.IsZero() && s.at.Sub(last) < period*8/10:
			soon = true
			cancel()
		}
		last = s.at
	})
	if !soon {
		t.Errorf("not within %s: a sample soon after another", patience)
	}
}
