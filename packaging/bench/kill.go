// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/packaging/bench/peer"
	"github.com/decnet/prefork/packaging/bench/proc"
	"github.com/decnet/prefork/packaging/bench/report"
)

// age is how old a worker is at least when it is killed.
const age = 1500 * time.Millisecond

const (
	toAnswer = "successor accepts"
	toEntry  = "its first line"
	lost     = "connections lost" // with the dying worker, and made again
	bareFork = "os.fork of the floor"
)

// kill kills workers. All systems run at once and take turns.
func (b *bench) kill() error {
	t := b.topic(&report.Topic{
		Name: "kill", Title: "SIGKILL of a worker until its successor accepts", Base: bareFork,
		About: "No backoff. All other workers are busy, so only the successor can answer. Times since the signal. " +
			"A connection is lost if the dying worker takes it along.",
		Columns: []report.Column{{Name: toAnswer, Unit: "ms", Plot: true}, {Name: toEntry, Unit: "ms"}, {Name: lost}},
	})
	fork, stopFork, err := startForker()
	if err != nil {
		return err
	}
	defer stopFork()
	all := []entrant{{name: bareFork}}
	victims := map[string]*victim{}
	defer func() {
		for _, v := range victims {
			v.end()
		}
	}()
	systems := b.entrants(peer.Plan{Spares: 1})
	for _, e := range b.entrants(peer.Plan{}) {
		if e.plan.Kind.Prefork() {
			e.name += ", no spare"
			systems = append(systems, e)
		}
	}
	for _, e := range systems {
		e.plan.Entry, e.plan.Count, e.plan.Restart = "serve", workers, true
		b.progress("kill: starting %s", e.name)
		v, err := newVictim(e.plan)
		if err != nil {
			b.fail(t, e.name, err)
			continue
		}
		victims[e.name] = v
		all = append(all, e)
	}
	time.Sleep(time.Second)
	b.turns(t, b.kills, all, func(e entrant) error {
		row := t.Row(e.name, 0)
		if e.name != bareFork {
			return victims[e.name].kill(row)
		}
		took, err := fork()
		row.Add(toEntry, took)
		return err
	})
	return nil
}

// victim is a system all of whose workers but one are kept busy: only the
// successor of that one can answer.
type victim struct {
	*peer.System
	held []connection
	free int       // pid of the one
	born time.Time // at the latest
}

func newVictim(p peer.Plan) (*victim, error) {
	s, _, err := peer.Up(p)
	if err != nil {
		return nil, err
	}
	v := &victim{System: s, born: time.Now()}
	if v.held, err = hold(s.Port, p.Count-1, "/hold"); err == nil {
		v.free, err = ask(s.Port, "/")
	}
	if err != nil {
		v.end()
		return nil, err
	}
	return v, nil
}

func (v *victim) end() {
	release(v.held)
	_ = v.Stop() // what was measured is not wrong because of that
}

// kill kills the free worker and connects at once. A process that dies while it
// waits in accept(2) may still take that connection with it.
func (v *victim) kill(row *report.Row) error {
	time.Sleep(time.Until(v.born.Add(age)))
	start := proc.Now()
	if err := unix.Kill(v.free, unix.SIGKILL); err != nil {
		return os.NewSyscallError("kill", err)
	}
	again := 0.0
	pid, err := ask(v.Port, "/")
	for ; err != nil || pid == v.free; pid, err = ask(v.Port, "/") {
		again++
		if proc.Since(start) > float64(peer.Patience.Milliseconds()) {
			return err
		}
	}
	answered := proc.Since(start)
	w, err := v.Births.Next(time.Now().Add(peer.Patience))
	if err != nil {
		return err
	}
	if w.PID != pid {
		return fmt.Errorf("pid %d answered, and pid %d has started", pid, w.PID)
	}
	v.free, v.born = pid, time.Now()
	row.Add(toEntry, float64(w.At-start)/1e6)
	row.Add(toAnswer, answered)
	row.Add(lost, again)
	return nil
}

// startForker returns what forks a process with the floor once, and takes the
// milliseconds until the child runs.
func startForker() (fork func() (float64, error), stop func(), err error) {
	cmd := exec.Command("python3", filepath.Join(peer.Dir, "forker.py"))
	cmd.Env = append(os.Environ(), "OPENBLAS_NUM_THREADS=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	lines := bufio.NewReader(out)
	stop = func() {
		_ = in.Close() // it then ends
		_ = cmd.Wait()
	}
	if _, err := lines.ReadString('\n'); err != nil { // it is ready
		stop()
		return nil, nil, errors.Join(errors.New("forker.py has not started"), err)
	}
	return func() (float64, error) {
		if _, err := io.WriteString(in, "\n"); err != nil {
			return 0, err
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			return 0, err
		}
		ns, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
		return ns / 1e6, err
	}, stop, nil
}
