// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/memory"
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
		var f control.Status
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
		if out := m.Run(t, "prefork", "__complete", "status", ""); !strings.HasPrefix(out, "fleet\nother\n") {
			t.Errorf("%s: a shell completes %q", m.Suite, out)
		}
		m.tellsWhy(t)
		m.measures(t)
		m.isOnTheBus(t)
		m.operates(t)
		m.freezes(t)
		m.Run(t, "systemctl", "stop", service)
		if m.exists(t, "/run/prefork/fleet/control") {
			t.Errorf("%s: the control socket is left", m.Suite)
		}
	})
}

// measures looks at the memory of a fleet in its sandbox: root is told all, the user of
// the fleet not what root alone may ask for.
func (m machine) measures(t *testing.T) {
	t.Helper()
	var r memory.Report
	if err := json.Unmarshal([]byte(m.Run(t, "prefork", "memory", "--json", "--why", "fleet", "web.0")), &r); err != nil || len(r.Slots) != 1 {
		t.Fatalf("%s: %v, %+v", m.Suite, err, r)
	}
	if s := r.Slots[0]; s.Shared == 0 || s.Written == 0 || s.Problem != "" || s.Why == nil || len(s.Why.Causes) == 0 {
		t.Errorf("%s: of web.0: %+v, %+v", m.Suite, s, s.Why)
	}
	if f := r.Floors[0]; f.Anonymous < r.Slots[0].Shared {
		t.Errorf("%s: of the floor: %+v", m.Suite, f)
	}
	out, code := m.Try("setpriv", "--reuid=prefork", "--regid=prefork", "--clear-groups", "prefork", "memory", "fleet")
	if code != 0 || !strings.Contains(out, "web.0") || !strings.Contains(out, "once") {
		t.Errorf("%s: the fleet's user: exit status %d: %s", m.Suite, code, out)
	}
	out, code = m.Try("setpriv", "--reuid=prefork", "--regid=prefork", "--clear-groups", "prefork", "memory", "--why", "fleet")
	if code != 1 || !strings.Contains(out, "only root may change a fleet that systemd runs") {
		t.Errorf("%s: the fleet's user asks why: exit status %d: %s", m.Suite, code, out)
	}
}

// isOnTheBus looks at the fleet on the system bus as root and as a stranger, who may
// change nothing, and is told of a change.
func (m machine) isOnTheBus(t *testing.T) {
	t.Helper()
	const slot = "/io/github/decnet/Prefork1/slot/web_2e0"
	name := control.BusName("fleet")
	m.WaitFor(t, "the fleet on the bus", func() bool {
		_, code := m.Try("busctl", "status", name)
		return code == 0
	})
	stranger := []string{"setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"}
	for want, args := range map[string][]string{
		slot:                          {"tree", "--list", name},
		".Restart":                    {"introspect", "--no-pager", name, slot},
		"emits-change":                {"introspect", "--no-pager", name, string(control.Path)},
		`s "1/1 ready"`:               {"get-property", name, string(control.Path), control.Interface, "StatusText"},
		`"/etc/prefork/fleet.toml"`:   {"call", name, "/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"},
		`s "io.github.decnet.Prefork`: {"call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetNameOwner", "s", name},
	} {
		if strings.HasPrefix(want, `s "io`) {
			want = `s ":1.`
		}
		for who, as := range map[string][]string{"root": nil, "a stranger": stranger} {
			if out := m.Run(t, slices.Concat(as, []string{"busctl"}, args)...); !strings.Contains(out, want) {
				t.Errorf("%s: to %s busctl %s does not say %s:\n%s", m.Suite, who, strings.Join(args, " "), want, out)
			}
		}
	}
	before := m.lastPID(t, "web.0")
	for _, method := range []string{"Start", "Stop", "Restart", "Reset", "Freeze", "Thaw", "Kill"} {
		args := []string{"busctl", "call", name, slot, control.SlotInterface, method}
		if method == "Kill" {
			args = append(args, "i", "9")
		}
		for who, as := range map[string][]string{"a stranger": stranger, "the fleet's user": {"setpriv", "--reuid=prefork", "--regid=prefork", "--clear-groups"}} {
			if out, code := m.Try(slices.Concat(as, args)...); code == 0 || !strings.Contains(out, "ccess") {
				t.Errorf("%s: %s may %s: exit status %d: %s", m.Suite, who, method, code, out)
			}
		}
	}
	if got := m.lastPID(t, "web.0"); got != before {
		t.Errorf("%s: web.0 has process %s, had %s", m.Suite, got, before)
	}
	m.Run(t, "sh", "-c", "busctl monitor "+name+" >/run/monitor 2>&1 & echo $! >/run/monitor.pid")
	m.WaitFor(t, "a monitor", func() bool { return strings.Contains(m.ReadFile(t, "/run/monitor"), "Monitoring bus") })
	m.Run(t, "busctl", "call", name, slot, control.SlotInterface, "Restart")
	m.WaitFor(t, "signals of a restart", func() bool {
		// Not its states: those that pass between two looks are not told.
		seen, pid := m.ReadFile(t, "/run/monitor"), m.lastPID(t, "web.0")
		return strings.Contains(seen, "Member=PropertiesChanged") && strings.Contains(seen, `STRING "MainPID"`) &&
			strings.Contains(seen, "UINT32 "+pid+";") && pid != before
	})
	m.Run(t, "sh", "-c", "kill $(cat /run/monitor.pid)")
	m.waitForStatus(t, "1/1 ready")
}

