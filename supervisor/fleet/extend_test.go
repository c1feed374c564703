// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// TestExtend asks for more time in each state, 5 s after it was entered.
func TestExtendTimeout(t *testing.T) {
	simple, endless := notifyWorker(), notifyWorker()
	simple.Policy.Watchdog = 0
	endless.Policy.TimeoutStart, endless.Policy.TimeoutStop, endless.Policy.Watchdog = 0, 0, 0
	nothing := func(*player) {}
	ready := (*player).ready
	reloading := func(p *player) { p.ready(); p.say("w.0", Notified{Reloading: true}) }
	stopping := func(p *player) { p.ready(); p.say("w.0", Notified{Stopping: true}) }
	stopped := func(p *player) { p.ready(); p.send(StopRequested{"SIGTERM"}) }
	aborted := func(p *player) { p.ready(); p.say("w.0", Notified{Trigger: true}) }
	killing := func(p *player) { p.ready(); p.send(StopRequested{"SIGTERM"}, StopRequested{"SIGTERM"}) }
	for _, c := range []struct {
		name     string
		w        policy.Worker
		state    func(*player)
		by, want time.Duration // of the deadline, from then
	}{
		{"starting", simple, nothing, 100 * sec, 100 * sec},
		{"starting, by little", simple, nothing, 10 * sec, 85 * sec},
		{"starting, by as much as is left", simple, nothing, 85 * sec, 85 * sec},
		{"starting, for good", simple, nothing, policy.Forever, policy.Forever},
		{"starting without a timeout", endless, nothing, 10 * sec, policy.Forever},
		{"reloading", simple, reloading, 100 * sec, 100 * sec},
		{"reloading, by little", simple, reloading, 10 * sec, 85 * sec},
		{"stopping by itself", simple, stopping, 20 * sec, 20 * sec},
		{"stopping by itself, by little", simple, stopping, 1, 10 * sec},
		{"stopping", simple, stopped, 20 * sec, 20 * sec},
		{"stopping, by little", simple, stopped, sec, 10 * sec},
		{"stopping without a timeout", endless, stopped, 20 * sec, policy.Forever},
		{"aborted", simple, aborted, 20 * sec, 20 * sec},
		{"killing", simple, killing, 20 * sec, 5 * sec},
		{"ready", simple, ready, 20 * sec, policy.Forever},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := playBeside(t, c.w)
			c.state(p)
			p.wait(5 * sec)
			p.say("w.0", Notified{Extend: c.by})
			if got := p.left("w.0"); got != c.want {
				t.Errorf("%s are left, want %s", got, c.want)
			}
			if got := p.slot("w.0").beatDue; got != policy.Never {
				t.Errorf("a keep-alive is due at %d", got)
			}
		})
	}
}

// As in systemd, more time is more time for the keep-alive as well; the next one
// counts as ever.
func TestExtendDelaysTheKeepAlive(t *testing.T) {
	for _, c := range []struct{ by, want time.Duration }{{60 * sec, 60 * sec}, {2 * sec, 3 * sec}} {
		p := playBeside(t, notifyWorker())
		p.ready()
		p.wait(2 * sec)
		p.say("w.0", Notified{Extend: c.by})
		if got := p.beatLeft("w.0"); got != c.want {
			t.Errorf("extended by %s: a keep-alive is due in %s, want %s", c.by, got, c.want)
		}
		p.say("w.0", Notified{Watchdog: true})
		if got := p.beatLeft("w.0"); got != 5*sec {
			t.Errorf("the next keep-alive is due in %s, want 5 s", got)
		}
	}
}

// What a process announces and what it asks for may come in one datagram: the
// time is for the state that is announced.
func TestExtendWithTheStateThatItIsFor(t *testing.T) {
	for _, n := range []Notified{{Stopping: true}, {Reloading: true}} {
		n.Extend = 500 * sec
		p := playBeside(t, notifyWorker())
		p.ready()
		p.say("w.0", n)
		if got := p.left("w.0"); got != 500*sec {
			t.Errorf("%+v: %s are left, want 500 s", n, got)
		}
	}
	p := playBeside(t, notifyWorker())
	p.say("w.0", Notified{Ready: true, Extend: 500 * sec})
	p.wantState("w.0", StateReady)
	if got := p.left("w.0"); got != policy.Forever {
		t.Errorf("a slot that is ready has %s left", got)
	}
	p.say("w.0", Notified{Trigger: true, Extend: 500 * sec})
	if got := p.left("w.0"); got != 15*sec {
		t.Errorf("SIGKILL follows SIGABRT in %s, want 15 s", got)
	}
}

// A slot may take longer; the fleet says when it is ready all the same.
func TestExtendIsNotForTheFleet(t *testing.T) {
	w := notifyWorker()
	cfg := fleetOf(w)
	cfg.TimeoutStart = 60 * sec
	p := play(t, cfg)
	p.begin()
	p.say("w.0", Notified{Extend: 500 * sec})
	if got := p.untilDue(); got != 60*sec {
		t.Fatalf("the start of the fleet ends after %s, want 60 s", got)
	}
	p.want(Stopping{})
}

func TestExtendedStartStillEnds(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.wait(80 * sec)
	p.say("w.0", Notified{Extend: 20 * sec})
	if got := p.untilDue(); got != 20*sec {
		t.Fatalf("the start ends after %s more, want 20 s", got)
	}
	p.wantState("w.0", StateStopping)
	p.wantResult("w.0", policy.Timeout)
}
