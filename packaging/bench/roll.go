// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/decnet/prefork/packaging/bench/peer"
	"github.com/decnet/prefork/packaging/bench/proc"
	"github.com/decnet/prefork/packaging/bench/report"
)

const (
	rollTime = "time"
	failed   = "failed requests"
	answered = "answered meanwhile"
)

// The ways in which prefork replaces all workers; peers have one.
const (
	newFloor = ", new floor"
	rolling  = ", rolling restart"
	reload   = ", reload"
)

// roll replaces all workers under load.
func (b *bench) roll() error {
	const clients = 4
	t := b.topic(&report.Topic{
		Name: "roll", Title: "All workers are replaced under load",
		About: fmt.Sprintf("%d workers, %d clients. New floor is prefork restart FLEET; rolling restart, restart FLEET w; "+
			"reload, of a file in which the worker has changed. The time is until all successors have started and, "+
			"of prefork, until it is done: a successor has then been alive for settle_sec.", workers, clients),
		Columns: []report.Column{{Name: rollTime, Unit: "s", Plot: true}, {Name: failed}, {Name: answered}},
	})
	var all []entrant
	for _, e := range b.entrants(peer.Plan{Entry: "graceful", Count: workers, Spares: 1}) {
		switch {
		case e.plan.Kind.Prefork():
			for _, op := range []string{newFloor, rolling, reload} {
				all = append(all, entrant{name: e.name + op, plan: e.plan, op: op})
			}
		case e.plan.Kind.Rolls():
			all = append(all, e)
		default:
			t.Row(e.name, 0)
			t.Note(e.name + ": it cannot replace its workers but by a restart of everything")
		}
	}
	b.turns(t, min(b.rounds, 3), all, func(e entrant) error {
		return with(e.plan, func(s *peer.System, _ []peer.Birth) error {
			load := startLoad(s.Port, clients)
			time.Sleep(time.Second)
			began := proc.Now()
			err := rollOnce(s, e.op)
			took := proc.Since(began) / 1e3
			time.Sleep(time.Second)
			done, bad := load.stop()
			if err != nil {
				return err
			}
			row := t.Row(e.name, 0)
			row.Add(rollTime, took)
			row.Add(failed, float64(bad))
			row.Add(answered, float64(done))
			return nil
		})
	})
	return nil
}

func rollOnce(s *peer.System, op string) error {
	switch op {
	case rolling:
		return s.Command("restart", "w")
	case reload:
		p := s.Plan
		p.Change++
		return errors.Join(s.Rewrite(p), s.Command("reload"))
	default:
		return s.Roll()
	}
}

// clientele makes requests until it is stopped, and counts.
type clientele struct {
	ended     atomic.Bool
	wg        sync.WaitGroup
	done, bad atomic.Int64
}

func startLoad(port, clients int) *clientele {
	c := &clientele{}
	for range clients {
		c.wg.Go(func() {
			for !c.ended.Load() {
				if _, err := askOnce(port, "/"); err != nil {
					c.bad.Add(1)
					time.Sleep(time.Millisecond) // as a client that tries again
					continue
				}
				c.done.Add(1)
			}
		})
	}
	return c
}

func (c *clientele) stop() (done, bad int64) {
	c.ended.Store(true)
	c.wg.Wait()
	return c.done.Load(), c.bad.Load()
}
