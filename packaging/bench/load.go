// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/decnet/prefork/packaging/bench/peer"
	"github.com/decnet/prefork/packaging/bench/proc"
	"github.com/decnet/prefork/packaging/bench/report"
)

const (
	byItself = "the entry by itself"
	rate     = "requests per second"
	tail99   = "p99"
)

// load compares an entry behind a socket that was handed down with the same
// entry that opened its own. All run at once; the others are idle.
func (b *bench) load() error {
	const clients = 4 // each has one connection at a time
	t := b.topic(&report.Topic{
		Name: "load", Title: "Requests through a socket that was handed down", Base: byItself,
		About: fmt.Sprintf("One worker, %d clients, %s each turn. gunicorn and uwsgi have HTTP servers of their own: "+
			"theirs are other entries.", clients, spell),
		Columns: []report.Column{{Name: rate, Plot: true}, {Name: tail99, Unit: "ms", Plot: true}},
	})
	port, stop, err := startAlone()
	if err != nil {
		return err
	}
	defer stop()
	ports := map[string]int{byItself: port}
	all := []entrant{{name: byItself}}
	for _, e := range b.entrants(peer.Plan{Entry: "serve", Count: 1, Spares: 1}) {
		s, _, err := peer.Up(e.plan)
		if err != nil {
			b.fail(t, e.name, err)
			continue
		}
		defer func() { _ = s.Stop() }() // it has been measured
		ports[e.name] = s.Port
		all = append(all, e)
	}
	b.turns(t, 3*b.rounds, all, func(e entrant) error {
		answers, err := hammer(ports[e.name], clients)
		if err != nil {
			return err
		}
		row := t.Row(e.name, 0)
		row.Add(rate, float64(len(answers.took))/spell.Seconds())
		row.Add(tail99, answers.took.Quantile(0.99))
		return nil
	})
	return nil
}

// answers are those of a spell of load.
type answers struct {
	took report.Series // milliseconds of each request
	by   map[int]int   // how many by which pid
}

// hammer has so many clients make one request after the other.
func hammer(port, clients int) (answers, error) {
	all := make([]answers, clients)
	errs := make([]error, clients)
	deadline := time.Now().Add(spell)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			a := answers{by: map[int]int{}}
			for errs[i] == nil && time.Now().Before(deadline) {
				began := proc.Now()
				var pid int
				pid, errs[i] = ask(port, "/")
				a.took = append(a.took, proc.Since(began))
				a.by[pid]++
			}
			all[i] = a
		})
	}
	wg.Wait()
	sum := answers{by: map[int]int{}}
	for _, a := range all {
		sum.took = append(sum.took, a.took...)
		for pid, n := range a.by {
			sum.by[pid] += n
		}
	}
	return sum, errors.Join(errs...)
}

const (
	busiest   = "share of the busiest"
	laziest   = "of the laziest"
	variation = "coefficient of variation"
)

// fairness counts who answers.
func (b *bench) fairness() error {
	const clients = 64
	t := b.topic(&report.Topic{
		Name: "fairness", Title: "Who gets the connections",
		About: fmt.Sprintf("%d clients, %d workers, %s each turn. Equal shares are %.1f %%, and vary by 0.",
			clients, workers, spell, 100.0/workers),
		Columns: []report.Column{
			{Name: busiest, Unit: "%", Plot: true},
			{Name: laziest, Unit: "%"},
			{Name: variation, Plot: true},
		},
	})
	b.turns(t, b.rounds, b.entrants(peer.Plan{Entry: "serve", Count: workers, Spares: 1}), func(e entrant) error {
		return with(e.plan, func(s *peer.System, births []peer.Birth) error {
			answers, err := hammer(s.Port, clients)
			if err != nil {
				return err
			}
			var shares report.Series
			for _, w := range births {
				shares = append(shares, 100*float64(answers.by[w.PID])/float64(len(answers.took)))
			}
			row := t.Row(e.name, 0)
			row.Add(busiest, slices.Max(shares))
			row.Add(laziest, slices.Min(shares))
			row.Add(variation, shares.Variation())
			return nil
		})
	})
	return nil
}

// startAlone runs the entry without a supervisor, on the same floor.
func startAlone() (port int, stop func(), err error) {
	const alone = "import floor, app, socket; app.serve(socket.create_server(('127.0.0.1', %d), backlog=4096))"
	port = 19999 // no system's
	path := filepath.Join(peer.Dir, "alone.sock")
	births, err := peer.ListenBirths(path)
	if err != nil {
		return 0, nil, err
	}
	defer births.Close()
	cmd := exec.Command("python3", "-c", fmt.Sprintf(alone, port))
	cmd.Dir = peer.Dir
	cmd.Env = append(cmd.Environ(), "OPENBLAS_NUM_THREADS=1", "BENCH_SOCKET="+path)
	cmd.Stderr = os.Stderr
	// As the workers: the scheduler groups processes by session.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill() // it has no other end
		_ = cmd.Wait()
	}
	if _, err := births.Await(1); err != nil {
		stop()
		return 0, nil, err
	}
	return port, stop, nil
}
