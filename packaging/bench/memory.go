// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settle is how long a system is left alone before its memory is read: the master
// gives back what it does not need any more after two seconds.
const settle = 4 * time.Second

// memory reads smaps_rollup. The systems run one after the other, since pages
// that two of them map would count half in each.
func memory(opts options) error {
	t := newTable(row(plan{kind: preload, entry: "serve"}), privateIdle, privateGC, pssIdle, pssGC, pssMaster)
	for range min(opts.rounds, 3) {
		for _, p := range plans(
			plan{kind: terminal, entry: "wait"},
			plan{kind: unit, entry: "wait"},
			plan{kind: terminal, entry: "serve"},
			plan{kind: unit, entry: "serve"},
			plan{kind: preload, entry: "serve"},
		) {
			p.count, p.spares = workers, 1
			if err := weigh(p, t); err != nil {
				return err
			}
		}
	}
	t.print()
	many := newTable("", masterColumns...)
	for _, k := range []kind{terminal, unit} {
		if err := weighMaster(k, many); err != nil {
			return err
		}
	}
	many.print()
	return nil
}

// The columns. The sum is that of the supervisor, the floor, a spare and the
// workers.
const (
	privateIdle = "private kB of a worker, idle"
	privateGC   = "after gc.collect()"
	pssIdle     = "PSS MB of all, idle"
	pssGC       = "after gc"
	pssMaster   = "of the master"
)

func row(p plan) string { return fmt.Sprintf("%s, %ss", p.kind, p.entry) }

func weigh(p plan, t *table) error {
	s, births, err := up(p)
	if err != nil {
		return err
	}
	time.Sleep(settle)
	t.add(row(p), privateIdle, privateOf(births)...)
	t.add(row(p), pssIdle, pssOf(family(s.master)))
	t.add(row(p), pssMaster, memoryOf(s.master).pss/1024)
	done, err := s.collect(births)
	if err == nil {
		time.Sleep(settle)
		t.add(row(p), privateGC, privateOf(births)...)
		t.add(row(p), pssGC, pssOf(family(s.master)))
	}
	done()
	return errors.Join(err, s.stop())
}

// collect makes every worker collect. Those that serve are kept busy until done
// is called.
func (s *system) collect(workers []birth) (done func(), err error) {
	if s.entry == "serve" {
		held, err := hold(s.port, s.count, "/gc-hold")
		return func() { release(held) }, err
	}
	for _, w := range workers {
		if err := unix.Kill(w.pid, unix.SIGINT); err != nil {
			return func() {}, os.NewSyscallError("kill", err)
		}
	}
	_, err = s.births.await(s.count)
	return func() {}, err
}

func privateOf(workers []birth) (all []float64) {
	for _, w := range workers {
		all = append(all, memoryOf(w.pid).private)
	}
	return all
}

func pssOf(pids []int) (sum float64) {
	for _, pid := range pids {
		sum += memoryOf(pid).pss / 1024
	}
	return sum
}

var masterColumns = []string{
	"PSS of the master, MB", "after 20 looks and scrapes", "switches of the master in 30 s", "threads of the master",
}

// weighMaster weighs a master with all that there is to look at it by, before
// anybody has, and afterwards; then nobody looks any more.
func weighMaster(k kind, t *table) error {
	s, _, err := up(plan{kind: k, entry: "serve", count: 100, spares: 1, metrics: true})
	if err != nil {
		return err
	}
	time.Sleep(settle)
	row := string(k) + ", 100 slots"
	t.add(row, masterColumns[0], memoryOf(s.master).pss/1024)
	for range 20 {
		if err = errors.Join(err, s.look()); err != nil {
			return errors.Join(err, s.stop())
		}
	}
	time.Sleep(settle)
	t.add(row, masterColumns[1], memoryOf(s.master).pss/1024)
	time.Sleep(rest) // the runtime tidies up
	before := switches(s.master)
	time.Sleep(rest)
	t.add(row, masterColumns[2], switches(s.master)-before)
	stat, _ := statOf(s.master)
	t.add(row, masterColumns[3], float64(stat.threads))
	return s.stop()
}

// look asks for everything that a master tells.
func (s *system) look() error {
	name := s.name
	if s.kind == terminal {
		name = filepath.Join(dir, s.name+".toml")
	}
	if err := command("prefork", "status", "--json", name); err != nil {
		return err
	}
	conn, err := net.Dial("unix", s.metricsSocket())
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it has been read
	if _, err := io.WriteString(conn, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	text, err := io.ReadAll(conn)
	if err == nil && !strings.Contains(string(text), "\nprefork_slot_memory_private_bytes{") {
		err = fmt.Errorf("metrics: %s", text)
	}
	return err
}
