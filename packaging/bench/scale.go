// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// scale starts many slots of a trivial entry, kills all of them and waits until
// all are back.
func scale(opts options) error {
	t := newTable(
		"", "s to start", "s till all are back", "ms per start", "ms per restart",
		"CPU ms of the master per start", "of all the rest", "kB of the master per slot", "threads of the master",
	)
	for range min(opts.rounds, 3) {
		for _, n := range []int{10, 100, 1000} {
			for _, k := range kinds(terminal, unit) {
				if err := scaleOnce(k, n, t); err != nil {
					return fmt.Errorf("%s, %d slots: %w", k, n, err)
				}
			}
		}
	}
	t.print()
	return nil
}

func scaleOnce(k kind, n int, t *table) (err error) {
	floor, err := bareMaster(k)
	if err != nil {
		return err
	}
	began := now()
	s, err := start(plan{kind: k, entry: "wait", count: n, spares: 1, trivial: true, restart: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	births, err := s.births.await(n)
	if err != nil {
		return err
	}
	started := since(began)
	time.Sleep(settle)
	weight := memoryOf(s.master).pss
	began = now()
	for _, w := range births {
		if err := unix.Kill(w.pid, unix.SIGKILL); err != nil {
			return os.NewSyscallError("kill", err)
		}
	}
	again, err := s.births.await(n)
	if err != nil {
		return err
	}
	back := since(began)
	if err := complete(s, again); err != nil {
		return err
	}
	stat, _ := statOf(s.master)
	_, used := processorTime(s.master)
	starts := 2 * float64(n)
	row := fmt.Sprintf("%s, %d slots", k, n)
	for i, value := range []float64{
		started / 1e3, back / 1e3, (started - floor.start) / float64(n), back / float64(n),
		1e3 * stat.own / starts, 1e3 * (used - stat.own) / starts, (weight - floor.pss) / float64(n), float64(stat.threads),
	} {
		t.add(row, t.columns[i], value)
	}
	return nil
}

// bare is what a fleet of one slot takes: that part is no slot's.
type bare struct{ start, pss float64 }

func bareMaster(k kind) (b bare, err error) {
	began := now()
	s, _, err := up(plan{kind: k, entry: "wait", count: 1, spares: 1, trivial: true})
	if err != nil {
		return b, err
	}
	b.start = since(began)
	time.Sleep(settle)
	b.pss = memoryOf(s.master).pss
	return b, s.stop()
}

// complete checks that each slot came back once, and that nobody is left
// between.
func complete(s *system, births []birth) error {
	slots := map[string]bool{}
	for _, w := range births {
		if slots[w.slot] {
			return fmt.Errorf("%s came back twice", w.slot)
		}
		slots[w.slot] = true
	}
	time.Sleep(settle)
	if n := zombies(s.master); n > 0 {
		return fmt.Errorf("%d zombies", n)
	}
	// The master, the floor and a spare.
	if n := len(family(s.master)) - 3; n != len(births) {
		return fmt.Errorf("%d workers instead of %d", n, len(births))
	}
	return nil
}
