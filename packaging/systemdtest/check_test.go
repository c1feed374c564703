// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"strings"
	"testing"
)

// TestCheckFloorLikeItsUnit has root examine the floor of a fleet that systemd runs: it is
// loaded as the user of the unit, with its environment, and the fleet goes on.
func TestCheckFloorLikeItsUnit(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.WriteFile(t, "/opt/app/seen.py", "import os\nprint('seen', os.getuid() != 0, os.environ['USER'], os.environ['GIVEN'], os.getcwd(), os.environ.get('NOTIFY_SOCKET'))\ndef serve(): import time; time.sleep(1e6)\n")
		m.fleet(t, "[floor]\npath = [\"/opt/app\"]\npreload = [\"seen\"]\n[worker.web]\nentry = \"seen:serve\"\n")
		m.dropIn(t, "[Service]\nEnvironment=GIVEN=yes\n")
		for _, runs := range []bool{false, true} {
			if runs {
				m.Run(t, "systemctl", "start", service)
				m.waitForStatus(t, "1/1 ready")
			}
			before, _ := m.Try("systemctl", "show", "-P", "MainPID,NRestarts,StatusText", service)
			report := m.Run(t, "prefork", "check", "--floor", "fleet")
			if !strings.Contains(report, "seen True prefork yes / None\n") || !strings.Contains(report, ", loaded by prefork in /\n") ||
				!strings.Contains(report, "fleet: the fleet would use this floor\n") {
				t.Errorf("%s: %s", m.Suite, report)
			}
			if after, _ := m.Try("systemctl", "show", "-P", "MainPID,NRestarts,StatusText", service); after != before {
				t.Errorf("%s: the unit was %q, and is %q", m.Suite, before, after)
			}
		}
	})
}
