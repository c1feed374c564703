// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/verb"
)

// clients is the end of those who ask. It implements [control.Backend]; its methods are
// for all goroutines.
type clients struct {
	file     *fleetfile.File // with which the fleet was started
	master   int             // pid
	managed  bool
	reading  chan struct{} // has room for who reads the file
	queue    queue
	outcomes outcomes
	history  history
	gauge    gauge
	tidier   *tidier
}

// Look implements [control.Backend]. It blocks until the loop has had its turn.
func (c *clients) Look() (*control.Status, error) {
	s, err := c.queue.look()
	if err != nil {
		return nil, err
	}
	return s.Fleet, nil
}

// Operate implements [control.Backend]. It blocks until the loop has answered.
func (c *clients) Operate(slot string, call verb.Call, by control.Caller) error {
	if err := call.Check(); err != nil {
		return err
	}
	_, err := c.queue.ask(fleet.Operate{Slot: slot, Call: call, Who: who(by)})
	return err
}

// History implements [control.Backend].
func (c *clients) History(slot string) []control.HistoryEntry { return c.history.of(slot) }

// Measure implements [control.Backend].
func (c *clients) Measure(f *control.Status) { c.gauge.measure(f) }

// Idle implements [control.Backend].
func (c *clients) Idle() { c.tidier.within(afterALook) }
