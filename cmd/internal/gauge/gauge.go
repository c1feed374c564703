// SPDX-License-Identifier: AGPL-3.0-or-later

// Package gauge measures the memory of a fleet, and shows it as text: what prefork memory
// does. It looks at processes of which the master has said that they are the fleet's, from
// outside, and stops none.
//
//	gauge.go  what the master has said, measured
//	why.go    why slots have written, by the objects of their floors
//	text.go   the same as text
package gauge

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/memory"
)

// Question is what is asked.
type Question struct {
	Fleet  *control.Status
	Before time.Duration // since boot ([memory.SinceBoot]), when the master was not yet asked
	Slots  []string      // names; nil: all, and the spares

	// Probe has the floor of a generation list its objects: it returns the process that
	// does. nil: it is not asked why slots have written.
	Probe func(generation uint32) (pid uint32, err error)
}

// Measure answers it. young says that some process could not be told from one that has its
// pid by now, or has ended: ask the master again.
func Measure(q Question) (r *memory.Report, young bool) {
	g := &gauge{Question: q, own: cgroup.Of(int(q.Fleet.MainPID)), floors: map[uint32]*measured{}}
	r = &memory.Report{Fleet: q.Fleet.Name, Timestamp: uint64(time.Now().UnixMicro()), Floors: []memory.FloorReport{}, Slots: g.chosen()}
	defer g.close()
	for _, generation := range slices.Sorted(maps.Keys(q.Fleet.Floors)) {
		r.Floors = append(r.Floors, g.floor(generation, q.Fleet.Floors[generation]))
	}
	for i := range r.Slots {
		if s := &r.Slots[i]; s.PID != 0 {
			g.slot(s)
			young = young || s.Problem == errNotHere.Error() || s.Problem == gone
		}
	}
	if q.Probe != nil && !young {
		g.explain(r)
	}
	r.Sum()
	return r, young
}

// gauge measures a fleet once.
type gauge struct {
	Question
	own    string // the control group of the master, which is of no slot
	floors map[uint32]*measured
	slots  []*measured
}

// measured is a process that was looked at, and is closed when all have been.
type measured struct {
	process *memory.Process
	base    *memory.Base       // of a floor
	slot    *memory.SlotReport // of others
}

func (g *gauge) close() {
	for _, floor := range g.floors {
		floor.process.Close()
	}
	for _, slot := range g.slots {
		slot.process.Close()
	}
}

// chosen are the slots that are wanted, and, if it is all of them, the spares.
func (g *gauge) chosen() []memory.SlotReport {
	all := []memory.SlotReport{}
	for i := range g.Fleet.Slots {
		s := &g.Fleet.Slots[i]
		if g.Slots != nil && !slices.Contains(g.Slots, s.Name) {
			continue
		}
		r := memory.SlotReport{Name: s.Name, State: s.State, PID: s.MainPID}
		if s.MainPID != 0 { // else it is what it was forked from the last time
			r.Generation = s.Generation
		}
		all = append(all, r)
	}
	if g.Slots == nil {
		for _, pid := range slices.Sorted(maps.Keys(g.Fleet.SparePIDs)) {
			all = append(all, memory.SlotReport{Name: memory.Spare, State: memory.Spare, PID: pid, Generation: g.Fleet.SparePIDs[pid]})
		}
	}
	return all
}

// open looks at a process if it is the one of which the master has spoken.
func (g *gauge) open(pid uint32) (*memory.Process, error) {
	p, err := memory.Open(int(pid))
	if err != nil {
		return nil, err
	}
	if !p.IsOf(int(g.Fleet.MainPID), g.Before) {
		p.Close()
		return nil, errNotHere
	}
	return p, nil
}

func (g *gauge) floor(generation, pid uint32) memory.FloorReport {
	r := memory.FloorReport{Generation: generation, PID: pid}
	p, err := g.open(pid)
	if err != nil {
		r.Problem = unreadable(err)
		return r
	}
	base, err := p.Base()
	if err != nil {
		p.Close()
		r.Problem = unreadable(err)
		return r
	}
	g.floors[generation] = &measured{process: p, base: base}
	r.Base, r.Charged = *base, g.charged(p)
	return r
}

// slot fills in what is measured of one.
func (g *gauge) slot(r *memory.SlotReport) {
	p, err := g.open(r.PID)
	if err != nil {
		r.Problem = unreadable(err)
		return
	}
	g.slots = append(g.slots, &measured{process: p, slot: r})
	var base *memory.Base
	_, loaded := g.Fleet.Floors[r.Generation]
	switch floor := g.floors[r.Generation]; {
	case floor != nil:
		base = floor.base
	case loaded:
		r.Problem = "its floor cannot be looked into"
		return
	}
	share, err := p.Share(base, r.Generation > 0 && !loaded)
	if err != nil {
		r.Problem = unreadable(err)
		return
	}
	r.Share, r.Charged = *share, g.charged(p)
}

// charged is what the control group of a process is charged for, if it has one of its own;
// 0 is not known.
func (g *gauge) charged(p *memory.Process) uint64 {
	group := cgroup.Of(p.PID)
	if group == "" || group == g.own {
		return 0
	}
	bytes, _ := cgroup.Charged(group) // the memory controller may not be on
	return bytes
}

// gone is what is said of a process that ended while it was measured.
const gone = "it has ended just now"

// unreadable says why a process cannot be looked into.
func unreadable(err error) string {
	switch {
	case memory.IsGone(err):
		return gone
	case !errors.Is(err, fs.ErrPermission):
		return err.Error()
	case os.Geteuid() == 0:
		return "it may not be looked into: root has no CAP_SYS_PTRACE here"
	default:
		return "another user's: ask root"
	}
}

// errNotHere is of a process that is not the one of which the master speaks.
var errNotHere = errors.New("its process cannot be seen from here: is the fleet in another container?")
