// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/decnet/prefork/packaging/bench/peer"
	"github.com/decnet/prefork/packaging/bench/report"
)

// workers is how many each system of the table in the contract has.
const workers = 8

// How long things take. A smoke run hurries.
var (
	// settle is how long a system is left alone before its memory is read: prefork's
	// master gives back what it does not need any more after two seconds.
	settle   = 4 * time.Second
	rest     = 20 * time.Second // a system is watched while nothing happens
	spell    = 3 * time.Second  // of load, each turn
	crashing = 10 * time.Second // two workers crash
)

func hurry() { settle, rest, spell = 2500*time.Millisecond, 3*time.Second, time.Second }

// bench is a run.
type bench struct {
	options
	run   *report.Run
	kinds []*peer.Kind
}

func (b *bench) progress(format string, args ...any) {
	took := time.Since(b.run.Began).Truncate(time.Second)
	fmt.Fprintf(os.Stderr, "%6s  %s\n", took, fmt.Sprintf(format, args...))
}

// topic begins one.
func (b *bench) topic(t *report.Topic) *report.Topic {
	b.run.Topics = append(b.run.Topics, t)
	return t
}

// entrant is who has a turn.
type entrant struct {
	name   string
	number int // of workers, in topics that compare numbers
	plan   peer.Plan
	op     string // of a roll
}

// entrants are the kinds with the same plan, but for what is refused.
func (b *bench) entrants(p peer.Plan, refuse ...string) (all []entrant) {
	for _, k := range b.kinds {
		refused := false
		for _, key := range refuse {
			refused = refused || k.Key == key
		}
		if !refused {
			p.Kind = k
			all = append(all, entrant{name: k.Name, plan: p})
		}
	}
	return all
}

// turns lets each have its turn in each round, another one first each time. Who
// fails is out, and noted.
func (b *bench) turns(t *report.Topic, rounds int, all []entrant, turn func(entrant) error) {
	out := map[string]bool{}
	for round := range rounds {
		for i := range all {
			e := all[(i+round)%len(all)]
			id := fmt.Sprint(e.name, " ", e.number)
			if !out[id] {
				b.progress("%s, round %d of %d: %s", t.Name, round+1, rounds, strings.TrimSuffix(id, " 0"))
				out[id] = b.turn(t, e, turn) != nil
			}
		}
	}
}

func (b *bench) turn(t *report.Topic, e entrant, turn func(entrant) error) error {
	t.Row(e.name, e.number) // in the order of the first round
	record := report.Turn{Row: e.name, Began: time.Now().UTC(), Before: loadAverage()}
	err := turn(e)
	record.After = loadAverage()
	if err != nil {
		record.Failed = err.Error()
		b.fail(t, e.name, err)
	}
	t.Turns = append(t.Turns, record)
	return err
}

func (b *bench) fail(t *report.Topic, row string, err error) {
	b.progress("%s: %s: %v", t.Name, row, err)
	first, _, _ := strings.Cut(err.Error(), "\n")
	t.Note(row + ": " + first)
}

// with runs a function with a system that is up, and stops it.
func with(p peer.Plan, use func(*peer.System, []peer.Birth) error) error {
	s, births, err := peer.Up(p)
	if err != nil {
		return err
	}
	return errors.Join(use(s, births), s.Stop())
}
