// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

// What the loop has not heard when a client gives up is not done later. What it has heard
// may be: that is not told otherwise.
func TestAClientGivesUp(t *testing.T) {
	for _, heard := range []bool{false, true} {
		b := newBridge(t)
		synctest.Test(t, func(t *testing.T) {
			failed := make(chan error, 1)
			go func() {
				failed <- b.clients.Operate("web.0", verb.Call{Name: verb.Restart}, control.Caller{})
			}()
			synctest.Wait()
			if heard && len(b.Asked()) != 1 {
				t.Error("nothing was asked")
			}
			time.Sleep(answerTimeout)
			err := <-failed
			if err == nil || !strings.Contains(err.Error(), "did not answer within 5s") || strings.Contains(err.Error(), "nothing was done") == heard {
				t.Errorf("heard: %t: %v", heard, err)
			}
			if events := b.Asked(); len(events) != 0 {
				t.Errorf("heard: %t: it is asked later: %v", heard, events)
			}
			b.Answer(fleet.Answer{ID: 1}) // nobody waits for it
		})
	}
}

// All who look get one answer, and cost the loop one event.
func TestAllWhoLookAreAnsweredTogether(t *testing.T) {
	b := newBridge(t)
	seen := &Snapshot{Fleet: &control.Status{Name: "edge"}}
	synctest.Test(t, func(t *testing.T) {
		const clients = 10
		answers := make(chan *control.Status, clients)
		for range clients {
			go func() {
				f, err := b.clients.Look()
				if err != nil {
					t.Error(err)
				}
				answers <- f
			}()
		}
		synctest.Wait()
		if events := b.Asked(); len(events) != 1 || events[0] != (fleet.Inspect{}) {
			t.Errorf("got %v", events)
		}
		b.Show(seen)
		for range clients {
			if f := <-answers; f != seen.Fleet {
				t.Errorf("got %+v", f)
			}
		}
		if events := b.Asked(); len(events) != 0 {
			t.Errorf("afterwards: %v", events)
		}
	})
}

// A request wakes the loop.
func TestARequestWakesTheLoop(t *testing.T) {
	p := polltest.New(t)
	b := New(Config{Wake: p.Wake()})
	defer b.Close()
	go func() { _, _ = b.clients.Look() }() // it is told that the fleet has ended
	if ready := p.Wait(policy.Never, poll.Now()); len(ready) != 1 {
		t.Errorf("got %v", ready)
	}
}

// The last lines about a slot are kept, and no more.
func TestHistory(t *testing.T) {
	b := newBridge(t)
	now := poll.Now()
	for i := range maxHistory + 3 {
		b.Remember(now.Add(time.Duration(i)*time.Second), "web.0", fmt.Sprint(i))
	}
	b.Remember(now, "web.1", "other")
	got := b.clients.History("web.0")
	if len(got) != maxHistory || got[0].Text != "3" || got[maxHistory-1].Text != fmt.Sprint(maxHistory+2) {
		t.Errorf("got %+v", got)
	}
	if gap := got[1].Timestamp - got[0].Timestamp; gap != 1e6 {
		t.Errorf("a second is %d µs", gap)
	}
	if got := b.clients.History("web.9"); got == nil || len(got) != 0 {
		t.Errorf("of nobody: got %#v", got)
	}
}

// One instant is the same time whenever it is looked at, unless somebody has set the
// clock.
func TestClock(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := Clock{monotonic: 1000, real: start}
	at := c.At(policy.Instant(1000).Add(time.Minute))
	if want := uint64(start.Add(time.Minute).UnixMicro()); at != want {
		t.Errorf("got %d, want %d", at, want)
	}
	c.Adjust(Clock{monotonic: policy.Instant(1000).Add(time.Hour), real: start.Add(time.Hour + 50*time.Millisecond)})
	if c.At(policy.Instant(1000).Add(time.Minute)) != at {
		t.Error("the clock wanders, and the past with it")
	}
	c.Adjust(Clock{monotonic: policy.Instant(1000).Add(time.Hour), real: start.Add(3 * time.Hour)})
	if got, want := c.At(policy.Instant(1000).Add(time.Minute)), at+uint64((2*time.Hour).Microseconds()); got != want {
		t.Errorf("the clock was set: got %d, want %d", got, want)
	}
	if got := c.At(policy.Never); got != 0 {
		t.Errorf("never: got %d", got)
	}
}
