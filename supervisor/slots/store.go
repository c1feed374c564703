// SPDX-License-Identifier: AGPL-3.0-or-later

package slots

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/manager"
)

// store holds the descriptors that the processes of one slot have given to be
// kept for their successors (FDSTORE=1, sd_notify(3)). It owns them.
type store struct {
	max  int
	fds  []stored
	full bool // and that was said
}

type stored struct {
	name string
	fd   int
	id   uint64 // with which it is polled; 0: it is not
}

// Stored is what it has stored, in that order. The descriptors stay its own.
func (s *Slot) Stored() (names []string, fds []int) {
	for _, f := range s.store.fds {
		names, fds = append(names, f.name), append(fds, f.fd)
	}
	return names, fds
}

// store keeps what came with a datagram. As in systemd, what is stored already
// is not stored twice, and the sender is not told that there was no room.
//
// What another process serves is not kept: whatever closes a copy of it, be it the
// start of a program, could have to wait for that one.
func (t *Table) store(s *Slot, d *sdnotify.Datagram) {
	var unwanted []int
	for _, fd := range d.FDs {
		switch {
		case slices.ContainsFunc(s.store.fds, func(old stored) bool { return linux.SameFile(old.fd, fd) }):
			unwanted = append(unwanted, fd)
		case len(s.store.fds) >= s.store.max:
			t.noRoom(s)
			unwanted = append(unwanted, fd)
		case linux.Remote(fd):
			t.log.Warn(fmt.Sprintf("%s: its descriptor %q is not stored: it is of a file system that another process or machine serves",
				s.Name, d.Message.FDName))
			unwanted = append(unwanted, fd)
		default:
			poll := d.Message.FDPoll && linux.Pollable(fd)
			s.store.fds = append(s.store.fds, stored{name: d.Message.FDName, fd: fd, id: t.pollStored(s, fd, poll)})
			t.keep(s, d.Message.FDName, fd, poll)
		}
	}
	d.FDs = nil
	t.drop(s, unwanted...)
}

// drop has descriptors of a slot closed. A slot that has too many of them is not
// heard meanwhile.
func (t *Table) drop(s *Slot, fds ...int) {
	s.inbox.errands.Close(fds...)
	if s.inbox.errands.Holds() > maxHeld {
		t.mute(s, 0)
	}
}

func (t *Table) noRoom(s *Slot) {
	if !s.store.full {
		s.store.full = true
		t.log.Warn(fmt.Sprintf("%s: no room for a descriptor that it wants to store: raise file_descriptor_store_max (%d)",
			s.Name, s.store.max))
	}
}

// pollStored notices that the other end of a descriptor is gone: it is of no
// use to a successor then.
func (t *Table) pollStored(s *Slot, fd int, wanted bool) uint64 {
	if !wanted {
		return 0
	}
	t.lastPolled++
	if err := t.hangups.AddFor(fd, t.lastPolled, 0); err != nil {
		return 0 // EPERM: a regular file, for example, has no other end
	}
	t.polled[t.lastPolled] = s
	return t.lastPolled
}

// HungUp drops a descriptor whose other end is gone.
func (t *Table) HungUp(id uint64) {
	if s := t.polled[id]; s != nil {
		t.dropStored(s, func(f stored) bool { return f.id == id })
	}
}

func (t *Table) unstore(s *Slot, name string) {
	t.dropStored(s, func(f stored) bool { return f.name == name })
}

// keptPrefix begins the names under which systemd keeps what slots have stored,
// for the next master (FileDescriptorStoreMax= of the unit): "slot.web.0.conn".
const keptPrefix = "slot."

func keptName(s *Slot, name string) string { return keptPrefix + s.Name + "." + name }

// keep passes a copy on to systemd, so that it outlives this master too.
func (t *Table) keep(s *Slot, name string, fd int, poll bool) {
	err := t.manager.Keep(keptName(s, name), fd, poll)
	line := fmt.Sprintf("%s: its descriptor %q will not outlive this master: %v", s.Name, name, err)
	switch {
	case err == nil:
	case errors.Is(err, manager.ErrNoSockets):
		t.log.Info(line)
	default:
		t.log.Warn(line)
	}
}

// Split finds among what systemd passed what slots have stored with an earlier master.
func Split(passed []sdnotify.Activated) (kept, others []sdnotify.Activated) {
	for _, a := range passed {
		if strings.HasPrefix(a.Name, keptPrefix) {
			kept = append(kept, a)
		} else {
			others = append(others, a)
		}
	}
	return kept, others
}

// TakeKept gives slots back what they had stored with an earlier master. What
// belongs to no slot any more is given up.
func (t *Table) TakeKept(kept []sdnotify.Activated) {
	for _, k := range kept {
		i := slices.IndexFunc(t.slots, func(s *Slot) bool { return strings.HasPrefix(k.Name, keptName(s, "")) })
		if i < 0 || len(t.slots[i].store.fds) >= t.slots[i].store.max {
			t.errands.Owner().Close(k.FD) // not wanted
			t.manager.Forget(k.Name)      // else the next master gives it up
			continue
		}
		s := t.slots[i]
		s.store.fds = append(s.store.fds, stored{
			name: strings.TrimPrefix(k.Name, keptName(s, "")), fd: k.FD, id: t.pollStored(s, k.FD, linux.Pollable(k.FD)),
		})
	}
}

func (t *Table) dropStored(s *Slot, drop func(stored) bool) {
	var dropped []string
	s.store.fds = slices.DeleteFunc(s.store.fds, func(f stored) bool {
		if !drop(f) {
			return false
		}
		if f.id != 0 {
			// Others may hold the same open file: closing would leave it polled.
			_ = t.hangups.Remove(f.fd) // the poller has it: this cannot fail
			delete(t.polled, f.id)
		}
		t.drop(s, f.fd)
		s.store.full = false
		dropped = append(dropped, f.name)
		return true
	})
	for _, name := range dropped {
		if !slices.ContainsFunc(s.store.fds, func(f stored) bool { return f.name == name }) {
			t.manager.Forget(keptName(s, name)) // else the next master gets it once more
		}
	}
}
