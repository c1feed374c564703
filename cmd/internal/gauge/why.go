// SPDX-License-Identifier: AGPL-3.0-or-later

package gauge

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/decnet/prefork/supervisor/memory"
)

// explain fills in why slots have written, floor by floor.
func (g *gauge) explain(r *memory.Report) {
	for _, generation := range slices.Sorted(maps.Keys(g.floors)) {
		var slots []*measured
		var shares []*memory.Share
		for _, slot := range g.slots {
			if slot.slot.Generation == generation && slot.slot.Problem == "" && slot.slot.Written > 0 {
				slots, shares = append(slots, slot), append(shares, &slot.slot.Share)
			}
		}
		if len(slots) == 0 {
			continue
		}
		objects, err := g.objects(generation, memory.WrittenPages(shares))
		for _, slot := range slots {
			slot.slot.Why = g.why(slot, objects, err)
		}
	}
}

// why compares a slot with its floor; err says why the floor's objects are not known.
func (g *gauge) why(slot *measured, objects *memory.Objects, err error) *memory.Why {
	floor := g.floors[slot.slot.Generation]
	if err == nil {
		var why *memory.Why
		if why, err = slot.slot.Explain(floor.process, slot.process, floor.base, objects); err == nil {
			return why
		}
	}
	return &memory.Why{Causes: []memory.CauseBytes{}, Modules: []memory.OwnerBytes{}, Problem: untold(err)}
}

// listTime is how long a floor may take to list its objects. Its master gives it a minute.
const listTime = 50 * time.Second

func (g *gauge) objects(generation uint32, pages []uint64) (*memory.Objects, error) {
	until := time.Now().Add(listTime)
	pid, err := g.Probe(generation)
	if err != nil {
		return nil, err
	}
	p, err := memory.Open(int(pid))
	if err != nil {
		return nil, fmt.Errorf("the probe %d: %w", pid, err)
	}
	defer p.Close()
	// It lives, or there would have been no answer: who has begun by now and is the
	// master's child is meant.
	if !p.IsOf(int(g.Fleet.MainPID), memory.SinceBoot()+time.Second) {
		return nil, errNotHere
	}
	return p.Ask(pages, until)
}

// untold says why nothing is told.
func untold(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0:
		return "the memory of the floor may not be read: root has no CAP_SYS_PTRACE here"
	case errors.Is(err, fs.ErrPermission):
		return "this user may not read the memory of the floor (ptrace(2)): ask root"
	case memory.IsGone(err):
		return "it, its floor or the probe has ended just now: ask again"
	default:
		return err.Error()
	}
}
