// SPDX-License-Identifier: AGPL-3.0-or-later

package procs

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
)

// What a process left behind is all that lives in its control group. Without one
// it is found by session and parent: the state machine hears how many there are,
// and decides what they get.

// Sweep finds what processes that have ended left behind, where they have no
// control groups. Whatever is left of a slot is by now, or descends from, a child
// of this process that it did not start; each is attributed to the slot whose
// session, invocation or title it has. One that has changed all three is not found
// before the fleet ends.
func (t *Table) Sweep(ended []*Process) map[*Process][]int {
	if !slices.ContainsFunc(ended, (*Process).leaves) {
		return nil // only spares: no user code ran
	}
	orphans, err := linux.Adopted(t.pid, func(pid int) bool {
		p := t.byPID[pid]
		return p != nil || pid == t.pid
	})
	if err != nil {
		t.log.Error(fmt.Sprintf("look for orphans: %v", err))
		return nil
	}
	left, until := map[*Process][]int{}, poll.Now().Add(sweepPatience)
	read := func(path string) []byte { return t.glances.read(path, until.Sub(poll.Now())) }
	for _, pid := range orphans {
		stat, err := linux.ReadStat(pid)
		if err != nil || stat.State == 'Z' {
			continue // it is about to be reaped
		}
		if i := slices.IndexFunc(ended, func(p *Process) bool { return p.owns(pid, stat, read) }); i >= 0 {
			left[ended[i]] = append(left[ended[i]], pid)
		}
	}
	return left
}

// leaves reports whether what it leaves behind must be looked for.
func (p *Process) leaves() bool { return p.Group == nil && (p.Invocation != "" || p.Floor) }

// owns reports whether an orphan came from this process. It decides only what ends
// together with it. A floor owns its session: each worker that was forked from it
// has one of its own before it introduces itself.
func (p *Process) owns(pid int, stat linux.Stat, read func(path string) []byte) bool {
	if !p.leaves() {
		return false
	}
	if stat.Session == p.PID || p.Floor {
		return stat.Session == p.PID
	}
	dir := "/proc/" + strconv.Itoa(pid)
	want := []byte("PREFORK_INVOCATION_ID=" + p.Invocation)
	if slices.ContainsFunc(bytes.Split(read(dir+"/environ"), []byte{0}), func(kv []byte) bool { return bytes.Equal(kv, want) }) {
		return true
	}
	cmdline := bytes.TrimRight(read(dir+"/cmdline"), "\x00")
	return len(cmdline) > 0 && string(cmdline) == p.Title
}

// addLeft notes what a process left behind. What comes late gets what the others
// have got.
func (t *Table) addLeft(p *Process, pids []int) {
	if p.left.pids == nil {
		p.left.pids = map[int]bool{}
	}
	for _, pid := range pids {
		if p.left.pids[pid] {
			continue
		}
		p.left.pids[pid] = true
		if p.left.sent != 0 {
			t.signalOne(p, pid, p.left.sent)
		}
		if p.left.sent != 0 && p.left.sent != unix.SIGKILL {
			t.signalOne(p, pid, unix.SIGCONT)
		}
	}
}

// NotLeft takes a pid off what processes left behind, and returns who they are.
func (t *Table) NotLeft(pid int) (of []*Process) {
	for _, p := range t.byID {
		if p.left.pids[pid] {
			delete(p.left.pids, pid)
			of = append(of, p)
		}
	}
	return of
}

// SweepAgain looks once more for what the processes left behind of whom something
// has ended: the children of that are ours now.
func (t *Table) SweepAgain(bereaved []*Process) (events []fleet.Event) {
	if len(bereaved) == 0 {
		return nil
	}
	left := t.Sweep(bereaved)
	for _, p := range bereaved {
		t.addLeft(p, left[p])
		if len(p.left.pids) == 0 && t.byID[p.ID] == p {
			t.Forget(p)
			events = append(events, fleet.Swept{Proc: p.ID})
		}
	}
	return events
}
