// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"os"
	"sync"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/stacks"
)

// looks are those at where processes are that hang. A worker writes that itself, if it
// can; of all else it is what the kernel knows, which is read beside the loop, on a thread
// for each process: one that executes a program holds up who looks at it.
type looks struct {
	mu    sync.Mutex
	under map[fleet.Proc]bool // it is being looked at
	done  []look
}

type look struct {
	proc   fleet.Proc
	name   string
	pid    int
	writes bool // it has been told to write its stacks itself
	where  stacks.Where
}

// takeStacks has a process write its stacks, and looks at it; a wakeup tells when to take
// what there is.
func (m *master) takeStacks(id fleet.Proc) {
	p, l := m.procs.Of(id), &m.looks
	if p == nil {
		return // its end is on its way
	}
	found := look{proc: id, name: p.Name, pid: p.PID, writes: p.WriteStacks()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.under[id] {
		return // one look will do
	}
	if l.under == nil {
		l.under = map[fleet.Proc]bool{}
	}
	l.under[id] = true
	m.errands.Owner().Do(func() {
		where, err := stacks.Of(found.pid)
		if stat, parent := linux.ReadStat(found.pid); err == nil && parent == nil && stat.Parent == os.Getpid() {
			found.where = where // else it has ended, and another may have its pid
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.done = append(l.done, found)
	})
}

// stacksTaken says what has been seen. Of a worker that writes its stacks, only what it
// cannot: a thread that sleeps in the kernel does not hear of it.
func (m *master) stacksTaken() (events []fleet.Event) {
	l := &m.looks
	l.mu.Lock()
	done := l.done
	l.done = nil
	for _, found := range done {
		delete(l.under, found.proc)
	}
	l.mu.Unlock()
	for _, found := range done {
		where := found.where
		if found.writes {
			where = where.Asleep()
		} else {
			events = append(events, fleet.StacksTaken{Proc: found.proc})
		}
		for _, line := range where.Lines() {
			m.report(fleet.Report{Level: fleet.Notice, Slot: found.name, PID: found.pid, Text: line})
		}
	}
	return events
}
