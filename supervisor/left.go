// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// What a process left behind is all that lives in its control group. Without one
// it is found by session and parent: the state machine hears how many there are,
// and decides what they get.

// kill sends a signal to a process, and to what came from it if that is wanted.
func (m *master) kill(act fleet.Kill) {
	p := m.procs.byID[act.Proc]
	if p == nil {
		return // it ended in this turn
	}
	sig := unix.Signal(act.Signal)
	err := p.signal(sig)
	switch {
	case !act.All:
	case p.group != nil:
		err = errors.Join(err, p.signalGroup(sig))
	case p.reaped:
		m.signalLeft(p, sig)
	case sig != unix.SIGKILL && p.pid != 0: // what SIGKILL leaves behind is found when it ends
		m.owed[p.pid] = append(m.owed[p.pid], sig)
	}
	if err != nil {
		m.log.Error(fmt.Sprintf("%s: %s: %v", p.name, act.Signal, err), slog.Int("pid", p.pid))
	}
}

func (p *process) signalGroup(sig unix.Signal) error {
	switch {
	case sig == unix.SIGKILL:
		return p.group.Kill()
	case p.reaped:
		return p.group.Signal(sig, 0)
	default:
		return p.group.Signal(sig, p.pid) // that one has it
	}
}

// signalLeft signals what a process without a control group left behind. All of
// them are children of this process: their pids cannot be another's.
func (m *master) signalLeft(p *process, sig unix.Signal) {
	if sig != unix.SIGCONT {
		p.sent = sig
	}
	for pid := range p.left {
		m.signalOne(p, pid, sig)
	}
}

func (m *master) signalOne(p *process, pid int, sig unix.Signal) {
	if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		m.log.Error(fmt.Sprintf("%s: %s to what it left behind: %v", p.name, unix.SignalName(sig), err), slog.Int("pid", pid))
	}
}

// signalSessions ends a turn: processes without control groups that live owe a
// signal to what runs in their sessions. All of /proc is read, but once in a turn.
func (m *master) signalSessions() {
	if len(m.owed) == 0 {
		return
	}
	defer clear(m.owed)
	pids, err := linux.Processes()
	if err != nil {
		m.log.Error(fmt.Sprintf("look for the processes of a session: %v", err))
	}
	for _, pid := range pids {
		if m.procs.byPID[pid] != nil {
			continue // it has its own
		}
		if stat, err := linux.ReadStat(pid); err != nil || m.owed[stat.Session] == nil {
			continue
		}
		pidfd, err := linux.PidfdOpen(pid)
		if err != nil {
			continue // it has ended
		}
		if stat, err := linux.ReadStat(pid); err == nil {
			for _, sig := range m.owed[stat.Session] {
				_ = linux.PidfdSendSignal(pidfd, sig) // it has ended, or changed its user: its parent's end will show it
			}
		}
		_ = unix.Close(pidfd) // it was only to be signalled
	}
}

// sweep finds what processes that have ended left behind, where they have no
// control groups. Whatever is left of a slot is by now, or descends from, a child
// of this process that it did not start; each is attributed to the slot whose
// session, invocation or title it has. One that has changed all three is not found
// before the fleet ends.
func (m *master) sweep(ended []*process) map[*process][]int {
	if !slices.ContainsFunc(ended, (*process).leaves) {
		return nil // only spares: no user code ran
	}
	orphans, err := linux.Children(m.pid, func(pid int) bool {
		p := m.procs.byPID[pid]
		return p != nil || pid == m.pid
	})
	if err != nil {
		m.log.Error(fmt.Sprintf("look for orphans: %v", err))
		return nil
	}
	left, until := map[*process][]int{}, m.now().Add(sweepPatience)
	read := func(path string) []byte { return m.glances.read(path, until.Sub(m.now())) }
	for _, pid := range orphans {
		stat, err := linux.ReadStat(pid)
		if err != nil || stat.State == 'Z' {
			continue // it is about to be reaped
		}
		if i := slices.IndexFunc(ended, func(p *process) bool { return p.owns(pid, stat, read) }); i >= 0 {
			left[ended[i]] = append(left[ended[i]], pid)
		}
	}
	return left
}

// leaves tells whether what it leaves behind must be looked for.
func (p *process) leaves() bool { return p.group == nil && (p.invocation != "" || p.floor) }

