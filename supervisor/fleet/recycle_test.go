// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

// asks has a process ask for its successor once it may.
func (p *player) asks(name string) {
	p.t.Helper()
	p.wait(policy.MinRecycleAge)
	p.send(Notified{Proc: p.slot(name).proc, Recycle: policy.RecycleAsked})
}

func (p *player) wantRecycling(slot string) {
	p.t.Helper()
	got := ""
	if c := p.f.change; c != nil && c.Kind == ChangeRecycle {
		got = c.Slots[0]
	}
	if got != slot {
		p.t.Fatalf("%q is recycled, want %q; status %q", got, slot, p.f.status)
	}
}

func recyclable(w policy.Worker, order policy.Order) policy.Config {
	w.Roll = policy.Rolling{Order: order, Settle: sec}
	return fleetOf(w, execWorker("other", 1))
}

// Whatever an operator wants of the slot comes first.
func TestVerbsComeBeforeRecycling(t *testing.T) {
	for _, v := range []verb.Name{verb.Stop, verb.Restart, verb.Freeze} {
		for _, order := range []policy.Order{policy.StartFirst, policy.StopFirst} {
			p := play(t, recyclable(execWorker("w", 1), order))
			p.up()
			p.asks("w.0")
			p.wantRecycling("w.0")
			p.send(operator(v))
			p.wantRecycling("")
			refused := all[Answer](p.got)[0].Refusal != ""
			if s := p.slot("w.0"); refused != (v == verb.Freeze && order == policy.StopFirst) || s.next != nil || s.frozen != (v == verb.Freeze && !refused) {
				t.Errorf("%s, %s: refused %t, %+v", v, order, refused, s.hold)
			}
			p.wait(time.Hour)
			p.wantRecycling("")
		}
	}
}

// It waits for what would be missed: a slot that is frozen or reloads, a floor that is lost.
func TestRecyclingWaits(t *testing.T) {
	floor := recyclable(entryWorker("w", 1), policy.StartFirst)
	exec := recyclable(execWorker("w", 1), policy.StartFirst)
	for name, c := range map[string]struct {
		cfg      policy.Config
		but, yet func(p *player)
	}{
		"frozen": {
			exec, func(p *player) { p.send(operator(verb.Freeze)) },
			func(p *player) { p.send(operator(verb.Thaw)) },
		},
		"reloads": {
			exec, func(p *player) { p.say("w.0", Notified{Reloading: true}) },
			func(p *player) { p.say("w.0", Notified{Ready: true}) },
		},
		"without a floor": {floor, lose, func(p *player) {
			p.wait(floorBackoff)
			p.loaded()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := play(t, c.cfg)
			p.up()
			p.wait(policy.MinRecycleAge)
			c.but(p)
			p.send(Notified{Proc: p.slot("w.0").proc, Recycle: policy.RecycleAsked})
			p.wantRecycling("")
			c.yet(p)
			p.wantRecycling("w.0")
		})
	}
}

// What a process has asked for is not forgotten, though it asks before it is ready, and
// the file changes meanwhile: it may ask only once.
func TestWishesAreNotForgotten(t *testing.T) {
	w := notifyWorker()
	w.Policy.Watchdog = 0
	p := play(t, recyclable(w, policy.StartFirst))
	p.run("other.0")
	p.begin()
	p.say("w.0", Notified{Recycle: policy.RecycleRequests})
	p.wait(30 * sec)
	p.wantRecycling("")
	p.say("w.0", Notified{Ready: true})
	p.wait(policy.MinRecycleAge - sec)
	next := p.f.cfg
	next.Workers = []policy.Worker{w, execWorker("other", 1)}
	next.Workers[0].Recycle.Private = 1 << 30
	next.Workers[0].Keys = []policy.Key{{Name: "recycle_private", Class: policy.Live, Sum: 1}}
	p.send(Propose{ID: 1, Kind: ChangeReload, Revision: 2, Config: &next})
	p.wantRecycling("")
	p.wait(sec)
	p.wantRecycling("w.0")
}

// A slot that was superseded when its successor had its place already is not proven later,
// for the next one that is recycled.
func TestSupersededAfterItHasThePlace(t *testing.T) {
	p := play(t, recyclable(execWorker("w", 2), policy.StopFirst))
	p.up()
	p.asks("w.0")
	p.exit("w.0", termed)
	p.run("w.0")
	p.send(Notified{Proc: p.slot("w.1").proc, Recycle: policy.RecycleAsked})
	p.wait(sec / 2)
	next := p.f.cfg
	next.TimeoutStart++
	p.send(Propose{ID: 1, Kind: ChangeReload, Revision: 2, Config: &next})
	p.wantRecycling("w.1")
	p.wait(sec)
	p.wantRecycling("w.1")
	if s := p.slot("w.0"); s.byReason() != nil || s.state != StateReady {
		t.Errorf("w.0 is %s, recycled %v", s.state, s.byReason())
	}
}

// A successor that replaces one that has ended already has the policy of its worker.
func TestRecyclingThatInterruptsFails(t *testing.T) {
	p := play(t, recyclable(execWorker("w", 1), policy.StopFirst))
	p.up()
	p.asks("w.0")
	p.exit("w.0", termed)
	p.run("w.0")
	p.exit("w.0", status1)
	p.wantRecycling("")
	p.wantState("w.0", StateWaiting)
	p.wait(2 * sec)
	p.run("w.0")
	if s := p.slot("w.0"); s.byReason() != nil || s.failures != 1 {
		t.Errorf("recycled %v, %d failures", s.byReason(), s.failures)
	}
}

// One that is started on demand is recycled like others: its successor waits for no
// connection, and is proven.
func TestRecyclingOnDemand(t *testing.T) {
	p := play(t, recyclable(onDemand(execWorker("w", 1)), policy.StartFirst))
	p.run("other.0")
	p.send(Demand{1})
	p.run("w.0")
	p.asks("w.0")
	n := p.slot("w.0").next
	p.send(Introduced{n.proc, 9}, Running{n.proc})
	p.wait(sec)
	p.wantRecycling("")
	if s := p.slot("w.0"); s.pid != 9 || s.recycled != [len(policy.RecycleReasons)]int{3: 1} {
		t.Errorf("%d, %v", s.pid, s.recycled)
	}
}

// A file that is read anew counts from when a process was ready, and takes back what the
// old one wanted.
func TestRecycleAfterOfANewFile(t *testing.T) {
	reload := func(p *player, after time.Duration) {
		next := p.f.cfg
		w := execWorker("w", 1)
		w.Recycle.After, w.Keys = after, []policy.Key{{Name: "recycle_after", Class: policy.Live, Sum: uint64(after)}}
		next.Workers = []policy.Worker{w, execWorker("other", 1)}
		p.send(Propose{ID: 1, Kind: ChangeReload, Revision: p.f.revision + 1, Config: &next})
	}
	p := play(t, recyclable(execWorker("w", 1), policy.StartFirst))
	p.up()
	p.wait(time.Hour)
	reload(p, 2*time.Hour)
	p.wait(time.Hour - sec)
	p.wantRecycling("")
	reload(p, 0)
	p.wait(3 * time.Hour)
	p.wantRecycling("")
	reload(p, time.Hour) // long over
	p.untilDue()
	p.wantRecycling("w.0")
}