// freezes a slot: nothing answers on its socket meanwhile, its siblings and its
// watchdog do not care, and it goes on where it was.
func (m machine) freezes(t *testing.T) {
	t.Helper()
	m.Run(t, "prefork", "freeze", "fleet", "web.0")
	m.waitForStatus(t, "1/1 ready; 1 frozen")
	pid := m.lastPID(t, "web.0")
	if out := m.Run(t, "sh", "-c", "cat /sys/fs/cgroup$(sed -n s/0:://p /proc/"+pid+"/cgroup)/cgroup.events"); !strings.Contains(out, "frozen 1") {
		t.Errorf("%s: the group says %s", m.Suite, out)
	}
	if out := m.Run(t, "prefork", "status", "fleet"); !strings.Contains(out, "frozen: freeze by uid 0") {
		t.Errorf("%s: status says\n%s", m.Suite, out)
	}
	m.Run(t, "prefork", "thaw", "fleet", "web.0")
	m.waitForStatus(t, "1/1 ready")
	if got := m.lastPID(t, "web.0"); got != pid {
		t.Errorf("%s: process %s, had %s", m.Suite, got, pid)
	}
	m.Run(t, "prefork", "freeze", "fleet", "web.0")
	if out, code := m.Try("prefork", "restart", "fleet", "web.0"); code != 1 || !strings.Contains(out, "web.0 is frozen, and would be replaced: prefork thaw it first") {
		t.Errorf("%s: a roll of a frozen slot: exit status %d: %s", m.Suite, code, out)
	}
	m.Run(t, "prefork", "restart", "--now", "fleet", "web.0")
	m.WaitFor(t, "a restarted slot", func() bool { return m.lastPID(t, "web.0") != pid && m.service(t).StatusText == "1/1 ready" })
	if out := m.entries(t, "MESSAGE", "PREFORK_SLOT=web.0", "PREFORK_EVENT=slot-timeout"); len(out) > 0 {
		t.Errorf("%s: it had to be killed: %q", m.Suite, out)
	}
	m.Run(t, "prefork", "freeze", "fleet", "web.0") // and the fleet stops
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

// operates changes slots and the fleet, as who may and as who may not.
func (m machine) operates(t *testing.T) {
	t.Helper()
	before, master := m.lastPID(t, "web.0"), m.service(t).MainPID
	m.Run(t, "prefork", "restart", "fleet", "web.0")
	m.WaitFor(t, "a restarted slot", func() bool { return m.lastPID(t, "web.0") != before && m.service(t).StatusText == "1/1 ready" })
	m.Run(t, "prefork", "stop", "fleet", "web")
	m.waitForStatus(t, "0/1 ready; 1 stopped")
	if got := m.entries(t, "MESSAGE", "PREFORK_SLOT=web.0", "PREFORK_EVENT=slot-stops"); !strings.Contains(got[len(got)-1], "stop by uid 0; sent SIGTERM") {
		t.Errorf("%s: the journal says %q", m.Suite, got)
	}
	m.Run(t, "prefork", "start", "fleet", "web.0")
	m.waitForStatus(t, "1/1 ready")
	m.mustAsk(t)

	// The user of the fleet, which its workers have, too.
	out, code := m.Try("setpriv", "--reuid=prefork", "--regid=prefork", "--clear-groups", "prefork", "restart", "fleet", "web.0")
	if code != 1 || !strings.Contains(out, "only root may change a fleet that systemd runs") {
		t.Errorf("%s: the fleet's user: exit status %d: %s", m.Suite, code, out)
	}
	if out := m.Run(t, "setpriv", "--reuid=prefork", "--regid=prefork", "--clear-groups", "prefork", "status", "fleet"); !strings.Contains(out, "web.0") {
		t.Errorf("%s: the fleet's user sees %s", m.Suite, out)
	}

	m.Run(t, "prefork", "restart", "fleet")
	if u := m.service(t); u.MainPID != master || u.ActiveState != "active" {
		t.Errorf("%s: after prefork restart: %+v", m.Suite, u)
	}
	m.Run(t, "prefork", "restart", "--now", "fleet")
	if u := m.service(t); u.MainPID == master || u.ActiveState != "active" {
		t.Errorf("%s: after prefork restart --now: %+v", m.Suite, u)
	}
	m.WriteFile(t, "/etc/prefork/bad.toml", "nonsense = 1\n")
	for _, c := range []struct {
		command string
		code    int
		want    string
	}{
		{"stop fleet", 0, "fleet: stopped\n"},
		{"is-active fleet", 3, "inactive\n"},
		{"start fleet", 0, "fleet: 1/1 ready\n"},
		{"is-active fleet", 0, "active\n"},
		{"is-active nosuch", 4, "inactive\n"},
		{"start bad", 1, "start prefork@bad.service: failed: /etc/prefork/bad.toml:1: nonsense: unknown key"},
		{"is-active bad", 3, "activating\n"},
		{"stop bad", 0, "bad: stopped\n"},
		{"start flee", 1, "did you mean fleet?"},
	} {
		if out, code := m.Try(append([]string{"prefork"}, strings.Fields(c.command)...)...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: prefork %s: exit status %d, %q; want %d, %q", m.Suite, c.command, code, out, c.code, c.want)
		}
	}
	m.assertState(t, "active", service)
	m.assertState(t, "active", httpSocket)
	if _, code := m.Try("systemctl", "start", "prefork@flee.service"); code == 0 {
		t.Errorf("%s: a fleet without a file was started", m.Suite)
	}
	m.assertState(t, "failed", "prefork@flee.service") // and not activating: nobody waits for it
}

// TestWorkerMayNotOperate has a worker try to steer its fleet: under the unit, and
// as root with users.conf.
func TestWorkerMayNotOperate(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.story(t)
		const table = `
[worker.calm]
exec = ["sleep", "infinity"]
[worker.rebel]
exec = ["sh", "-c", "prefork status fleet >/dev/null && prefork stop fleet calm.0 2>$STATE_DIRECTORY/said; sleep infinity"]
`
		for want, dropIn := range map[string]string{"only root may change": "", "a process of the fleet may not change it": "users"} {
			if dropIn != "" {
				m.allow(t, "fleet", dropIn)
			}
			m.fleet(t, table)
			m.Run(t, "rm", "-f", "/var/lib/prefork/fleet/said")
			m.Run(t, "systemctl", "restart", service)
			m.WaitFor(t, "the worker's attempt", func() bool { return m.ReadFile(t, "/var/lib/prefork/fleet/said") != "" })
			if said := m.ReadFile(t, "/var/lib/prefork/fleet/said"); !strings.Contains(said, want) {
				t.Errorf("%s: with %q: %s, want %q", m.Suite, dropIn, said, want)
			}
			if u := m.service(t); u.StatusText != "2/2 ready" {
				t.Errorf("%s: with %q: %+v", m.Suite, dropIn, u)
			}
			m.Run(t, "rm", "-rf", "/etc/systemd/system/"+service+".d")
		}
	})
}
