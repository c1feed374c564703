// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/procs"
)

// preset gives a forked worker what only a capability of the master can: nothing
// that is forked from a floor has one. The process is at its gate, and finds that
// it has been given already what it then asks for.
func preset(p *procs.Process, w *fleetfile.Worker) error {
	if w.Entry == "" || os.Geteuid() == 0 { // who is root can do it itself, before it is another
		return nil
	}
	if w.Nice != nil {
		if err := unix.Setpriority(unix.PRIO_PROCESS, p.PID, *w.Nice); err != nil {
			return fmt.Errorf("nice %d: %w", *w.Nice, err)
		}
	}
	if w.OOMScoreAdjust != nil {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.PID), []byte(strconv.Itoa(*w.OOMScoreAdjust)), 0); err != nil {
			return err
		}
	}
	for _, l := range w.Limits {
		if err := unix.Prlimit(p.PID, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
	}
	return nil
}
