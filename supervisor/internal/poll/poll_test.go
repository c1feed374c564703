// SPDX-License-Identifier: AGPL-3.0-or-later

package poll

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/policy"
)

// Waiting too short would turn the loop for nothing; waiting for ever would miss
// the deadline.
func TestTimeoutRoundsUp(t *testing.T) {
	const now = policy.Instant(1e18)
	day := int(24 * time.Hour / time.Millisecond)
	for _, c := range []struct {
		until policy.Instant
		want  int
	}{
		{policy.Never, -1},
		{0, 0},
		{now - 1, 0},
		{now, 0},
		{now + 1, 1},
		{now + 999_999, 1},
		{now + 1_000_000, 1},
		{now + 1_000_001, 2},
		{now.Add(24 * time.Hour), day},
		{now.Add(24*time.Hour + 1), day},
		{policy.Never - 1, day},
	} {
		if got := timeout(c.until, now); got != c.want {
			t.Errorf("%s: got %d ms, want %d", c.until.Sub(now), got, c.want)
		}
	}
	if got := timeout(policy.Never-1, 0); got != day {
		t.Errorf("the longest: got %d ms, want %d", got, day)
	}
}

func newTestPoller(t *testing.T) *Poller {
	t.Helper()
	p, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestPollerReturnsTheEventThatItWasGiven(t *testing.T) {
	p := newTestPoller(t)
	for _, kind := range []Kind{0, 1, 0x7f, 0xff} {
		for _, id := range []uint64{0, 1, 1<<31 + 1, 1<<32 - 1, 1<<56 - 1} {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Source(kind).Add(int(r.Fd()), id); err != nil {
				t.Fatal(err)
			}
			if got := p.Wait(0, 0); len(got) != 0 {
				t.Errorf("nothing happened: got %v", got)
			}
			if _, err := w.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if got, want := p.Wait(policy.Never, 0), (Event{kind, id}); len(got) != 1 || got[0] != want {
				t.Errorf("got %v, want %v", got, want)
			}
			_, _ = r.Close(), w.Close()
		}
	}
}

// Messages are read before the ends of those who sent them.
func TestEventsComeInTheOrderOfTheirKinds(t *testing.T) {
	p := newTestPoller(t)
	for _, kind := range []Kind{200, 3, 0, 77} {
		ready, err := unix.Eventfd(1, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer linux.CloseFD(&ready)
		if err := p.Source(kind).Add(ready, 0); err != nil {
			t.Fatal(err)
		}
	}
	p.Wake().Up()
	want := []Event{{0, 0}, {1, 0}, {3, 0}, {77, 0}, {200, 0}}
	if got := p.Wait(policy.Never, 0); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Another id is reported from then on, and nothing of what was removed.
func TestSourceIsRenamedAndRemoved(t *testing.T) {
	p := newTestPoller(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	s := p.Source(5)
	_, _ = w.Write([]byte("x"))
	if err := errors.Join(s.Add(int(r.Fd()), 1), s.Rename(int(r.Fd()), 2)); err != nil {
		t.Fatal(err)
	}
	if got := p.Wait(0, 0); !slices.Equal(got, []Event{{5, 2}}) {
		t.Errorf("renamed: got %v", got)
	}
	if err := s.Remove(int(r.Fd())); err != nil {
		t.Fatal(err)
	}
	if got := p.Wait(0, 0); len(got) != 0 {
		t.Errorf("removed: got %v", got)
	}
}

func TestPollerWaitsUntilTheDeadlineHasPassed(t *testing.T) {
	p := newTestPoller(t)
	for range 5 {
		until := Now().Add(1500 * time.Microsecond)
		if got := p.Wait(until, Now()); len(got) != 0 || Now() < until {
			t.Errorf("it returned %v, %s before the deadline", got, until.Sub(Now()))
		}
	}
}

// Every signal wakes the poller; the end of a child interrupts its thread at nothing.
func TestSignalsWakeThePoller(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := newTestPoller(t)
	s := CatchSignals(p.Wake())
	if !masksChild(t) {
		t.Error("SIGCHLD comes to the thread that waits")
	}
	for _, sig := range []unix.Signal{unix.SIGUSR1, unix.SIGCHLD, unix.SIGPIPE} {
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		if got := p.Wait(policy.Never, 0); !slices.Equal(got, []Event{{1, 0}}) {
			t.Errorf("%s: got %v, want a wakeup", sig, got)
		}
		if got, ok := s.Next(); ok != (sig == unix.SIGUSR1) || ok && got != sig {
			t.Errorf("%s: got %v, %v", sig, got, ok)
		}
	}
	s.Close()
	if masksChild(t) {
		t.Error("the thread goes on without SIGCHLD")
	}
	p.Close()
	p.Wake().Up() // after Close it does nothing
}

func masksChild(t *testing.T) bool {
	t.Helper()
	var mask unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &mask); err != nil {
		t.Fatal(err)
	}
	return mask.Val[0]&(1<<(unix.SIGCHLD-1)) != 0
}

// A storm of signals is not kept one by one.
func TestSignalsAreBounded(t *testing.T) {
	s := newSignals(newTestPoller(t).Wake())
	go s.pass()
	for range 1000 {
		s.in <- unix.SIGHUP
	}
	close(s.in)
	<-s.done
	if len(s.pending) != maxPending {
		t.Errorf("%d are pending, want %d", len(s.pending), maxPending)
	}
}

// The heartbeat comes back the way that signals come, and only when it was sent.
func TestHeartbeat(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := newTestPoller(t)
	s := CatchSignals(p.Wake())
	defer s.Close()
	if s.Beaten() {
		t.Error("it has come back before it was sent")
	}
	for range 3 {
		if err := s.Beat(); err != nil {
			t.Fatal(err)
		}
		if got := p.Wait(Now().Add(testutil.Patience), Now()); !slices.Equal(got, []Event{{1, 0}}) {
			t.Fatalf("got %v", got)
		}
		if !s.Beaten() || s.Beaten() {
			t.Error("it has not come back once")
		}
	}
	if _, ok := s.Next(); ok {
		t.Error("it is told to the loop as a signal")
	}
}
