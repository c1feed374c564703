// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/policy"
)

// fakeSystem is a world in which every program starts at once and ends when it
// is told, or after a time of its own.
type fakeSystem struct {
	start  time.Time
	life   time.Duration // 0: until it is killed
	events chan fleet.Event

	mu    sync.Mutex
	log   []string       // actions, "flush" and "wait", in order
	until policy.Instant // what the loop waits for
}

func newFakeSystem(life time.Duration) *fakeSystem {
	return &fakeSystem{start: time.Now(), life: life, events: make(chan fleet.Event, 16)}
}

func (s *fakeSystem) now() policy.Instant {
	return policy.Instant(time.Second + time.Since(s.start))
}

func (s *fakeSystem) wait(until policy.Instant) []fleet.Event {
	s.mu.Lock()
	s.log, s.until = append(s.log, "wait"), until
	s.mu.Unlock()
	var timer <-chan time.Time
	if until != policy.Never {
		timer = time.After(until.Sub(s.now()))
	}
	select {
	case ev := <-s.events:
		return []fleet.Event{ev}
	case <-timer:
		return nil
	}
}

func (s *fakeSystem) do(act fleet.Action) []fleet.Event {
	s.note(strings.TrimPrefix(fmt.Sprintf("%T", act), "fleet."))
	switch act := act.(type) {
	case fleet.StartShim:
		return []fleet.Event{fleet.Introduced{Proc: act.Proc, PID: int(act.Proc)}}
	case fleet.Assign:
		if s.life > 0 {
			go func() {
				time.Sleep(s.life)
				s.events <- fleet.Exited{Proc: act.Proc, Exit: policy.Exit{Code: 1}}
			}()
		}
		return []fleet.Event{fleet.Running{Proc: act.Proc}}
	case fleet.Kill:
		return []fleet.Event{fleet.Exited{Proc: act.Proc, Exit: policy.Exit{Signal: act.Signal}}}
	}
	return nil
}

func (s *fakeSystem) flush() { s.note("flush") }

func (s *fakeSystem) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, what)
}

// noted returns what happened so far, and what the loop waits for.
func (s *fakeSystem) noted() ([]string, policy.Instant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log), s.until
}

func (s *fakeSystem) count(what string) (n int) {
	log, _ := s.noted()
	for _, entry := range log {
		if entry == what {
			n++
		}
	}
	return n
}

func oneWorker() policy.Config {
	return policy.Config{Host: policy.Host{Seed: 1}, Workers: []policy.Worker{{Name: "web", Count: 1, Policy: policy.Policy{
		Restart: policy.RestartOnFailure, RestartSec: time.Second, RestartMaxDelay: 30 * time.Second,
		RestartReset: -1, TimeoutStop: 15 * time.Second, KillSignal: policy.SIGTERM,
	}}}}
}

// A worker that ends a second after each start waits out its backoff to the
// nanosecond, and each delay is the double of the last, with at most a tenth
// more.
func TestLoopWaitsOutTheBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sys, code := newFakeSystem(time.Second), make(chan int)
		go func() { code <- loop(fleet.New(oneWorker()), sys) }()
		synctest.Wait()
		for n, least := 1, time.Second; n <= 8; n, least = n+1, min(2*least, 30*time.Second) {
			if got := sys.count("StartShim"); got != n {
				t.Fatalf("%d starts, want %d", got, n)
			}
			time.Sleep(sys.life)
			synctest.Wait()
			_, until := sys.noted()
			delay := until.Sub(sys.now())
			if delay < least || delay > least+least/10 {
				t.Errorf("delay %d: got %s, want %s and at most a tenth more", n, delay, least)
			}
			time.Sleep(delay - time.Nanosecond)
			synctest.Wait()
			if got := sys.count("StartShim"); got != n {
				t.Errorf("1 ns before the delay is over: %d starts, want %d", got, n)
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
		}
		sys.events <- fleet.StopRequested{Why: "test"}
		if got := <-code; got != 0 {
			t.Errorf("exit status %d, want 0", got)
		}
		time.Sleep(sys.life) // the program that was killed had its own end before it
	})
}

// What comes of an action at once is dealt with before the loop waits, what is only told
// comes last, and each turn ends with one flush.
func TestLoopDealsWithOutcomesInTheSameTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sys, code := newFakeSystem(0), make(chan int)
		go func() { code <- loop(fleet.New(oneWorker()), sys) }()
		synctest.Wait()
		log, _ := sys.noted()
		first := log[:slices.Index(log, "wait")]
		want := []string{"StartShim", "Assign", "Ready", "flush"} // in this order
		got := slices.DeleteFunc(slices.Clone(first), func(s string) bool { return !slices.Contains(want, s) })
		if !slices.Equal(got, want) {
			t.Errorf("the first turn: got %v, want %v in it", first, want)
		}
		sys.events <- fleet.Running{Proc: 99} // nobody's: a turn all the same
		synctest.Wait()
		sys.events <- fleet.StopRequested{Why: "test"}
		if got := <-code; got != 0 {
			t.Errorf("exit status %d, want 0", got)
		}
		log, _ = sys.noted()
		last := slices.Compact(slices.Clone(log))
		if last, want = last[len(last)-3:], []string{"Quit", "Report", "flush"}; !slices.Equal(last, want) {
			t.Errorf("the end: got %v, want %v", last, want)
		}
		for i, entry := range log[:len(log)-1] {
			if (entry == "flush") != (log[i+1] == "wait") {
				t.Errorf("entry %d, %s, is followed by %s", i, entry, log[i+1])
			}
			if entry == "Report" && log[i+1] != "Report" && log[i+1] != "flush" {
				t.Errorf("entry %d: %s has waited until something was told", i+1, log[i+1])
			}
		}
	})
}

func TestLoopOfAnEmptyFleetEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sys := newFakeSystem(0)
		if code := loop(fleet.New(policy.Config{}), sys); code != 0 {
			t.Errorf("exit status %d, want 0", code)
		}
		if sys.count("wait") != 0 || sys.count("Ready") != 1 || sys.count("flush") != 1 {
			t.Errorf("got %v, want it ready, and ended in one turn", sys.log)
		}
	})
}
