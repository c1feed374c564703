// SPDX-License-Identifier: AGPL-3.0-or-later

// Package slots has what is kept for a slot while its processes come and go: the socket
// on which they notify, and the descriptors that they have stored for their successors.
//
//	notify socket ──> Read ──> fleet.Notified, fleet.TaskSaid, fleet.TaskFault
//	                   ├─ FDSTORE=1 ──> the slot's store, and a copy to systemd
//	                   └─ other descriptors, barriers ──> dropped by a thread, for the loop
//	                                                      cannot know how long that takes
//
// A slot that says too much is not heard for a while: what it says then waits in the
// kernel, where the slot alone feels it.
package slots

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/errands"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/manager"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/revisions"
	"github.com/decnet/prefork/supervisor/sockets"
)

// Slot is one slot of a fleet. What is exported changes only as a revision becomes the
// current one ([Table.Commit]).
type Slot struct {
	ID       fleet.SlotID
	Name     string // "web.0"
	Index    int    // among the slots of its worker
	Worker   fleet.WorkerID
	Revision *revisions.Revision
	Config   *fleetfile.Worker // of the revision

	process    *procs.Process   // that is the slot now, or will be: it has its orders
	invocation string           // of its last process
	pid        int              // the same
	stamp      *revisions.Stamp // of the environment files with which that was born; nil: none was
	broken     error            // why it cannot have a process

	inbox inbox
	store *store // of its name: it is shared with a slot that is to take its place
}

// Table has all slots. Only the loop calls its methods, none of which blocks.
type Table struct {
	dir     string // of the notify sockets
	slots   []*Slot
	byID    map[fleet.SlotID]*Slot
	log     *output.Log
	manager *manager.Manager // keeps for the next master what is stored
	errands *errands.Pool
	notices poll.Source // notify sockets, by fleet.SlotID
	hangups poll.Source // stored descriptors, by numbers of their own

	received sdnotify.Buffer
	burdened []*Slot // whose next datagram is skipped when what was said before it has been done
	muted    []*Slot
	unmuteAt policy.Instant
	dropped  uint64 // notifications, of all slots

	polled     map[uint64]*Slot // whose stored descriptors are polled, by number
	lastPolled uint64
}

// New makes a table of the slots of a fleet, of its first revision. Its sources report that
// a slot has said something ([Table.Read]), and that the other end of a stored descriptor is
// gone ([Table.HungUp]).
func New(first *revisions.Revision, infos []fleet.SlotInfo, log *output.Log, mgr *manager.Manager, d *errands.Pool, notices, hangups poll.Source) *Table {
	t := &Table{
		log: log, manager: mgr, errands: d, notices: notices, hangups: hangups,
		byID: map[fleet.SlotID]*Slot{}, unmuteAt: policy.Never, polled: map[uint64]*Slot{},
	}
	for _, info := range infos {
		t.add(first, info, &store{})
	}
	return t
}

func (t *Table) add(r *revisions.Revision, info fleet.SlotInfo, kept *store) *Slot {
	s := &Slot{
		ID: info.ID, Name: info.Name, Index: info.Index, Worker: info.Worker,
		inbox: inbox{budget: fullBudget()}, store: kept,
	}
	s.become(r, info.WorkerName)
	t.slots, t.byID[s.ID] = append(t.slots, s), s
	return s
}

// become makes a slot one of a revision.
func (s *Slot) become(r *revisions.Revision, worker string) {
	s.Revision, s.Config = r, r.Worker(worker)
	s.store.max = s.Config.FDStoreMax
}

// Open makes one more slot, which may be there to take the place of another of its name:
// both have what is stored under it. If it cannot have a notify socket, it is told who gives
// it a process ([Slot.Broken]).
func (t *Table) Open(r *revisions.Revision, info fleet.SlotInfo) {
	kept := &store{}
	if other := t.Named(info.Name); other != nil {
		kept = other.store
	}
	s := t.add(r, info, kept)
	s.broken = t.listen(s)
}

// Commit makes slots that have been there before ones of a revision.
func (t *Table) Commit(r *revisions.Revision, kept []fleet.SlotID) {
	for _, id := range kept {
		s := t.byID[id]
		s.become(r, s.Config.Name)
	}
}

