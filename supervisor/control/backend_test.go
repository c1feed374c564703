// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/decnet/prefork/supervisor/verb"
)

// backend is a fleet that only this user may change.
type backend struct {
	look func() (*Status, error)
	bad  string // what is wrong with the file

	mu       sync.Mutex
	done     []string // verb, slot and signal
	measured int
	idle     atomic.Bool // the last client has gone
}

func (b *backend) Look() (*Status, error) { return b.look() }

// Measure has numbers for those that have a process.
func (b *backend) Measure(f *Status) {
	b.mu.Lock()
	b.measured++
	b.mu.Unlock()
	f.FloorMemory = demo.FloorMemory
	for i := range f.Slots {
		if s := &f.Slots[i]; s.MainPID != 0 {
			s.CPUUsageNSec, s.MemoryPrivate, s.MemoryShared = 5e9, 1<<20, 90<<20
		}
	}
}

func (b *backend) Idle() { b.idle.Store(true) }

func (b *backend) History(slot string) []HistoryEntry {
	return []HistoryEntry{{7, slot + " has started"}, {8, "it is ready\x1b[2J"}}
}

func (b *backend) MayChange(c Caller) error {
	if b.look == nil || c.UID != uint32(os.Geteuid()) || c.PID != os.Getpid() {
		return fmt.Errorf("uid %d may not", c.UID)
	}
	return nil
}

func (b *backend) Operate(slot string, call verb.Call, _ Caller) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slot == "web.10" {
		return errors.New("the fleet stops")
	}
	if call.Task != "" {
		slot += "/" + call.Task
	}
	b.done = append(b.done, fmt.Sprintf("%s %s %d", call.Name, slot, call.Signal))
	return nil
}

func (b *backend) did(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = append(b.done, fmt.Sprintf(format, args...))
}

func (b *backend) Reload(Caller) (uint64, error) {
	b.did("reload")
	return 7, nil
}

func (b *backend) Plan(Caller) ([]PlanStep, error) {
	b.did("plan")
	if b.bad != "" {
		return nil, &BadFile{Text: b.bad}
	}
	return []PlanStep{{Kind: "worker", Name: "web", Step: "roll", Keys: []string{"exec", "nice"}, From: 2, To: 3}}, nil
}

func (b *backend) Restart(names []string, _ Caller) (uint64, error) {
	b.did("restart fleet %q", names)
	return 8, nil
}

func (b *backend) Try(Caller) (uint64, error) {
	b.did("try")
	return 10, nil
}

func (b *backend) Scale(worker string, count int, _ Caller) (uint64, error) {
	b.did("scale %s %d", worker, count)
	return 9, nil
}

func (b *backend) Probe(generation int, _ Caller) (uint32, error) {
	b.did("probe %d", generation)
	return 4000 + uint32(generation), nil
}

func (b *backend) Cancel(Caller) error {
	b.did("cancel")
	return nil
}

func (b *backend) Outcome(change uint64) (Outcome, error) {
	switch change {
	case 1:
		return Outcome{}, errors.New("it ended too long ago")
	case 7:
		return Outcome{Result: ChangeDone, Text: "roll web\x1b[2J"}, nil
	}
	return Outcome{}, nil
}
