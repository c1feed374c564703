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
)

// workers is how many each system of the table in the contract has.
const workers = 8

// pause is between two kills of a slot. Two starts of one are at least 100 ms
// apart, and the spare has to be made again.
const pause = 250 * time.Millisecond

const (
	toEntry  = "ms to the entry"
	toAnswer = "ms to an answer"
	lost     = "connections lost" // with the dying worker, and made again
	bareFork = "os.fork of the floor"
)

// latency kills workers. All systems run at once and take turns.
func latency(opts options) (err error) {
	t := newTable(bareFork, toEntry, toAnswer, lost)
	fork, stopFork, err := startForker()
	if err != nil {
		return err
	}
	defer stopFork()
	var victims []*victim
	defer func() {
		for _, v := range victims {
			err = errors.Join(err, v.end())
		}
	}()
	for _, p := range plans(
		plan{kind: terminal, spares: 1},
		plan{kind: unit, spares: 1},
		plan{kind: terminal, spares: 0},
		plan{kind: unit, spares: 0},
		plan{kind: preload},
	) {
		p.entry, p.count, p.restart = "serve", workers, true
		v, err := newVictim(p)
		if err != nil {
			return err
		}
		victims = append(victims, v)
	}
	time.Sleep(time.Second)
	for range opts.kills {
		took, err := fork()
		if err != nil {
			return err
		}
		t.add(bareFork, toEntry, took)
		for _, v := range victims {
			time.Sleep(pause / time.Duration(len(victims)))
			if err := v.kill(t); err != nil {
				return fmt.Errorf("%s: %w", v.row(), err)
			}
		}
	}
	t.print()
	return nil
}

// victim is a system all of whose workers but one are kept busy: only the
// successor of that one can answer.
type victim struct {
	*system
	held []connection
	free int // pid of the one
}

func newVictim(p plan) (*victim, error) {
	s, _, err := up(p)
	if err != nil {
		return nil, err
	}
	v := &victim{system: s}
	if v.held, err = hold(s.port, p.count-1, "/hold"); err == nil {
		v.free, err = ask(s.port, "/")
	}
	if err != nil {
		return nil, errors.Join(err, v.end())
	}
	return v, nil
}

func (v *victim) row() string {
	if v.kind == preload {
		return string(v.kind)
	}
	return fmt.Sprintf("%s, spares = %d", v.kind, v.spares)
}

func (v *victim) end() error {
	release(v.held)
	return v.stop()
}

// kill kills the free worker and connects at once. A process that dies while it
// waits in accept(2) may still take that connection with it.
func (v *victim) kill(t *table) error {
	start := now()
	if err := unix.Kill(v.free, unix.SIGKILL); err != nil {
		return os.NewSyscallError("kill", err)
	}
	again := 0.0
	pid, err := ask(v.port, "/")
	for ; err != nil || pid == v.free; pid, err = ask(v.port, "/") {
		again++
		if since(start) > float64(patience.Milliseconds()) {
			return err
		}
	}
	answered := since(start)
	w, err := v.births.next(time.Now().Add(patience))
	if err != nil {
		return err
	}
	if w.pid != pid {
		return fmt.Errorf("pid %d answered, and pid %d has started", pid, w.pid)
	}
	v.free = pid
	t.add(v.row(), toEntry, float64(w.at-start)/1e6)
	t.add(v.row(), toAnswer, answered)
	t.add(v.row(), lost, again)
	return nil
}

// startForker returns what forks a process with the floor once, and takes the
// milliseconds until the child runs.
func startForker() (fork func() (float64, error), stop func(), err error) {
	cmd := exec.Command("python3", filepath.Join(dir, "forker.py"))
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
		return nil, nil, err
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
