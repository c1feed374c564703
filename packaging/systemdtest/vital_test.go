// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"strconv"
	"strings"
	"testing"
)

// TestVitalWorkerFailsTheUnit: systemd sees that a fleet has ended with one of its slots,
// and the journal says why. It starts the fleet again, unless it is told not to.
func TestVitalWorkerFailsTheUnit(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, floorTable, httpTable, `
[worker.web]
entry = "app:serve"
sockets = ["http"]

[worker.vital]
exec = ["sleep", "98765"]
restart = "no"
failure_action = "exit"
`)
		m.Run(t, "systemctl", "start", httpSocket, service)
		first := m.mustAsk(t)
		m.Run(t, "pkill", "-KILL", "--full", "^sleep 98765$")
		m.WaitFor(t, "another start of the unit", func() bool {
			u := m.service(t)
			return u.ActiveState == "active" && u.NRestarts == 1
		})
		if r := m.mustAsk(t); r.PID == first.PID {
			t.Errorf("%s: process %d answers as before", m.Suite, r.PID)
		}
		for _, want := range []string{
			`fleet fails: vital.0 failed (failure_action = "exit"): signal: killed by SIGKILL after `,
			"Main process exited, code=exited, status=1/FAILURE",
		} {
			if log := m.Journal(t, service); !strings.Contains(log, want) {
				t.Errorf("%s: the journal does not say %s:\n%s", m.Suite, want, log)
			}
		}

		m.dropIn(t, "[Service]\nRestartPreventExitStatus=1\n")
		m.Run(t, "systemctl", "restart", service)
		m.Run(t, "pkill", "-KILL", "--full", "^sleep 98765$")
		m.WaitFor(t, "a unit that has failed", func() bool { return m.service(t).ActiveState == "failed" })
		u := m.service(t)
		if u.Result != "exit-code" || u.ExecMainStatus != 1 || !strings.Contains(u.StatusText, `vital.0 failed (failure_action = "exit")`) {
			t.Errorf("%s: %+v", m.Suite, u)
		}
	})
}

// TestStopUnderLoad: systemctl stop of a fleet with a stop_delay_sec, which is longer than
// systemd would wait, returns when it is over. Until then requests are served, also by what
// has to be started again; afterwards they wait in systemd's socket. SIGTERM ends the delay.
func TestStopUnderLoad(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.dropIn(t, "[Service]\nTimeoutStopSec=1s\n")
		m.fleet(t, `stop_delay_sec = "3s"`, floorTable, httpTable, `
[worker.web]
entry = "app:serve"
sockets = ["http"]
restart_sec = 0
`)
		m.Run(t, "systemctl", "start", httpSocket, service)
		first := m.mustAsk(t)
		m.Run(t, "systemctl", "stop", "--no-block", service)
		m.WaitFor(t, "a fleet that drains", func() bool {
			u := m.service(t)
			return u.ActiveState == "deactivating" && strings.HasPrefix(u.StatusText, "draining: stops in ")
		})
		if r := m.mustAsk(t); r.PID != first.PID {
			t.Errorf("%s: process %d answers, and not %d", m.Suite, r.PID, first.PID)
		}
		m.Run(t, "kill", "-KILL", strconv.Itoa(first.PID))
		if r := m.mustAsk(t); r.PID == first.PID {
			t.Errorf("%s: process %d was killed, and answers", m.Suite, r.PID)
		}
		m.WaitFor(t, "the end of the unit", func() bool { return m.service(t).ActiveState != "deactivating" })
		log := m.Journal(t, service)
		if u := m.service(t); u.Result != "success" || strings.Contains(log, "timed out") || !strings.Contains(log, "fleet drains: SIGTERM") {
			t.Errorf("%s: %+v\n%s", m.Suite, u, log)
		}

		m.fleet(t, `stop_delay_sec = "1h"`, floorTable, httpTable, `
[worker.web]
entry = "app:serve"
sockets = ["http"]
`)
		m.mustAsk(t) // the connection starts it
		m.Run(t, "systemctl", "stop", "--no-block", service)
		m.WaitFor(t, "a fleet that drains for long", func() bool { return strings.HasPrefix(m.service(t).StatusText, "draining: stops in ") })
		m.Run(t, "systemctl", "kill", "--kill-whom=main", service)
		m.WaitFor(t, "the end of the delay", func() bool { return m.service(t).ActiveState == "inactive" })
	})
}
