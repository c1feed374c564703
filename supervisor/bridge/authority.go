// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// MayChange implements [control.Backend]: changes are for root and, of a fleet
// that systemd does not run, for the user who runs it; never for a process of the
// fleet, which may have the same user.
func (c *clients) MayChange(by control.Caller) error {
	own := uint32(os.Geteuid())
	switch {
	case by.UID != 0 && c.managed:
		return errors.New("only root may change a fleet that systemd runs")
	case by.UID != 0 && by.UID != own:
		return fmt.Errorf("only root and uid %d may change this fleet", own)
	case by.PID == 0: // it is outside of this pid namespace, in which the fleet is
		return nil
	}
	below, err := linux.Descends(by.PID, c.master)
	hidden := err != nil && by.UID != own // what descends from here can be seen, or has this uid
	switch {
	case below:
		return errors.New("a process of the fleet may not change it")
	case err != nil && !hidden, by.PIDFD >= 0 && errors.Is(linux.PidfdSendSignal(by.PIDFD, 0), unix.ESRCH):
		return errors.New("the process that has connected has ended")
	}
	return nil
}
