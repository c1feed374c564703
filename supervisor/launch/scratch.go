// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"fmt"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/revisions"
	"github.com/decnet/prefork/supervisor/zygote"
)

// Scratch writes the orders of processes that are examined and belong to no fleet: those
// that the fleet's own would get, as far as they need no slot.
type Scratch struct {
	book     *book
	revision *revisions.Revision
}

// ForScratch is for a fleet file that nobody needs to run. Its processes end with the
// thread that starts them.
func ForScratch(file *fleetfile.File) *Scratch {
	return &Scratch{newBook(Config{}), &revisions.Revision{File: file}}
}

// Floor makes a shim a zygote, and tells that what to load.
func (s *Scratch) Floor() (*gate.Orders, zygote.LoadRequest) {
	msg := s.book.floorMessage(s.revision, 1)
	msg.Title = fmt.Sprintf("prefork: check of floor [%s]", s.revision.File.Name)
	return s.book.floorOrders(s.revision, 1), msg
}

// Worker makes a worker at its gate the first slot of a worker, with what its environment
// files hold, but without sockets, and with no supervisor that it could notify.
func (s *Scratch) Worker(w *fleetfile.Worker, env []string) *gate.Orders {
	w = w.Of(0, w.Count)
	o := s.book.workerOrders(s.revision.File, w)
	o.Slot, o.Comm, o.Generation = w.Name+".0", w.Name+".0", 1
	o.Title = fmt.Sprintf("prefork: check of %s [%s]", o.Slot, o.Fleet)
	o.Env = append(append(env, list(w.Environment)...), slotVariables(o.Fleet, w.Name, 0, w.Count, newInvocation())...)
	o.Watchdog = 0
	return o
}
