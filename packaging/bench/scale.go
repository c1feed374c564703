// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/packaging/bench/peer"
	"github.com/decnet/prefork/packaging/bench/proc"
	"github.com/decnet/prefork/packaging/bench/report"
)

// count is memory and start by the number of workers.
func (b *bench) count() error {
	const start = "until all accept"
	t := b.topic(&report.Topic{
		Name: "count", Title: "1, 8 and 64 workers",
		About:   "Idle workers of the floor; PSS of supervisor, floor and workers.",
		Columns: []report.Column{{Name: pssIdle, Unit: "MB", Plot: true}, {Name: start, Unit: "ms", Plot: true}},
	})
	var all []entrant
	numbers := []int{1, 8, 64}
	if b.quick {
		numbers = numbers[:2]
	}
	for _, n := range numbers {
		for _, e := range b.entrants(peer.Plan{Entry: "serve", Count: n, Spares: 1}) {
			e.number = n
			all = append(all, e)
		}
	}
	b.turns(t, min(b.rounds, 2), all, func(e entrant) error {
		row := t.Row(e.name, e.number)
		took, err := launchOnce(e.plan)
		if err != nil {
			return err
		}
		row.Add(start, took)
		return with(e.plan, func(s *peer.System, births []peer.Birth) error {
			time.Sleep(settle)
			row.Add(pssIdle, pssOf(s.All(births)))
			return nil
		})
	})
	return nil
}

const (
	slotsStart = "start"
	slotsBack  = "until all are back"
	slotsStop  = "stop"
	perStart   = "CPU of the supervisor per start"
	perSlot    = "supervisor's PSS per slot"
)

// slots starts many workers, kills all of them and waits until all are back.
func (b *bench) slots() error {
	t := b.topic(&report.Topic{
		Name: "slots", Title: "10, 100 and 1,000 slots",
		About: "Idle workers of the floor, all killed at once and restarted without backoff. With 1,000 only prefork and the " +
			"polling master; 100 of what does not share have no floor, which would take 7 GB. It is an error if a " +
			"worker of prefork is lost or comes back twice, or a zombie is left.",
		Columns: []report.Column{
			{Name: slotsStart, Unit: "s", Plot: true},
			{Name: slotsBack, Unit: "s", Plot: true},
			{Name: slotsStop, Unit: "s"},
			{Name: perStart, Unit: "ms"},
			{Name: pssMaster, Unit: "MB", Plot: true},
			{Name: perSlot, Unit: "kB"},
			{Name: threads},
		},
	})
	var all []entrant
	numbers := []int{10, 100, 1000}
	if b.quick {
		numbers = numbers[:1]
	}
	for _, n := range numbers {
		for _, e := range b.entrants(peer.Plan{Count: n, Spares: 1, Restart: true}) {
			k := e.plan.Kind
			if n > 100 && !k.Prefork() && k.Key != "polling" {
				continue
			}
			e.plan.Entry = "wait"
			if k.WSGI {
				e.plan.Entry = "serve" // it has no other
			}
			if !k.Shares {
				e.plan.Trivial = true
				e.name += ", no floor"
			}
			e.number = n
			all = append(all, e)
		}
	}
	b.turns(t, min(b.rounds, 2), all, func(e entrant) error { return slotsOnce(t.Row(e.name, e.number), e.plan) })
	return nil
}

func slotsOnce(row *report.Row, p peer.Plan) error {
	one := p
	one.Count = 1
	var bare float64 // what a supervisor of one slot takes is no slot's
	err := with(one, func(s *peer.System, _ []peer.Birth) error {
		time.Sleep(settle)
		bare = pssOf(s.Masters())
		return nil
	})
	if err != nil {
		return err
	}
	began := proc.Now()
	s, births, err := peer.Up(p)
	if err != nil {
		return err
	}
	row.Add(slotsStart, proc.Since(began)/1e3)
	if err := killAll(row, s, births, bare); err != nil {
		_ = s.Stop() // the first error says it
		return err
	}
	began = proc.Now()
	err = s.Stop()
	row.Add(slotsStop, proc.Since(began)/1e3)
	return err
}

func killAll(row *report.Row, s *peer.System, births []peer.Birth, bare float64) error {
	time.Sleep(settle)
	masters := s.Masters()
	weight := pssOf(masters)
	began := proc.Now()
	for _, w := range births {
		if err := unix.Kill(w.PID, unix.SIGKILL); err != nil {
			return os.NewSyscallError("kill", err)
		}
	}
	again, err := s.Births.Await(s.Count)
	if err != nil {
		return err
	}
	row.Add(slotsBack, proc.Since(began)/1e3)
	row.Add(pssMaster, weight)
	if s.Kind.Prefork() || !s.Kind.Shares { // else a floor that is shared with more workers
		row.Add(perSlot, 1024*(weight-bare)/float64(s.Count))
	}
	own, count := 0.0, 0.0
	for _, pid := range masters {
		stat, _ := proc.StatOf(pid)
		own += stat.Own
		count += float64(stat.Threads)
	}
	if masters[0] != 1 { // PID 1 has done other things, too
		row.Add(perStart, 1e3*own/(2*float64(s.Count)))
	}
	row.Add(threads, count)
	if !s.Kind.Prefork() {
		return nil
	}
	return complete(s, again)
}

// complete checks that each slot came back once, and that nobody is left
// between.
func complete(s *peer.System, births []peer.Birth) error {
	slots := map[string]bool{}
	for _, w := range births {
		if slots[w.Slot] {
			return fmt.Errorf("%s came back twice", w.Slot)
		}
		slots[w.Slot] = true
	}
	time.Sleep(settle)
	master := s.Masters()[0]
	if n := proc.Zombies(master); n > 0 {
		return fmt.Errorf("%d zombies", n)
	}
	// The master, the floor and a spare.
	if n := len(proc.Family(master)) - 3; n != len(births) {
		return fmt.Errorf("%d workers instead of %d", n, len(births))
	}
	return nil
}
