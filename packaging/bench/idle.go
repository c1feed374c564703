// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// rest is how long the systems are watched while nothing happens.
const rest = 30 * time.Second

// idle counts context switches of supervisors that have nothing to do. Only the
// unit has a watchdog to serve.
func idle(options) (err error) {
	columns := []string{"switches of the master in 30 s", "of all others", "threads of the master"}
	t := newTable("", columns...)
	var systems []*system
	defer func() {
		for _, s := range systems {
			err = errors.Join(err, s.stop())
		}
	}()
	for _, p := range []plan{{kind: terminal, spares: 1}, {kind: unit, spares: 1}, {kind: preload}} {
		p.entry, p.count = "serve", workers
		s, _, err := up(p)
		if err != nil {
			return err
		}
		systems = append(systems, s)
	}
	time.Sleep(5 * time.Second)
	before := make([]counts, len(systems))
	for i, s := range systems {
		before[i] = count(s)
	}
	time.Sleep(rest)
	for i, s := range systems {
		after := count(s)
		stat, _ := statOf(s.master)
		t.add(string(s.kind), columns[0], after.master-before[i].master)
		t.add(string(s.kind), columns[1], after.others-before[i].others)
		t.add(string(s.kind), columns[2], float64(stat.threads))
	}
	t.print()
	return nil
}

type counts struct{ master, others float64 }

func count(s *system) (c counts) {
	c.master = switches(s.master)
	for _, pid := range family(s.master)[1:] {
		c.others += switches(pid)
	}
	return c
}

// launch takes the time until every worker answers, and that of the imports
// alone. Each turn starts and stops everything.
func launch(opts options) error {
	const imports = "imports alone"
	t := newTable(imports, "ms until 8 workers answer", "beyond the imports")
	for range opts.rounds {
		bare, err := importFloor()
		if err != nil {
			return err
		}
		t.add(imports, t.columns[0], bare)
		for _, p := range plans(plan{kind: terminal, spares: 1}, plan{kind: unit, spares: 1}, plan{kind: preload}, plan{kind: gunicorn}) {
			p.entry, p.count = "serve", workers
			took, err := launchOnce(p)
			if err != nil {
				return err
			}
			t.add(string(p.kind), t.columns[0], took)
			t.add(string(p.kind), t.columns[1], took-bare)
		}
	}
	t.print()
	return nil
}

func launchOnce(p plan) (float64, error) {
	type outcome struct {
		s   *system
		err error
	}
	port := 20000 + serial + 1 // that of the system that starts now
	began := now()
	started := make(chan outcome, 1)
	go func() {
		s, err := start(p)
		started <- outcome{s, err}
	}()
	held, err := hold(port, p.count, "/hold")
	took := since(began)
	release(held)
	o := <-started
	if o.err != nil {
		return 0, o.err
	}
	if err == nil {
		_, err = o.s.births.await(p.count)
	}
	return took, errors.Join(err, o.s.stop())
}

// importFloor takes the milliseconds until a fresh interpreter has the floor.
func importFloor() (float64, error) {
	cmd := exec.Command("python3", "-c", "import floor, app, time; print(time.monotonic_ns())")
	cmd.Dir = filepath.Clean(dir)
	cmd.Env = append(cmd.Environ(), "OPENBLAS_NUM_THREADS=1")
	began := now()
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	var done int64
	_, err = fmt.Sscan(string(out), &done)
	return float64(done-began) / 1e6, err
}
