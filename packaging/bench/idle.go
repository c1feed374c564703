// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/decnet/prefork/packaging/bench/peer"
	"github.com/decnet/prefork/packaging/bench/proc"
	"github.com/decnet/prefork/packaging/bench/report"
)

const (
	switches       = "switches of the supervisor per second"
	switchesOthers = "of all others"
	threads        = "threads of the supervisor"
)

// idle counts context switches of supervisors that have nothing to do.
func (b *bench) idle() error {
	t := b.topic(&report.Topic{
		Name: "idle", Title: "Context switches while nothing happens",
		About: fmt.Sprintf("8 idle workers, %s. Only prefork@.service has a watchdog to serve.", rest),
		Columns: []report.Column{
			{Name: switches, Plot: true},
			{Name: switchesOthers},
			{Name: threads},
		},
	})
	b.turns(t, min(b.rounds, 2), b.entrants(peer.Plan{Entry: "serve", Count: workers, Spares: 1}), func(e entrant) error {
		return with(e.plan, func(s *peer.System, births []peer.Birth) error {
			time.Sleep(5 * time.Second)
			masters := s.Masters()
			own, all := switchesOf(masters), switchesOf(s.All(births))
			time.Sleep(rest)
			own, all = switchesOf(masters)-own, switchesOf(s.All(births))-all
			count := 0.0
			for _, pid := range masters {
				stat, _ := proc.StatOf(pid)
				count += float64(stat.Threads)
			}
			row := t.Row(e.name, 0)
			row.Add(switches, own/rest.Seconds())
			row.Add(switchesOthers, (all-own)/rest.Seconds())
			row.Add(threads, count)
			return nil
		})
	})
	return nil
}

func switchesOf(pids []int) (n float64) {
	for _, pid := range pids {
		n += proc.Switches(pid)
	}
	return n
}

const (
	imports = "imports alone"
	accept  = "until 8 workers accept"
	beyond  = "beyond the imports"
)

// launch takes the time until every worker answers, and that of the imports
// alone. Each turn starts and stops everything.
func (b *bench) launch() error {
	t := b.topic(&report.Topic{
		Name: "launch", Title: "From the start until 8 workers accept", Base: imports,
		About: "The imports alone are those of one fresh interpreter, in the same round.",
		Columns: []report.Column{
			{Name: accept, Unit: "ms", Plot: true},
			{Name: beyond, Unit: "ms"},
		},
	})
	var bare float64
	all := append([]entrant{{name: imports}}, b.entrants(peer.Plan{Entry: "serve", Count: workers, Spares: 1})...)
	b.turns(t, b.rounds, all, func(e entrant) (err error) {
		row := t.Row(e.name, 0)
		if e.name == imports || bare == 0 {
			if bare, err = importFloor(); err != nil {
				return err
			}
			t.Row(imports, 0).Add(accept, bare)
		}
		if e.name == imports {
			return nil
		}
		took, err := launchOnce(e.plan)
		if err == nil {
			row.Add(accept, took)
			row.Add(beyond, took-bare)
		}
		return err
	})
	return nil
}

// launchOnce takes the milliseconds until all workers have a connection each.
func launchOnce(p peer.Plan) (float64, error) {
	type outcome struct {
		s   *peer.System
		err error
	}
	port := peer.NextPort()
	began := proc.Now()
	started := make(chan outcome, 1)
	go func() {
		s, err := peer.Start(p)
		started <- outcome{s, err}
	}()
	held, err := hold(port, p.Count, "/hold")
	took := proc.Since(began)
	release(held)
	o := <-started
	if o.err != nil {
		return 0, o.err
	}
	if err == nil {
		_, err = o.s.Births.Await(p.Count)
	}
	return took, errors.Join(err, o.s.Stop())
}

// importFloor takes the milliseconds until a fresh interpreter has the floor.
func importFloor() (float64, error) {
	cmd := exec.Command("python3", "-c", "import floor, app, time; print(time.monotonic_ns())")
	cmd.Dir = peer.Dir
	cmd.Env = append(cmd.Environ(), "OPENBLAS_NUM_THREADS=1")
	began := proc.Now()
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	var done int64
	_, err = fmt.Sscan(string(out), &done)
	return float64(done-began) / 1e6, err
}
