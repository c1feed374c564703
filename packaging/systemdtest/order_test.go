// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"strings"
	"testing"
)

// TestOrder: a migration that fails once holds back what is after it, and STATUS says so; a
// stop goes the other way round, and has the time that it takes, though that is more than
// the unit allows.
func TestOrder(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.WriteFile(t, "/opt/app/slow.sh", `
trap 'sleep 4; echo "$PREFORK_WORKER ends" >>/var/lib/prefork/fleet/told; exit 0' TERM
echo "$PREFORK_WORKER starts" >>/var/lib/prefork/fleet/told
while :; do sleep 0.1; done
`)
		m.fleet(t, `
[worker.web]
exec = ["sh", "/opt/app/slow.sh"]
after = ["broker"]

[worker.broker]
exec = ["sh", "/opt/app/slow.sh"]
after = ["store"]

[worker.store]
exec = ["sh", "/opt/app/slow.sh"]
after = ["migrate"]

[worker.migrate]
type = "oneshot"
restart_sec = "3s"
exec = ["sh", "-c", "mkdir /var/lib/prefork/fleet/tried && exit 3; test -e /var/lib/prefork/fleet/up"]
`)
		m.dropIn(t, "[Service]\nTimeoutStopSec=6s\n")
		m.Run(t, "systemctl", "start", "--no-block", service)
		m.WaitFor(t, "STATUS of who waits", func() bool {
			text := m.service(t).StatusText
			return strings.HasPrefix(text, "0/4 ready; web, broker and store wait for migrate; migrate.0 restarts in ") &&
				strings.HasSuffix(text, " (exit-code 3, 1st in a row)")
		})
		if got := m.service(t).ActiveState; got != "activating" {
			t.Errorf("%s: the service is %s", m.Suite, got)
		}
		m.WriteFile(t, "/var/lib/prefork/fleet/up", "")
		m.waitForStatus(t, "3/4 ready; 1 finished")
		told := func() string { return m.ReadFile(t, "/var/lib/prefork/fleet/told") }
		m.WaitFor(t, "all starts", func() bool { return strings.Count(told(), "starts\n") == 3 })
		m.Run(t, "systemctl", "stop", service)
		if got, want := told(), "web ends\nbroker ends\nstore ends\n"; !strings.HasSuffix(got, want) {
			t.Errorf("%s: got %q, want it to end in %q", m.Suite, got, want)
		}
		if u := m.service(t); u.Result != "success" {
			t.Errorf("%s: %+v", m.Suite, u)
		}
		m.assertCleanStop(t)
	})
}
