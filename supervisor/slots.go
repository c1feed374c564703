// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"path/filepath"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/disposal"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/procs"
)

// slot is what the master keeps for a slot while processes come and go.
type slot struct {
	id     fleet.SlotID
	name   string // "web.0"
	index  int
	worker int
	config *fleetfile.Worker

	process    *procs.Process // that is the slot now, or will be: it has its orders
	invocation string         // of its last process

	notify   *sdnotify.Server // its NOTIFY_SOCKET; nil if it has none
	budget   budget           // of datagrams
	quiet    fleet.Instant    // it is not heard before
	burdened bool             // its next datagram is skipped where that may block
	errands  *disposal.Owner  // what it sent, to be dropped
	dropped  int              // datagrams, in the life of its process
	store    store
}

// newSlots lists the slots of a file in the order of their fleet.SlotID.
func newSlots(file *fleetfile.Fleet) []*slot {
	var all []*slot
	for w := range file.Workers {
		config := &file.Workers[w]
		for i := range config.Count {
			all = append(all, &slot{
				id: fleet.SlotID(len(all)), name: fmt.Sprintf("%s.%d", config.Name, i), index: i,
				worker: w, config: config, budget: fullBudget(),
				store: store{most: config.FDStoreMax},
			})
		}
	}
	return all
}

// longestPath is that of a Unix socket, in bytes (unix(7)).
const longestPath = 107

// openNotify gives each slot the socket that its processes notify. They are
// made once: a slot that restarts makes no socket.
func (m *master) openNotify() error {
	for _, s := range m.slots {
		if s.config.NotifyAccess == fleetfile.NotifyNone {
			continue
		}
		path := filepath.Join(m.runtime.Notify, s.name)
		if len(path) > longestPath {
			path = filepath.Join(m.runtime.Notify, fmt.Sprintf("s%d", s.id)) // no slot is named so: it has no dot
		}
		server, err := sdnotify.Listen(path)
		if err != nil {
			return err
		}
		s.notify = server
		s.errands = m.disposal.Owner()
		if err := m.poller.Source(notices).Add(server.FD(), uint64(s.id)); err != nil {
			return err
		}
	}
	return nil
}

// giveNotify makes a worker whose floor has a user of its own the owner of its notify
// socket. Who has to change its user gives it away by itself, while it may.
func (m *master) giveNotify(p *procs.Process, s *slot) error {
	if s.notify == nil || s.config.Entry == "" || p.Birth.UID == m.uid {
		return nil
	}
	if err := linux.GiveSocket(s.notify.Path(), p.Birth.UID); err != nil {
		return fmt.Errorf("give the notify socket to user %d: %w", p.Birth.UID, err)
	}
	return nil
}

// close does not wait for what its processes have sent. The kernel does not either,
// when this one ends.
func (s *slot) close() {
	if s.notify == nil {
		return
	}
	s.notify.Remove()
	s.errands.Close(s.notify.FD()) // nobody is left to be heard
	for _, f := range s.store.fds {
		s.errands.Close(f.fd)
	}
	s.store.fds = nil
}
