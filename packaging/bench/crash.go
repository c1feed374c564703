// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"slices"
	"time"

	"github.com/decnet/prefork/packaging/bench/peer"
	"github.com/decnet/prefork/packaging/bench/proc"
	"github.com/decnet/prefork/packaging/bench/report"
)

const (
	boots      = "boots in 10 s"
	ownTime    = "CPU of the supervisor"
	familyTime = "CPU with the workers"
)

// crash runs two workers that end at once with an error, restarted as each
// system does it when nobody says otherwise.
func (b *bench) crash() error {
	t := b.topic(&report.Topic{
		Name: "crash", Title: "Two workers that crash at once, for 10 s",
		About: "From the first boot on, so that loading the floor does not count. The supervisor is with its floor, " +
			"if that is a process of its own. Of s6, what its s6-supervise processes have waited for is with the workers.",
		Columns: []report.Column{{Name: boots, Plot: true}, {Name: ownTime, Unit: "s"}, {Name: familyTime, Unit: "s", Plot: true}},
	})
	b.turns(t, min(b.rounds, 2), b.entrants(peer.Plan{Entry: "crash", Count: 2, Spares: 1}), func(e entrant) error {
		s, err := peer.Start(e.plan)
		if err != nil {
			return err
		}
		if _, err := s.Births.Await(1); err != nil {
			return errors.Join(err, s.Stop())
		}
		own, all := processorTime(s)
		n := 1.0
		for deadline := time.Now().Add(crashing); ; n++ {
			if _, err := s.Births.Next(deadline); err != nil {
				break
			}
		}
		ownAfter, allAfter := processorTime(s)
		row := t.Row(e.name, 0)
		row.Add(boots, n)
		row.Add(ownTime, ownAfter-own)
		row.Add(familyTime, allAfter-all)
		_ = s.Stop() // gunicorn, whose workers all fail, ends with an error
		return nil
	})
	return nil
}

// processorTime returns the seconds that a supervisor and its floor have used,
// and the same with all that they have waited for. The floor is a child that
// has lived longer than any worker that crashes; workers alive are too young to
// matter.
func processorTime(s *peer.System) (own, all float64) {
	masters := s.Masters()
	for _, pid := range s.All(nil) {
		stat, ok := proc.StatOf(pid)
		if !ok {
			continue
		}
		if slices.Contains(masters, pid) || isFloor(pid) {
			own += stat.Own
		}
		all += stat.Own + stat.Reaped
	}
	return own, all
}

func isFloor(pid int) bool { return slurp(proc.Path(pid, "comm")) == "prefork-floor" }
