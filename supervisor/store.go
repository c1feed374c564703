// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// store holds the descriptors that the processes of one slot have given to be
// kept for their successors (FDSTORE=1, sd_notify(3)). It owns them.
type store struct {
	most int
	fds  []stored
	full bool // and that was said
}

type stored struct {
	name string
	fd   int
	id   uint64 // with which it is polled; 0: it is not
}

// store keeps what came with a datagram. As in systemd, what is stored already
// is not stored twice, and the sender is not told that there was no room.
//
// What another process serves is not kept: whatever closes a copy of it, be it the
// start of a program, could have to wait for that one.
func (m *master) store(s *slot, d *sdnotify.Datagram) {
	var unwanted []int
	for _, fd := range d.FDs {
		switch {
		case slices.ContainsFunc(s.store.fds, func(old stored) bool { return linux.SameFile(old.fd, fd) }):
			unwanted = append(unwanted, fd)
		case len(s.store.fds) >= s.store.most:
			m.noRoom(s)
			unwanted = append(unwanted, fd)
		case linux.Remote(fd):
			m.log.Warn(fmt.Sprintf("%s: its descriptor %q is not stored: it is of a file system that another process or machine serves",
				s.name, d.Message.FDName))
			unwanted = append(unwanted, fd)
		default:
			poll := d.Message.FDPoll && linux.Pollable(fd)
			s.store.fds = append(s.store.fds, stored{name: d.Message.FDName, fd: fd, id: m.pollStored(s, fd, poll)})
			m.keep(s, d.Message.FDName, fd, poll)
		}
	}
	d.FDs = nil
	m.drop(s, unwanted...)
}

// drop has descriptors of a slot closed. A slot that has too many of them is not
// heard meanwhile.
func (m *master) drop(s *slot, fds ...int) {
	s.errands.Close(fds...)
	if s.errands.Holds() > maxHeld {
		m.mute(s, 0)
	}
}

func (m *master) noRoom(s *slot) {
	if !s.store.full {
		s.store.full = true
		m.log.Warn(fmt.Sprintf("%s: no room for a descriptor that it wants to store: raise file_descriptor_store_max (%d)",
			s.name, s.store.most))
	}
}

// pollStored notices that the other end of a descriptor is gone: it is of no
// use to a successor then.
func (m *master) pollStored(s *slot, fd int, wanted bool) uint64 {
	if !wanted {
		return 0
	}
	m.lastStored++
	if err := m.poller.Source(storedFDs).AddFor(fd, m.lastStored, 0); err != nil {
		return 0 // EPERM: a regular file, for example, has no other end
	}
	m.storedIn[m.lastStored] = s
	return m.lastStored
}

// storedHungUp drops a descriptor whose other end is gone.
func (m *master) storedHungUp(id uint64) {
	if s := m.storedIn[id]; s != nil {
		m.dropStored(s, func(f stored) bool { return f.id == id })
	}
}

func (m *master) unstore(s *slot, name string) {
	m.dropStored(s, func(f stored) bool { return f.name == name })
}

// keptPrefix begins the names under which systemd keeps what slots have stored,
// for the next master (FileDescriptorStoreMax= of the unit): "slot.web.0.conn".
const keptPrefix = "slot."

func keptName(s *slot, name string) string { return keptPrefix + s.name + "." + name }

// keep passes a copy on to systemd, so that it outlives this master too. One that
// closes what it keeps on its only thread, as before version 254, gets no socket: the
// last close of one can block it (SO_LINGER), and with it the machine.
func (m *master) keep(s *slot, name string, fd int, poll bool) {
	switch {
	case !m.managed:
		return
	case !m.keepsSockets && linux.IsSocket(fd):
		m.log.Info(fmt.Sprintf("%s: its descriptor %q will not outlive this master: it is a socket, and systemd is older than version 254", s.name, name))
		return
	}
	if err := m.manager.Keep(keptName(s, name), fd, poll); err != nil {
		m.log.Warn(fmt.Sprintf("%s: its descriptor %q will not outlive this master: %v", s.name, name, err))
	}
}

// passed splits what systemd passed into sockets and what slots have stored with an
// earlier master.
func passed(env sdnotify.Environment) (sockets, kept []sdnotify.Activated, err error) {
	all, err := sdnotify.Listeners(env)
	if err != nil {
		return nil, nil, fmt.Errorf("sockets from systemd: %w", err)
	}
	for _, a := range all {
		if strings.HasPrefix(a.Name, keptPrefix) {
			kept = append(kept, a)
		} else {
			sockets = append(sockets, a)
		}
	}
	return sockets, kept, nil
}

// takeKept gives slots back what they had stored with an earlier master. What
// belongs to no slot any more is given up.
func (m *master) takeKept(kept []sdnotify.Activated) {
	for _, k := range kept {
		i := slices.IndexFunc(m.slots, func(s *slot) bool { return strings.HasPrefix(k.Name, keptName(s, "")) })
		if i < 0 || len(m.slots[i].store.fds) >= m.slots[i].store.most {
			m.disposal.Owner().Close(k.FD) // not wanted
			m.manager.Forget(k.Name)       // else the next master gives it up
			continue
		}
		s := m.slots[i]
		s.store.fds = append(s.store.fds, stored{
			name: strings.TrimPrefix(k.Name, keptName(s, "")), fd: k.FD, id: m.pollStored(s, k.FD, linux.Pollable(k.FD)),
		})
	}
}

func (m *master) dropStored(s *slot, drop func(stored) bool) {
	var dropped []string
	s.store.fds = slices.DeleteFunc(s.store.fds, func(f stored) bool {
		if !drop(f) {
			return false
		}
		if f.id != 0 {
			// Others may hold the same open file: closing would leave it polled.
			_ = m.poller.Source(storedFDs).Remove(f.fd) // it is in there
			delete(m.storedIn, f.id)
		}
		m.drop(s, f.fd)
		s.store.full = false
		dropped = append(dropped, f.name)
		return true
	})
	for _, name := range dropped {
		left := slices.ContainsFunc(s.store.fds, func(f stored) bool { return f.name == name })
		if m.managed && !left {
			m.manager.Forget(keptName(s, name)) // else the next master gets it once more
		}
	}
}
