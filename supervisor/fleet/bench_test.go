// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"testing"

	"github.com/decnet/prefork/supervisor/policy"
)

// BenchmarkDecide is the price of one event in a fleet of n ready slots: a tick
// that finds nothing to do, and the end and the return of a worker.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		cfg := fleetOf(entryWorker("w", n))
		cfg.Spares, cfg.Workers[0].Policy.RestartSec = 1, 0
		b.Run(fmt.Sprintf("tick/%d", n), func(b *testing.B) {
			p := benchUp(b, cfg)
			for b.Loop() {
				p.now++
				p.f.Decide(p.now, Tick{})
				p.f.Deadline()
			}
		})
		b.Run(fmt.Sprintf("restart/%d", n), func(b *testing.B) {
			p := benchUp(b, cfg)
			i, before := 0, p.f.last.proc
			for b.Loop() {
				p.now = p.now.Add(sec)
				s := p.f.slots[i%n]
				p.f.Decide(p.now, Exited{Proc: s.proc, Exit: killed})
				p.f.Decide(p.now, Running{s.proc})
				p.f.Decide(p.now, Introduced{p.f.floor.pool.request(), 1})
				p.f.Deadline()
				i++
			}
			if got := p.f.last.proc - before; got != Proc(i) {
				b.Fatalf("%d restarts made %d processes", i, got)
			}
		})
		b.Run(fmt.Sprintf("start-all/%d", n), func(b *testing.B) {
			for b.Loop() {
				benchUp(b, cfg)
			}
		})
	}
}

// benchUp brings a fleet up without the checks of a player.
func benchUp(b *testing.B, cfg policy.Config) *player {
	p := &player{t: b, f: New(cfg), now: policy.Instant(sec)}
	p.f.Decide(p.now, Tick{})
	p.f.Decide(p.now, FloorLoaded{Proc: p.f.floor.proc})
	for i := range p.f.slots {
		p.f.Decide(p.now, Introduced{p.f.floor.pool.request(), 1})
		p.f.Decide(p.now, Running{p.f.slots[i].proc})
	}
	p.f.Decide(p.now, Introduced{p.f.floor.pool.request(), 1})
	if p.f.phase != serving || len(p.f.floor.pool.spares) != 1 {
		b.Fatalf("the fleet is not up: %s", p.f.status)
	}
	return p
}
