// SPDX-License-Identifier: AGPL-3.0-or-later

package examine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/text"
	"github.com/decnet/prefork/supervisor/memory"
	"github.com/decnet/prefork/supervisor/zygote"
)

// spare is a worker that was forked from a floor and waits at its gate.
type spare struct {
	process
	steps int // our end of the socket over which it is told what to do
}

// fork asks the floor for a worker, and waits until it is a spare.
func (s *scratch) fork(limit time.Duration) (*spare, error) {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return nil, err
	}
	defer linux.CloseFD(&theirs)
	w := &spare{process: process{pidfd: -1, gate: ours}, steps: -1}
	s.forked++
	err = zygote.Fork(s.command, []uint64{s.forked}, []int{theirs}, nil)
	linux.CloseFD(&theirs) // end of file tells that there will be no worker
	if err == nil {
		err = w.greet(s, after(limit))
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("fork: %w", err)
	}
	return w, nil
}

// greet waits for the hello of a worker, and until nothing is left for it to do.
func (w *spare) greet(s *scratch, deadline time.Time) error {
	if err := await(w.gate, deadline); err != nil {
		return err
	}
	msg, err := gate.Receive(w.gate)
	hello, ok := msg.(gate.Hello)
	switch {
	case err == nil && !ok || err == nil && hello.ID != s.forked:
		return errors.New("it did not introduce itself")
	case err != nil:
		return s.refusal()
	}
	if w.pidfd, err = linux.PidfdOpen(hello.PID); err != nil {
		return err
	}
	if stat, err := linux.ReadStat(hello.PID); err != nil || stat.Parent != os.Getpid() {
		return errors.New("who introduced itself is no child of this process")
	}
	w.pid = hello.PID
	// It says hello before it has settled; then it blocks, under another name.
	for {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", w.pid))
		stat, statErr := linux.ReadStat(w.pid)
		switch {
		case err != nil || statErr != nil || stat.State == 'Z':
			return errors.New("it ended at its gate")
		case strings.TrimSpace(string(comm)) == "prefork-spare" && stat.State == 'S':
			return nil
		case !deadline.IsZero() && time.Now().After(deadline):
			w.hung = true
			return errors.New("a hook of the fork has not returned within timeout_start_sec")
		}
		if await(w.pidfd, time.Now().Add(time.Millisecond)) == nil {
			return errors.New("it ended at its gate")
		}
	}
}

// refusal is why there was no worker.
func (s *scratch) refusal() error {
	buf := make([]byte, zygote.MaxMessage)
	if await(s.command, after(killed)) == nil {
		if n, _, err := linux.Receive(s.command, buf); err == nil {
			if msg, err := zygote.Decode(buf[:n]); err == nil && msg.Kind == zygote.Refused {
				return errors.New(msg.Text)
			}
		}
	}
	return errors.New("the worker ended before it had introduced itself")
}

// become lets the worker be what its orders say, and wait for steps.
func (w *spare) become(orders *gate.Orders, output *os.File) error {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	defer linux.CloseFD(&theirs)
	w.steps = ours
	orders.Entry, orders.AfterFork, orders.Args, orders.Kwargs, orders.Tasks, orders.Lifespan = zygote.Steps, "", "", "", "", ""
	orders.Listen, orders.Stored, orders.Notify = nil, []string{"steps"}, ""
	orders.Stdout, orders.Stderr = true, true
	to := int(output.Fd())
	return gate.Send(w.gate, orders, to, to, theirs)
}

// maxAnswer is the size in bytes of the longest answer.
const maxAnswer = 1 << 17

// step has the worker do something, and returns what it says of it.
func (w *spare) step(limit time.Duration, name string, modules ...string) ([]string, error) {
	if err := linux.Send(w.steps, zygote.Step(name, modules...)); err != nil {
		return nil, w.why()
	}
	if err := await(w.steps, after(limit)); err != nil {
		w.hung = true
		return nil, fmt.Errorf("%s %s: %w", name, strings.Join(modules, " "), err)
	}
	buf := make([]byte, maxAnswer)
	n, _, err := linux.Receive(w.steps, buf)
	if err != nil {
		return nil, w.why()
	}
	said := strings.Split(string(buf[:n]), "\x00")
	for i := range said {
		said[i] = text.OneLine(said[i], maxText)
	}
	if said[0] != "done" {
		return nil, errors.New(strings.Join(said[1:], " "))
	}
	return said[1:], nil
}

// why is why a worker does not answer any more.
func (w *spare) why() error {
	if msg, err := gate.Receive(w.gate); err == nil {
		if failed, ok := msg.(gate.Failed); ok {
			return errors.New(failed.Text)
		}
	}
	if end, err := w.end(after(killed)); err == nil && end.Signal != 0 {
		return fmt.Errorf("the worker ended: signal %s", unix.SignalName(unix.Signal(end.Signal)))
	} else if err == nil {
		return fmt.Errorf("the worker ended: exit status %d", end.Code)
	}
	return errors.New("the worker does not answer")
}

// private is the worker's own memory, in bytes.
func (w *spare) private() int64 {
	use, err := memory.Of(w.pid)
	if err != nil {
		return 0
	}
	return int64(use.Private)
}

// close ends a worker, as an entry that returns.
func (w *spare) close() {
	linux.CloseFD(&w.steps)
	w.leave()
}
