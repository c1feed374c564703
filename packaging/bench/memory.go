// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/packaging/bench/peer"
	"github.com/decnet/prefork/packaging/bench/proc"
	"github.com/decnet/prefork/packaging/bench/report"
)

// The columns. The sum is that of the supervisor, the floor, a spare and the
// workers.
const (
	privateIdle = "private of a worker, idle"
	privateGC   = "after gc.collect()"
	pssIdle     = "PSS of all, idle"
	pssGC       = "PSS of all, after gc.collect()"
	pssMaster   = "PSS of the supervisor"
)

// memory reads smaps_rollup. The systems run one after the other, since pages
// that two of them map would count half in each.
func (b *bench) memory() error {
	t := b.topic(&report.Topic{
		Name: "memory", Title: "Memory of 8 workers",
		About: "The floor is the same in all; private memory is that of each worker. The supervisor is without the " +
			"floor, unless it imports that itself. A row that waits has an entry that opens nothing; " +
			"one that is immortal has floor.immortal set.",
		Columns: []report.Column{
			{Name: privateIdle, Unit: "kB", Plot: true},
			{Name: privateGC, Unit: "kB", Plot: true},
			{Name: pssIdle, Unit: "MB"},
			{Name: pssGC, Unit: "MB", Plot: true},
			{Name: pssMaster, Unit: "MB"},
		},
	})
	all := b.entrants(peer.Plan{Entry: "serve", Count: workers, Spares: 1})
	for _, e := range all {
		k := e.plan.Kind
		if k.Prefork() && k.Key != "earlier" {
			e.plan.Eternal = true
			all = append(all, entrant{name: e.name + immortal, plan: e.plan})
			e.plan.Eternal = false
		}
		if k.Prefork() || k.Key == "polling" {
			e.plan.Entry = "wait"
			all = append(all, entrant{name: e.name + waits, plan: e.plan})
		}
	}
	b.turns(t, min(b.rounds, 3), all, func(e entrant) error {
		return with(e.plan, func(s *peer.System, births []peer.Birth) error {
			row := t.Row(e.name, 0)
			time.Sleep(settle)
			row.Add(privateIdle, privateOf(births)...)
			row.Add(pssIdle, pssOf(s.All(births)))
			row.Add(pssMaster, pssOf(s.Masters()))
			done, err := collect(s, births)
			defer done()
			if err != nil {
				return err
			}
			time.Sleep(settle)
			row.Add(privateGC, privateOf(births)...)
			row.Add(pssGC, pssOf(s.All(births)))
			return nil
		})
	})
	return nil
}

// What follows the name of a system in the rows of its variants.
const (
	waits    = ", waits"
	immortal = ", immortal"
	warm     = ", warm, repacked, immortal"
)

// collect makes every worker collect. Those that serve are kept busy until done
// is called.
func collect(s *peer.System, workers []peer.Birth) (done func(), err error) {
	if s.Entry == "serve" {
		held, err := hold(s.Port, s.Count, "/gc-hold")
		return func() { release(held) }, err
	}
	for _, w := range workers {
		if err := unix.Kill(w.PID, unix.SIGINT); err != nil {
			return func() {}, os.NewSyscallError("kill", err)
		}
	}
	_, err = s.Births.Await(s.Count)
	return func() {}, err
}

func privateOf(workers []peer.Birth) (all []float64) {
	for _, w := range workers {
		all = append(all, proc.MemoryOf(w.PID).Private)
	}
	return all
}

func pssOf(pids []int) (sum float64) {
	for _, pid := range pids {
		sum += proc.MemoryOf(pid).PSS / 1024
	}
	return sum
}

const (
	privateShop   = "private after 300 requests"
	privateShopGC = "after gc.collect(), too"
)

// shop has the workers answer requests as those of a usual application are.
func (b *bench) shop() error {
	t := b.topic(&report.Topic{
		Name: "shop", Title: "Private memory of a worker that has worked",
		About: "Each of 8 workers answers 300 requests of an application with Django and SQLAlchemy; then it collects. " +
			"Warm, repacked and immortal: floor.warm, floor.repack and floor.immortal are set.",
		Columns: []report.Column{
			{Name: privateShop, Unit: "kB", Plot: true},
			{Name: privateShopGC, Unit: "kB", Plot: true},
			{Name: pssGC, Unit: "MB"},
		},
	})
	var all []entrant
	for _, e := range b.entrants(peer.Plan{Entry: "serve", Count: workers, Spares: 1, Shop: true}) {
		all = append(all, e)
		if e.plan.Kind.Prefork() && e.plan.Kind.Key != "earlier" {
			e.name += warm
			e.plan.Warm, e.plan.Eternal = true, true
			all = append(all, e)
		}
	}
	b.turns(t, min(b.rounds, 3), all, func(e entrant) error {
		return with(e.plan, func(s *peer.System, births []peer.Birth) error {
			row := t.Row(e.name, 0)
			held, err := hold(s.Port, s.Count, "/shop-hold")
			defer func() { release(held) }()
			if err != nil {
				return err
			}
			time.Sleep(settle)
			row.Add(privateShop, privateOf(births)...)
			release(held)
			if held, err = hold(s.Port, s.Count, "/gc-hold"); err != nil {
				return err
			}
			time.Sleep(settle)
			row.Add(privateShopGC, privateOf(births)...)
			row.Add(pssGC, pssOf(s.All(births)))
			return nil
		})
	})
	return nil
}

// looks weighs a master with all that there is to look at it by, before anybody
// has, and afterwards; then nobody looks any more.
func (b *bench) looks() error {
	var all []entrant
	for _, e := range b.entrants(peer.Plan{Entry: "serve", Count: 100, Spares: 1, Metrics: true}) {
		if e.plan.Kind.Prefork() {
			all = append(all, e)
		}
	}
	if all == nil {
		return nil
	}
	columns := []string{"PSS of the master", "after 20 looks and scrapes", "its switches meanwhile", "its threads"}
	t := b.topic(&report.Topic{
		Name: "looks", Title: "prefork's master of 100 slots, when it is looked at",
		About:   "20 times prefork status --json and the metrics of every slot; then switches are counted while nobody looks.",
		Columns: []report.Column{{Name: columns[0], Unit: "MB"}, {Name: columns[1], Unit: "MB"}, {Name: columns[2]}, {Name: columns[3]}},
	})
	b.turns(t, 1, all, func(e entrant) error {
		return with(e.plan, func(s *peer.System, _ []peer.Birth) error {
			row, master := t.Row(e.name, 0), s.Masters()[0]
			time.Sleep(settle)
			row.Add(columns[0], pssOf(s.Masters()))
			for range 20 {
				if err := s.Look(); err != nil {
					return err
				}
			}
			time.Sleep(settle)
			row.Add(columns[1], pssOf(s.Masters()))
			time.Sleep(rest) // the runtime tidies up
			before := proc.Switches(master)
			time.Sleep(rest)
			row.Add(columns[2], proc.Switches(master)-before)
			stat, _ := proc.StatOf(master)
			row.Add(columns[3], float64(stat.Threads))
			return nil
		})
	})
	return nil
}