// owns tells whether an orphan came from this process. It decides only what ends
// together with it. A floor owns its session: each worker that was forked from it
// has one of its own before it introduces itself.
func (p *process) owns(pid int, stat linux.Stat, read func(path string) []byte) bool {
	if !p.leaves() {
		return false
	}
	if stat.Session == p.pid || p.floor {
		return stat.Session == p.pid
	}
	dir := "/proc/" + strconv.Itoa(pid)
	want := []byte("PREFORK_INVOCATION_ID=" + p.invocation)
	if slices.ContainsFunc(bytes.Split(read(dir+"/environ"), []byte{0}), func(kv []byte) bool { return bytes.Equal(kv, want) }) {
		return true
	}
	cmdline := bytes.TrimRight(read(dir+"/cmdline"), "\x00")
	return len(cmdline) > 0 && string(cmdline) == p.title
}

// glances are files of /proc that are being read on threads of their own. What is in
// the memory of a process takes as long to be read as that process likes: it may be
// of a file that it serves itself (FUSE).
type glances chan struct{}

const (
	mostGlances   = 8
	sweepPatience = 500 * time.Millisecond // longer than many processes that are well take
)

func newGlances() glances { return make(glances, mostGlances) }

// read waits no longer than that, and not at all while too many are stuck; it returns
// nothing then. A process that is not looked into is found at the fleet's end.
func (g glances) read(path string, patience time.Duration) []byte {
	select {
	case g <- struct{}{}:
	default:
		return nil
	}
	read := make(chan []byte, 1)
	go func() {
		text, _ := os.ReadFile(path) // it has ended, or is another user's
		<-g
		read <- text
	}()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case text := <-read:
		return text
	case <-late.C:
		return nil
	}
}

// addLeft notes what a process left behind. What comes late gets what the others
// have got.
func (m *master) addLeft(p *process, pids []int) {
	if p.left == nil {
		p.left = map[int]bool{}
	}
	for _, pid := range pids {
		if p.left[pid] {
			continue
		}
		p.left[pid] = true
		if p.sent != 0 {
			m.signalOne(p, pid, p.sent)
		}
		if p.sent != 0 && p.sent != unix.SIGKILL {
			m.signalOne(p, pid, unix.SIGCONT)
		}
	}
}

// notLeft takes a pid off what processes left behind, and tells of whom.
func (m *master) notLeft(pid int) (of []*process) {
	for _, p := range m.procs.byID {
		if p.left[pid] {
			delete(p.left, pid)
			of = append(of, p)
		}
	}
	return of
}

// sweepAgain looks once more for what the processes left behind of whom something
// has ended: the children of that are ours now.
func (m *master) sweepAgain(bereaved []*process) (events []fleet.Event) {
	if len(bereaved) == 0 {
		return nil
	}
	left := m.sweep(bereaved)
	for _, p := range bereaved {
		m.addLeft(p, left[p])
		if len(p.left) == 0 && m.procs.byID[p.id] == p {
			m.forget(p)
			events = append(events, fleet.Swept{Proc: p.id})
		}
	}
	return events
}

// The end of the fleet waits this long for what nobody has found before: until
// SIGKILL, and after it.
const (
	stragglerGrace  = 5 * time.Second
	stragglerKilled = 2 * time.Second
)

// endStragglers ends and reaps whatever is still a child when the fleet has
// ended, so that nothing outlives its master. It is as gentle as the end of a slot,
// and a second signal makes it as short.
func (m *master) endStragglers() {
	now := m.now()
	killAt, asked := now.Add(stragglerGrace), map[int]bool{}
	for giveUp := killAt.Add(stragglerKilled); now < giveUp; now = m.now() {
		left := m.reapAll()
		if len(left) == 0 {
			return
		}
		if m.stops > 1 {
			killAt = min(killAt, now)
		}
		patient := false
		for _, pid := range left {
			switch {
			case now >= killAt || m.procs.byPID[pid] != nil: // one that did not end from SIGKILL
				_ = unix.Kill(pid, unix.SIGKILL) // a child: it ends, or has ended
			case !asked[pid]:
				asked[pid], patient = true, true
				_ = unix.Kill(pid, unix.SIGTERM) // the same
				_ = unix.Kill(pid, unix.SIGCONT)
			default:
				patient = true
			}
		}
		if !patient {
			killAt = min(killAt, now)
			giveUp = min(giveUp, killAt.Add(stragglerKilled))
		}
		m.poller.Wait(now.Add(100*time.Millisecond), now)
		m.wake.Clear()
		m.takeSignals()
	}
	m.log.Warn("some processes did not end; they are left to the service manager")
}

// reapAll reaps every child that has ended, and lists the others.
func (m *master) reapAll() []int {
	for {
		w, err := linux.PeekAny()
		if err != nil {
			return nil // ECHILD: nothing is left
		}
		if w.PID == 0 {
			break
		}
		_, _ = linux.ReapPID(w.PID) // it is ours, and has ended
	}
	left, _ := linux.Children(m.pid, func(int) bool { return false })
	return left
}
