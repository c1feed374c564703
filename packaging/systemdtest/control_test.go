// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/control"
)

// TestControl looks at a fleet with systemd's own D-Bus client and with prefork
// status, as root and as a stranger.
func TestControl(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, floorTable, httpTable, `
[worker.web]
entry = "app:serve"
sockets = ["http"]
`)
		if out, code := m.Try("prefork", "status", "fleet"); code != 1 || !strings.Contains(out, "does not run; start it: systemctl start prefork@fleet") {
			t.Errorf("%s: before the start: exit status %d: %s", m.Suite, code, out)
		}
		m.Run(t, "systemctl", "start", service)
		const address = "--address=unix:path=/run/prefork/fleet/control"
		const slot = "/io/github/decnet/Prefork1/slot/web_2e0"
		for want, args := range map[string][]string{
			slot:                    {"tree", "--list", control.Interface},
			".StatusText":           {"introspect", "--no-pager", control.Interface, string(control.Path)},
			".NRestarts":            {"introspect", "--no-pager", control.Interface, slot},
			`s "1/1 ready"`:         {"get-property", control.Interface, string(control.Path), control.Interface, "StatusText"},
			`v s "ready"`:           {"call", control.Interface, slot, "org.freedesktop.DBus.Properties", "Get", "ss", control.SlotInterface, "State"},
			`"/etc/prefork/fleet.t`: {"call", control.Interface, "/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"},
		} {
			if out := m.Run(t, append([]string{"busctl", address}, args...)...); !strings.Contains(out, want) {
				t.Errorf("%s: busctl %s does not say %s:\n%s", m.Suite, strings.Join(args, " "), want, out)
			}
		}
		if out, code := m.Try("busctl", address, "set-property", control.Interface, string(control.Path), control.Interface, "Name", "s", "x"); code == 0 {
			t.Errorf("%s: a property was set: %s", m.Suite, out)
		}
		var f control.Fleet
		if err := json.Unmarshal([]byte(m.Run(t, "prefork", "status", "--json", "fleet")), &f); err != nil ||
			int(f.MainPID) != m.service(t).MainPID || len(f.Slots) != 1 || f.Slots[0].Name != "web.0" {
			t.Errorf("%s: %v, %+v", m.Suite, err, f)
		}
		m.WriteFile(t, "/etc/prefork/other.toml", "[worker.w]\nexec = [\"true\"]\n")
		if out := m.Run(t, "prefork", "status"); !strings.Contains(out, "fleet  active    1/1 ready\n") || !strings.Contains(out, "other  inactive") {
			t.Errorf("%s: all fleets:\n%s", m.Suite, out)
		}
		if out, code := m.Try("setpriv", "--reuid=nobody", "--clear-groups", "prefork", "status", "fleet"); code != 1 || !strings.Contains(out, "only root and the user") {
			t.Errorf("%s: to a stranger: exit status %d: %s", m.Suite, code, out)
		}
		m.tellsWhy(t)
		m.Run(t, "systemctl", "stop", service)
		if m.exists(t, "/run/prefork/fleet/control") {
			t.Errorf("%s: the control socket is left", m.Suite)
		}
	})
}

// tellsWhy kills a worker and asks about it.
func (m machine) tellsWhy(t *testing.T) {
	t.Helper()
	m.Run(t, "kill", "-KILL", m.lastPID(t, "web.0"))
	m.WaitFor(t, "a restart", func() bool {
		return len(m.entries(t, "MESSAGE", "PREFORK_SLOT=web.0", "PREFORK_EVENT=slot-ready")) == 2
	})
	for want, args := range map[string][]string{
		"web.0 has been ready for ":         {"why", "fleet", "web.0"},
		"restarts: 1 in all, failures in a": {"why", "fleet", "web.0"},
		": killed by SIGKILL after ":        {"why", "fleet", "web.0"},
		"waiting: signal: killed":           {"logs", "fleet", "web.0"},
		"starting -> ready: running, after": {"logs", "fleet", "web"},
		"fleet starts fleet=fleet":          {"logs", "fleet"},
	} {
		if out := m.Run(t, append([]string{"prefork"}, args...)...); !strings.Contains(out, want) {
			t.Errorf("%s: prefork %s does not say %q:\n%s", m.Suite, strings.Join(args, " "), want, out)
		}
	}
	if out := m.Run(t, "prefork", "logs", "fleet", "web.0"); strings.Contains(out, "fleet starts") {
		t.Errorf("%s: the logs of web.0 have what is not about it:\n%s", m.Suite, out)
	}
	for want, args := range map[string][]string{
		`has no slot "web.7"; it has web.0`:      {"why", "fleet", "web.7"},
		`has no worker or slot "api"; it has we`: {"logs", "fleet", "api"},
		"there is no nosuch.toml":                {"logs", "nosuch"},
	} {
		if out, code := m.Try(append([]string{"prefork"}, args...)...); code != 1 || !strings.Contains(out, want) {
			t.Errorf("%s: prefork %s: exit status %d, %q; want %q", m.Suite, strings.Join(args, " "), code, out, want)
		}
	}
}
