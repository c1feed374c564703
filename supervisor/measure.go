// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"errors"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/errands"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/memory"
)

// gauge measures what processes have of their own, for recycle_private, one after the other
// and beside the loop. The account of a control group is a short file. Without one the
// kernel walks through all pages of a process, and waits while that changes its mappings:
// who keeps it waiting holds up those behind it, and nobody else.
type gauge struct {
	tree   *cgroup.Tree // nil: there are no control groups
	thread *errands.Owner

	mu   sync.Mutex
	done []fleet.Event
}

func newGauge(tree *cgroup.Tree, pool *errands.Pool) *gauge {
	return &gauge{tree: tree, thread: pool.Owner()}
}

// measure has a process measured; a wakeup tells when to take the result.
func (m *master) measure(id fleet.Proc) {
	p := m.procs.Of(id)
	if p == nil {
		return // its end is on its way
	}
	pid, group := p.PID, ""
	if p.Group != nil {
		group = p.Group.ControlGroup()
	}
	g := m.gauge
	g.thread.Do(func() {
		private, err := g.private(pid, group)
		ev := fleet.Measured{Proc: id, Private: private}
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
			return // it has ended
		case err != nil:
			ev.Why = err.Error()
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.done = append(g.done, ev)
	})
}

// private is the account of a slot's control group; where there is none, what its main
// process alone has.
func (g *gauge) private(pid int, group string) (uint64, error) {
	if g.tree != nil && group != "" {
		if private, err := g.tree.PrivateOf(group); err == nil {
			return private, nil
		}
	}
	use, err := memory.Of(pid)
	if err != nil {
		return 0, err
	}
	if stat, err := linux.ReadStat(pid); err != nil || stat.Parent != os.Getpid() {
		return 0, fs.ErrNotExist // another has its pid
	}
	return use.Private + use.Swapped, nil
}

// take returns what has been measured.
func (g *gauge) take() []fleet.Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	done := g.done
	g.done = nil
	return done
}