// Remove ends a slot that has no process any more. What is stored under its name is closed
// with the last of it.
func (t *Table) Remove(id fleet.SlotID) {
	s := t.byID[id]
	if s == nil {
		return
	}
	delete(t.byID, id)
	gone := func(o *Slot) bool { return o == s }
	t.slots = slices.DeleteFunc(t.slots, gone)
	if s.inbox.server == nil {
		return
	}
	heir := t.Named(s.Name)
	if heir == nil {
		t.dropStored(s, func(stored) bool { return true })
	}
	for number, of := range t.polled {
		if of == s {
			t.polled[number] = heir
		}
	}
	t.burdened = slices.DeleteFunc(t.burdened, gone)
	muted := len(t.muted)
	if t.muted = slices.DeleteFunc(t.muted, gone); len(t.muted) == muted {
		_ = t.notices.Remove(s.inbox.server.FD()) // the poller has it: this cannot fail
	}
	s.inbox.server.Remove()
	s.inbox.errands.Close(s.inbox.server.FD())
}

// All are the slots in the order of the file.
func (t *Table) All() []*Slot { return t.slots }

// Of returns a slot by its id.
func (t *Table) Of(id fleet.SlotID) *Slot { return t.byID[id] }

// Sockets are those of a worker, of all revisions of which it has slots, and its name.
func (t *Table) Sockets(id fleet.WorkerID) (worker string, all []sockets.Socket) {
	for _, s := range t.slots {
		if s.Worker != id {
			continue
		}
		worker = s.Config.Name
		for _, socket := range s.Sockets() {
			if !slices.Contains(all, socket) {
				all = append(all, socket)
			}
		}
	}
	return worker, all
}

// Born are the stamps of the environment files with which the processes of a worker's slots
// were born.
func (t *Table) Born(worker string) (all []revisions.Stamp) {
	for _, s := range t.slots {
		if s.stamp != nil && s.Config.Name == worker {
			all = append(all, *s.stamp)
		}
	}
	return all
}

// OfPID is the slot whose last process had a pid, nil if there is none.
func (t *Table) OfPID(pid int) *Slot {
	i := slices.IndexFunc(t.slots, func(s *Slot) bool { return s.pid == pid && pid != 0 })
	if i < 0 {
		return nil
	}
	return t.slots[i]
}

// Named returns a slot by its name, nil if there is none. Of two that have it, it is the one
// that was there first.
func (t *Table) Named(name string) *Slot {
	for _, s := range t.slots {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// maxPath is the length of a Unix socket's path, in bytes (unix(7)).
const maxPath = 107

// Listen gives each slot the socket that its processes notify, in a directory. They are
// made once: a slot that restarts makes no socket.
func (t *Table) Listen(dir string) error {
	t.dir = dir
	for _, s := range t.slots {
		if err := t.listen(s); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) listen(s *Slot) error {
	if s.Config.NotifyAccess == fleetfile.NotifyNone {
		return nil
	}
	path := filepath.Join(t.dir, s.Name)
	if len(path) > maxPath || t.Named(s.Name) != s {
		path = filepath.Join(t.dir, fmt.Sprintf("s%d", s.ID)) // no slot is named so: it has no dot
	}
	server, err := sdnotify.Listen(path)
	if err != nil {
		return err
	}
	s.inbox.server, s.inbox.errands = server, t.errands.Owner()
	return t.notices.Add(server.FD(), uint64(s.ID))
}

// Close drops what slots hold. It does not wait for what their processes have sent: the
// kernel does not either, when this process ends.
func (t *Table) Close() {
	for _, s := range t.slots {
		s.close()
	}
}

func (s *Slot) close() {
	if s.inbox.server == nil {
		return
	}
	s.inbox.server.Remove()
	s.inbox.errands.Close(s.inbox.server.FD()) // nobody is left to be heard
	for _, f := range s.store.fds {
		s.inbox.errands.Close(f.fd)
	}
	s.store.fds = nil
}

// Assign makes a process the one that is heard for the slot.
func (s *Slot) Assign(p *procs.Process) { s.process, s.invocation, s.pid = p, p.Invocation, p.PID }

// Sockets are the slot's, in the order in which its worker names them.
func (s *Slot) Sockets() []sockets.Socket { return s.Revision.Sockets.Of(s.Config.Sockets) }

// BornWith says what its environment files held when its process was born.
func (s *Slot) BornWith(stamp revisions.Stamp) { s.stamp = &stamp }

// Broken is why it cannot have a process, nil if it can.
func (s *Slot) Broken() error { return s.broken }

// Invocation is that of its last process.
func (s *Slot) Invocation() string { return s.invocation }

// NotifySocket is the path of its notify socket, "" if it has none.
func (s *Slot) NotifySocket() string {
	if s.inbox.server == nil {
		return ""
	}
	return s.inbox.server.Path()
}

// GiveNotifySocket makes a user the owner of its notify socket.
func (s *Slot) GiveNotifySocket(uid int) error {
	if err := linux.GiveSocket(s.inbox.server.Path(), uid); err != nil {
		return fmt.Errorf("give the notify socket to user %d: %w", uid, err)
	}
	return nil
}
