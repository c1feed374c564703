// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	clients = 4               // each has one connection at a time
	spell   = 3 * time.Second // of load, each turn
)

// load compares an entry behind a socket that was handed down with the same
// entry that opened its own.
func load(opts options) (err error) {
	const byItself = "the entry by itself"
	t := newTable(byItself, "requests/s")
	port, stop, err := startAlone()
	if err != nil {
		return err
	}
	defer stop()
	targets := []struct {
		row  string
		port int
	}{{byItself, port}}
	for _, k := range []kind{terminal, unit} {
		s, _, err := up(plan{kind: k, entry: "serve", count: 1, spares: 1})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.stop()) }()
		targets = append(targets, struct {
			row  string
			port int
		}{string(k), s.port})
	}
	for turn := range 3 * opts.rounds {
		for i := range targets {
			target := targets[(turn+i)%len(targets)] // nobody is always the first
			rate, err := hammer(target.port)
			if err != nil {
				return err
			}
			t.add(target.row, t.columns[0], rate)
		}
	}
	t.print()
	return nil
}

// hammer returns the requests that are answered in a second.
func hammer(port int) (float64, error) {
	var done atomic.Int64
	errs := make([]error, clients)
	began := now()
	deadline := time.Now().Add(spell)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for errs[i] == nil && time.Now().Before(deadline) {
				_, errs[i] = ask(port, "/")
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / since(began) * 1e3, errors.Join(errs...)
}

// startAlone runs the entry without a supervisor, on the same floor.
func startAlone() (port int, stop func(), err error) {
	serial++
	port = 20000 + serial
	path := filepath.Join(dir, "alone.sock")
	births, err := listenBirths(path)
	if err != nil {
		return 0, nil, err
	}
	defer births.conn.Close()
	cmd := exec.Command("python3", "-c", fmt.Sprintf("import floor, app; app.alone(%d)", port))
	cmd.Dir = dir
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
	if _, err := births.await(1); err != nil {
		stop()
		return 0, nil, err
	}
	return port, stop, nil
}
