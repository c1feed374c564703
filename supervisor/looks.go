// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
)

// looks are clients that want to see the fleet. They ask from goroutines of
// their own; the loop answers all that have asked with one view a turn.
type looks struct {
	wake *wakeup

	mu      sync.Mutex
	waiting []chan *control.Fleet // each has room for the answer
}

// lookTimeout is how long a client waits for the loop.
const lookTimeout = 5 * time.Second

var errBusy = fmt.Errorf("the master did not answer within %s: it is stuck, or stopped", lookTimeout)

// look returns the fleet. It blocks until the loop has had its turn.
func (l *looks) look() (*control.Fleet, error) {
	answer := make(chan *control.Fleet, 1)
	l.mu.Lock()
	l.waiting = append(l.waiting, answer)
	l.mu.Unlock()
	l.wake.up()
	timer := time.NewTimer(lookTimeout)
	defer timer.Stop()
	select {
	case f := <-answer:
		if f == nil {
			return nil, errors.New("the fleet has ended")
		}
		return f, nil
	case <-timer.C:
		return nil, errBusy
	}
}

// asked tells whether somebody waits.
func (l *looks) asked() []fleet.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		return nil
	}
	return []fleet.Event{fleet.Inspect{}}
}

// show answers all who wait; with nil, that there is nothing to see any more.
func (l *looks) show(f *control.Fleet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, answer := range l.waiting {
		answer <- f
	}
	l.waiting = nil
}

// openControl offers the fleet on a socket in its runtime directory.
func (m *master) openControl() (err error) {
	m.looks = &looks{wake: m.wake}
	m.control, err = control.Listen(filepath.Join(m.runtime.path, controlName), m.looks.look)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// closeControl ends the clients, of whom some may wait for an answer.
func (m *master) closeControl() {
	if m.control != nil {
		m.looks.show(nil)
		m.control.Close()
	}
}

// shown is a view as clients get it.
func (m *master) shown(v fleet.View) *control.Fleet {
	clock := clockNow()
	f := &control.Fleet{
		Name: m.file.Name, File: m.file.Path, MainPID: uint32(m.pid),
		ActiveState: v.State, StatusText: v.Status, Generation: uint32(v.Generation),
	}
	for i := range v.Slots {
		s := &v.Slots[i]
		f.Slots = append(f.Slots, control.Slot{
			Name: s.Name, Worker: s.Worker,
			State: s.State.String(), StateTimestamp: clock.at(s.Since), Reason: s.Why,
			MainPID: uint32(s.PID), Generation: uint32(s.Generation), Result: string(s.Result),
			Failures: uint32(s.Failures), NRestarts: uint32(s.Restarts),
			NextStartTimestamp: clock.at(s.Due), StatusText: s.Text,
		})
	}
	return f
}

// clock knows one moment on two clocks.
type clock struct {
	monotonic fleet.Instant
	real      time.Time
}

func clockNow() clock { return clock{monotonic(), time.Now()} }

// at is an instant in microseconds of CLOCK_REALTIME, 0 for one that never comes.
func (c clock) at(i fleet.Instant) uint64 {
	if i == fleet.Never {
		return 0
	}
	return uint64(c.real.Add(i.Sub(c.monotonic)).UnixMicro())
}
