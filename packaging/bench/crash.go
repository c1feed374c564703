// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import "time"

// crashing is how long two workers crash.
const crashing = 10 * time.Second

// crash runs two workers that end at once with an error, restarted as each
// system does it when nobody says otherwise.
func crash(options) error {
	t := newTable("", "boots in 10 s", "CPU s of the supervisor", "CPU s with the workers")
	for _, p := range []plan{{kind: terminal, spares: 1}, {kind: unit, spares: 1}, {kind: preload}, {kind: gunicorn}} {
		p.entry, p.count = "crash", 2
		if err := crashOnce(p, t); err != nil {
			return err
		}
	}
	t.print()
	return nil
}

// crashOnce counts from the first boot on: what loading the floor costs is not
// the crash loop's.
func crashOnce(p plan, t *table) error {
	s, err := start(p)
	if err != nil {
		return err
	}
	if _, err := s.births.await(1); err != nil {
		return err
	}
	own, all := processorTime(s.master)
	boots := 1.0
	for deadline := time.Now().Add(crashing); ; boots++ {
		if _, err := s.births.next(deadline); err != nil {
			break
		}
	}
	ownAfter, allAfter := processorTime(s.master)
	row := string(p.kind)
	t.add(row, t.columns[0], boots)
	t.add(row, t.columns[1], ownAfter-own)
	t.add(row, t.columns[2], allAfter-all)
	return s.stop()
}

// processorTime returns the seconds that a supervisor and its floor have used,
// and the same with all that they have waited for. The floor is a child that
// has lived longer than any worker that crashes; workers alive are too young to
// matter.
func processorTime(master int) (own, all float64) {
	for _, pid := range family(master) {
		s, ok := statOf(pid)
		if !ok {
			continue
		}
		if pid == master || isFloor(pid) {
			own += s.own
		}
		all += s.own + s.reaped
	}
	return own, all
}

func isFloor(pid int) bool { return slurp(proc(pid, "comm")) == "prefork-floor" }
