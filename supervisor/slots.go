// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"path/filepath"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

// slot is what the master keeps for a slot while processes come and go.
type slot struct {
	id     fleet.SlotID
	name   string // "web.0"
	index  int
	worker int
	config *fleetfile.Worker

	process    *process // that is the slot now, or will be: it has its orders
	invocation string   // of its last process

	notify  *sdnotify.Server // its NOTIFY_SOCKET; nil if it has none
	budget  budget           // of datagrams
	dropped int              // datagrams, in the life of its process
	store   store
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
		path := filepath.Join(m.runtime.notify, s.name)
		if len(path) > longestPath {
			path = filepath.Join(m.runtime.notify, fmt.Sprintf("s%d", s.id)) // no slot is named so: it has no dot
		}
		server, err := sdnotify.Listen(path)
		if err != nil {
			return err
		}
		s.notify = server
		if err := m.poller.add(server.FD(), newToken(notices, uint64(s.id))); err != nil {
			return err
		}
	}
	return nil
}

func (s *slot) close() {
	if s.notify != nil {
		_ = s.notify.Close() // nobody is left to be heard
	}
	s.store.close()
}
