// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
)

// Waiting too short would turn the loop for nothing; waiting for ever would miss
// the deadline.
func TestTimeoutRoundsUp(t *testing.T) {
	const now = fleet.Instant(1e18)
	day := int(24 * time.Hour / time.Millisecond)
	for _, c := range []struct {
		until fleet.Instant
		want  int
	}{
		{fleet.Never, -1},
		{0, 0},
		{now - 1, 0},
		{now, 0},
		{now + 1, 1},
		{now + 999_999, 1},
		{now + 1_000_000, 1},
		{now + 1_000_001, 2},
		{now.Add(24 * time.Hour), day},
		{now.Add(24*time.Hour + 1), day},
		{fleet.Never - 1, day},
	} {
		if got := timeout(c.until, now); got != c.want {
			t.Errorf("%s: got %d ms, want %d", c.until.Sub(now), got, c.want)
		}
	}
	if got := timeout(fleet.Never-1, 0); got != day {
		t.Errorf("the longest: got %d ms, want %d", got, day)
	}
}

func newTestPoller(t *testing.T) *poller {
	t.Helper()
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFD(&p.epfd) })
	return p
}

func TestPollerReturnsTheTokenThatItWasGiven(t *testing.T) {
	p := newTestPoller(t)
	for s := wakeups; s < sourceEnd; s++ {
		for _, id := range []uint64{0, 1, 1<<31 + 1, 1<<32 - 1, 1<<56 - 1} {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := p.add(int(r.Fd()), newToken(s, id)); err != nil {
				t.Fatal(err)
			}
			if got := p.wait(0, 0); len(got) != 0 {
				t.Errorf("nothing happened: got %v", got)
			}
			if _, err := w.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			got := p.wait(fleet.Never, 0)
			if len(got) != 1 || got[0].source() != s || got[0].id() != id {
				t.Errorf("got %x, want source %d and id %x", got, s, id)
			}
			_, _ = r.Close(), w.Close()
		}
	}
}

func TestPollerWaitsUntilTheDeadlineHasPassed(t *testing.T) {
	p := newTestPoller(t)
	for range 5 {
		until := monotonic().Add(1500 * time.Microsecond)
		if got := p.wait(until, monotonic()); len(got) != 0 || monotonic() < until {
			t.Errorf("it returned %v, %s before the deadline", got, until.Sub(monotonic()))
		}
	}
}

func TestSignalsWakeThePoller(t *testing.T) {
	p := newTestPoller(t)
	wake, err := newWakeup()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.add(wake.fd, newToken(wakeups, 0)); err != nil {
		t.Fatal(err)
	}
	s := newSignals(wake)
	for _, sig := range []unix.Signal{unix.SIGUSR1, unix.SIGCHLD, unix.SIGPIPE} {
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		if got := p.wait(fleet.Never, 0); len(got) != 1 || got[0].source() != wakeups {
			t.Errorf("%s: got %v, want a wakeup", sig, got)
		}
		wake.clear()
		select {
		case got := <-s.pending:
			if sig != unix.SIGUSR1 || got != sig {
				t.Errorf("%s: got %s", sig, got)
			}
		default:
			if sig == unix.SIGUSR1 {
				t.Errorf("%s was not passed on", sig)
			}
		}
	}
	s.close()
	wake.close()
	wake.up() // after close it does nothing
}

// A storm of signals is not kept one by one.
func TestSignalsAreBounded(t *testing.T) {
	wake, err := newWakeup()
	if err != nil {
		t.Fatal(err)
	}
	defer wake.close()
	s := &signals{in: make(chan os.Signal), pending: make(chan os.Signal, 16), wake: wake, done: make(chan struct{})}
	go s.pass()
	for range 1000 {
		s.in <- unix.SIGHUP
	}
	close(s.in)
	<-s.done
	if len(s.pending) != cap(s.pending) {
		t.Errorf("%d are pending, want %d", len(s.pending), cap(s.pending))
	}
}

// The heartbeat comes back the way that signals come, and only when it was sent.
func TestHeartbeat(t *testing.T) {
	wake, err := newWakeup()
	if err != nil {
		t.Fatal(err)
	}
	defer wake.close()
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(&p.epfd)
	if err := p.add(wake.fd, newToken(wakeups, 0)); err != nil {
		t.Fatal(err)
	}
	s := newSignals(wake)
	defer s.close()
	if s.taken() {
		t.Error("it has come back before it was sent")
	}
	for range 3 {
		if err := s.beat(); err != nil {
			t.Fatal(err)
		}
		now := monotonic()
		if got := p.wait(now.Add(patience), now); len(got) != 1 || got[0].source() != wakeups {
			t.Fatalf("got %v", got)
		}
		wake.clear()
		if !s.taken() || s.taken() {
			t.Error("it has not come back once")
		}
	}
	if len(s.pending) != 0 {
		t.Error("it is told to the loop as a signal")
	}
}
