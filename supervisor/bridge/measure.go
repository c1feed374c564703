// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"slices"
	"time"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/memory"
)

// gauge measures processes: one client at a time does it, and never the loop. The kernel
// walks through all pages, and waits for a process that changes its mappings.
type gauge struct {
	master int           // pid, the parent of who is measured
	tree   *cgroup.Tree  // nil: there are no control groups
	busy   chan struct{} // has room for the one who measures
}

// measureTimeout is how long a client waits for numbers. Those that the kernel has
// not told by then are 0.
const measureTimeout = 2 * time.Second

func (g *gauge) measure(f *control.Status) {
	late := time.NewTimer(measureTimeout)
	defer late.Stop()
	select {
	case g.busy <- struct{}{}:
	case <-late.C:
		return
	}
	done := make(chan *control.Status, 1)
	own := *f // nobody reads it before it is done
	own.Slots = slices.Clone(f.Slots)
	go func() {
		g.measureAll(&own, time.Now().Add(measureTimeout))
		<-g.busy
		done <- &own
	}()
	select {
	case measured := <-done:
		*f = *measured
	case <-late.C:
	}
}

func (g *gauge) measureAll(f *control.Status, until time.Time) {
	if use, err := memory.Of(int(f.FloorPID)); f.FloorPID != 0 && err == nil {
		f.FloorMemory = use.Private + use.Shared
	}
	for i := range f.Slots {
		if f.Slots[i].MainPID != 0 && time.Now().Before(until) {
			g.measureSlot(&f.Slots[i])
		}
	}
}

// measureSlot leaves 0 where the kernel says nothing: the process has ended, or is
// another user's.
func (g *gauge) measureSlot(s *control.SlotStatus) {
	use, _ := memory.Of(int(s.MainPID))
	stat, err := linux.ReadStat(int(s.MainPID))
	if err == nil && stat.Parent != g.master {
		return // it has ended, and another has its pid
	}
	s.MemoryPrivate, s.MemoryShared = use.Private, use.Shared
	s.CPUUsageNSec = uint64(stat.CPU)
	if g.tree != nil && s.ControlGroup != "" {
		if cpu, err := g.tree.CPUOf(s.ControlGroup); err == nil {
			s.CPUUsageNSec = uint64(cpu)
		}
	}
}
