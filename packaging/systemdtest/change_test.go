// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/control"
)

// changing is a fleet whose slots are ready once nobody holds them (hold, release).
func changing(keys, more string) string {
	return fmt.Sprintf(`
[floor]
path = ["/opt/app"]
preload = ["held"]
[socket.http]
listen = "127.0.0.1:8080"
[worker.web]
entry = "app:serve"
sockets = ["http"]
count = 2
settle_sec = "50ms"
%s
[worker.held]
exec = ["sh", "-c", "while [ -e /run/told/$PREFORK_SLOT ]; do sleep 0.05; done; systemd-notify --ready; exec sleep 987671"]
type = "notify"
notify_access = "all"
count = 2
roll = "start-first"
settle_sec = 0
%s
`, keys, more)
}

func (m machine) status(t *testing.T, fleet string) (f control.Status) {
	t.Helper()
	out := m.Run(t, "prefork", "status", "--json", fleet)
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatalf("%s: %v: %s", m.Suite, err, out)
	}
	return f
}

// slotPIDs are the processes of slots, by their names.
func (m machine) slotPIDs(t *testing.T) map[string]uint32 {
	t.Helper()
	pids := map[string]uint32{}
	for _, s := range m.status(t, "fleet").Slots {
		pids[s.Name] = s.MainPID
	}
	return pids
}

func (m machine) hold(t *testing.T, what string)    { m.WriteFile(t, "/run/told/"+what, "") }
func (m machine) release(t *testing.T, what string) { m.Run(t, "rm", "-f", "/run/told/"+what) }

// write writes the fleet's file, without a daemon-reload.
func (m machine) write(t *testing.T, keys, more string) {
	t.Helper()
	m.WriteFile(t, "/etc/prefork/fleet.toml", changing(keys, more))
}

// startChanging starts the fleet.
func (m machine) startChanging(t *testing.T) {
	t.Helper()
	m.WriteFile(t, "/opt/app/held.py", "import os, time\nwhile os.path.exists('/run/told/floor'):\n    time.sleep(0.05)\n")
	m.release(t, "none")
	m.fleet(t, changing("", ""))
	m.Run(t, "systemctl", "start", service)
	m.waitForStatus(t, "4/4 ready")
}

// TestReload has systemd reload a fleet: it waits, fails if the reload fails, and neither
// lies nor hangs, by ExecReload=, by a signal, and where it sends the signal itself.
func TestReload(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.Run(t, "mkdir", "-p", "/run/told")
		m.startChanging(t)
		master := m.service(t).MainPID
		same := func(when string, before map[string]uint32) {
			t.Helper()
			if after := m.slotPIDs(t); !maps.Equal(after, before) {
				t.Errorf("%s: %s: %v became %v", m.Suite, when, before, after)
			}
			if u := m.service(t); u.MainPID != master || u.ActiveState != "active" || u.SubState != "running" {
				t.Errorf("%s: %s: %+v", m.Suite, when, u)
			}
		}
		before := m.slotPIDs(t)
		m.Run(t, "systemctl", "reload", service)
		same("nothing has changed", before)

		// A policy: the processes stay.
		m.write(t, "restart_sec = 3\n", "")
		m.Run(t, "systemctl", "reload", service)
		same("a policy", before)
		m.write(t, "", "")
		m.Run(t, "systemctl", "reload", service)

		// A worker's process: its slots are replaced, and systemctl has waited for it.
		m.write(t, "environment = { A = \"1\" }\n", "")
		m.Run(t, "systemctl", "reload", service)
		after := m.slotPIDs(t)
		if after["web.0"] == before["web.0"] || after["web.1"] == before["web.1"] || after["held.0"] != before["held.0"] {
			t.Errorf("%s: %v became %v", m.Suite, before, after)
		}
		same("a worker", after)
		for event, want := range map[string]string{
			"change-begins": "by uid 0: roll web (environment)", "change-done": "is done: roll web (environment)", "slot-replaced": "takes the place of pid ",
		} {
			if got := m.entries(t, "MESSAGE", "PREFORK_EVENT="+event); len(got) == 0 || !strings.Contains(got[len(got)-1], want) {
				t.Errorf("%s: the entries of %s are %q", m.Suite, event, got)
			}
		}

		// What cannot be fails, and the unit is as it was.
		for what, keys := range map[string]string{
			"a typo": "cuont = 3\n", "a canary that fails": "working_directory = \"/none\"\n", "what the sandbox forbids": "nice = -5\n",
		} {
			m.write(t, keys, "")
			if out, code := m.Try("systemctl", "reload", service); code == 0 {
				t.Errorf("%s: %s: systemctl reload says that it went well: %s", m.Suite, what, out)
			}
			same(what, after)
		}
		m.write(t, "environment = { A = \"1\" }\n", "")
		m.Run(t, "systemctl", "reload", service)
		same("the good file again", after)

		m.renewsCredentials(t)
		m.reloadedBySignal(t)
		m.reloadedInTheMiddle(t)
		m.systemdsSockets(t)
	})
}

// reloadedBySignal: SIGHUP is a reload; systemd sees when it is over.
func (m machine) reloadedBySignal(t *testing.T) {
	t.Helper()
	before := m.slotPIDs(t)
	m.write(t, "environment = { A = \"2\" }\n", "")
	m.Run(t, "systemctl", "kill", "--kill-who=main", "--signal=HUP", service)
	m.WaitFor(t, "a reload by SIGHUP", func() bool {
		u := m.service(t)
		return m.slotPIDs(t)["web.1"] != before["web.1"] && u.ActiveState == "active" && u.SubState == "running"
	})
	if m.SystemdVersion < 253 { // it would read notify-reload as simple
		return
	}
	m.dropIn(t, "[Service]\nType=notify-reload\n")
	m.Run(t, "systemctl", "restart", service)
	before = m.slotPIDs(t)
	m.write(t, "environment = { A = \"3\" }\n", "")
	m.Run(t, "systemctl", "reload", service)
	if after := m.slotPIDs(t); after["web.1"] == before["web.1"] {
		t.Errorf("%s: with notify-reload %v became %v", m.Suite, before, after)
	}
	m.Run(t, "rm", "-r", "/etc/systemd/system/"+service+".d")
	m.Run(t, "systemctl", "daemon-reload")
	m.Run(t, "systemctl", "restart", service)
	m.waitForStatus(t, "4/4 ready")
}

// renewsCredentials: from version 260 on systemd can renew credentials when the service
// reloads; what has read them is replaced then, and only then.
func (m machine) renewsCredentials(t *testing.T) {
	t.Helper()
	if m.SystemdVersion < 260 {
		return
	}
	m.WriteFile(t, "/etc/token", "one")
	m.dropIn(t, "[Service]\nLoadCredential=token:/etc/token\nRefreshOnReload=credentials\n")
	m.Run(t, "systemctl", "restart", service)
	m.waitForStatus(t, "4/4 ready")
	before := m.slotPIDs(t)
	m.Run(t, "systemctl", "reload", service)
	if after := m.slotPIDs(t); !maps.Equal(after, before) {
		t.Errorf("%s: the same credentials: %v became %v", m.Suite, before, after)
	}
	m.WriteFile(t, "/etc/token", "two")
	m.Run(t, "systemctl", "reload", service)
	after := m.slotPIDs(t)
	for name, pid := range after {
		if before[name] == pid {
			t.Errorf("%s: %s has process %d still, with an old credential", m.Suite, name, pid)
		}
	}
	m.Run(t, "rm", "-r", "/etc/systemd/system/"+service+".d")
	m.Run(t, "systemctl", "daemon-reload")
	m.Run(t, "systemctl", "restart", service)
	m.waitForStatus(t, "4/4 ready")
}

// reloadedInTheMiddle of a change systemd reads its own files again.
func (m machine) reloadedInTheMiddle(t *testing.T) {
	t.Helper()
	m.hold(t, "held.1")
	m.Run(t, "prefork", "restart", "--no-wait", "fleet", "held")
	m.WaitFor(t, "a roll", func() bool { return m.status(t, "fleet").ChangeState == "rolling" })
	if out := m.Run(t, "prefork", "status", "fleet"); !strings.Contains(out, "is being replaced: starting") || !strings.Contains(out, "restart: 1 of 2 slots done") {
		t.Errorf("%s: status says\n%s", m.Suite, out)
	}
	m.Run(t, "systemctl", "daemon-reload")
	if u := m.service(t); u.ActiveState != "reloading" {
		t.Errorf("%s: in the middle: %+v", m.Suite, u)
	}
	m.release(t, "held.1")
	m.WaitFor(t, "the end of the roll", func() bool {
		u := m.service(t)
		return m.status(t, "fleet").LastChangeResult == control.ChangeDone && u.ActiveState == "active" && u.SubState == "running"
	})
}

// systemdsSockets are never bound anew: what is to be typed is said.
func (m machine) systemdsSockets(t *testing.T) {
	t.Helper()
	m.write(t, "", "")
	m.Run(t, "prefork", "reload", "fleet")
	before := m.slotPIDs(t)
	m.WriteFile(t, "/etc/prefork/fleet.toml", strings.Replace(changing("", ""), "127.0.0.1:8080", "127.0.0.1:8081", 1))
	if out := m.Run(t, "prefork", "reload", "--dry-run", "fleet"); !strings.Contains(out, "waits for the next start of the fleet: prefork restart --now  socket.http.listen") {
		t.Errorf("%s: the plan is\n%s", m.Suite, out)
	}
	m.Run(t, "prefork", "reload", "fleet")
	if after := m.slotPIDs(t); !maps.Equal(after, before) {
		t.Errorf("%s: %v became %v", m.Suite, before, after)
	}
	m.isServed(t, 8080)
	if got := m.entries(t, "MESSAGE", "PRIORITY=4"); !strings.Contains(strings.Join(got, "\n"), "systemd listens on 127.0.0.1:8080, the fleet file says 127.0.0.1:8081") {
		t.Errorf("%s: the journal says %q", m.Suite, got)
	}
	m.restartsThatCannotHurt(t)
}

// restartsThatCannotHurt: what is known to be bad is refused before anything stops; what the
// file wants otherwise of systemd's sockets is taken up, and the others stay open.
func (m machine) restartsThatCannotHurt(t *testing.T) {
	t.Helper()
	good := strings.Replace(changing("", "[socket.more]\nlisten = \"127.0.0.1:8082\"\n"), "127.0.0.1:8080", "127.0.0.1:8081", 1)
	before := m.slotPIDs(t)
	for what, break_ := range map[string]func(){
		"fleet.toml:12: worker.web.cuont: unknown key":      func() { m.write(t, "cuont = 3\n", "") },
		"floor: importing held: ValueError: broken release": func() { m.WriteFile(t, "/opt/app/held.py", "raise ValueError('broken release')\n") },
	} {
		m.WriteFile(t, "/etc/prefork/fleet.toml", good)
		break_()
		if out, code := m.Try("prefork", "restart", "--now", "fleet"); code == 0 || !strings.Contains(out, what) {
			t.Errorf("%s: restart --now: exit status %d: %s; want %q", m.Suite, code, out, what)
		}
		if after := m.slotPIDs(t); !maps.Equal(after, before) {
			t.Errorf("%s: %s: %v became %v", m.Suite, what, before, after)
		}
	}
	m.WriteFile(t, "/opt/app/held.py", "")
	m.WriteFile(t, "/etc/prefork/fleet.toml", good)
	m.Run(t, "prefork", "restart", "--now", "fleet")
	m.isServed(t, 8081)
	m.assertState(t, "active", service, httpSocket, "prefork-fleet:more.socket")
	if f := m.status(t, "fleet"); f.OutdatedSockets != "" || f.MainPID == 0 {
		t.Errorf("%s: %+v", m.Suite, f)
	}
	if out, code := m.Try("curl", "-sS", "http://127.0.0.1:8080/"); code != 7 {
		t.Errorf("%s: port 8080 is still open: exit status %d: %s", m.Suite, code, out)
	}

	// A socket that is not in the file any more.
	m.WriteFile(t, "/etc/prefork/fleet.toml", strings.Replace(changing("", ""), "127.0.0.1:8080", "127.0.0.1:8081", 1))
	m.Run(t, "prefork", "restart", "--now", "fleet")
	m.assertState(t, "inactive", "prefork-fleet:more.socket")

	if out := m.Run(t, "prefork", "stop", "fleet"); !strings.Contains(out, "prefork-fleet:http.socket: the next connection starts the fleet again; to close that, too: prefork stop --sockets fleet") {
		t.Errorf("%s: stop says %s", m.Suite, out)
	}
	m.isServed(t, 8081)
	if out := m.Run(t, "prefork", "stop", "--sockets", "fleet"); out != "fleet: stopped\n" {
		t.Errorf("%s: stop --sockets says %s", m.Suite, out)
	}
	m.assertState(t, "inactive", service, httpSocket)
}

// TestKilledInAChange kills the master in each state of a change: systemd brings the fleet
// back as its file says, and nothing of the one before is left.
func TestKilledInAChange(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.Run(t, "mkdir", "-p", "/run/told")
		m.startChanging(t)
		for state, begin := range map[string]func(){
			"loading": func() {
				m.hold(t, "floor")
				m.Run(t, "prefork", "restart", "--no-wait", "fleet")
			},
			"proving": func() {
				m.hold(t, "held.0")
				m.Run(t, "prefork", "restart", "--no-wait", "fleet", "held")
			},
			"rolling": func() {
				m.hold(t, "held.1")
				m.Run(t, "prefork", "restart", "--no-wait", "fleet", "held")
			},
			"returning": func() {
				m.hold(t, "held.1")
				m.Run(t, "prefork", "restart", "--no-wait", "fleet", "held")
				m.WaitFor(t, "a roll", func() bool { return m.status(t, "fleet").ChangeState == "rolling" })
				m.hold(t, "held.0")
				m.Run(t, "prefork", "cancel", "fleet")
			},
		} {
			begin()
			m.WaitFor(t, state, func() bool { return m.status(t, "fleet").ChangeState == state })
			u := m.service(t)
			m.Run(t, "kill", "-KILL", fmt.Sprint(u.MainPID))
			for _, what := range []string{"floor", "held.0", "held.1"} {
				m.release(t, what)
			}
			m.WaitFor(t, "another master", func() bool {
				now := m.service(t)
				return now.MainPID != 0 && now.MainPID != u.MainPID && now.ActiveState == "active" && now.StatusText == "4/4 ready"
			})
			m.isServed(t, 8080)
			// Each slot once: the master, the floor, a spare and a shim beside them.
			m.WaitFor(t, "nothing doubled", func() bool {
				out := m.Run(t, "sh", "-c", "pgrep --full --list-full '^prefork: (web|floor|spare)|^sleep 987671' | wc -l; pgrep --full '^/usr/bin/prefork run fleet' | wc -l")
				return out == "6\n1\n"
			})
		}
	})
}

// isServed makes one request at a port.
func (m machine) isServed(t *testing.T, port int) {
	t.Helper()
	if out, code := m.Try("curl", "-sS", "--max-time", "60", fmt.Sprintf("http://127.0.0.1:%d/", port)); code != 0 {
		t.Errorf("%s: port %d: exit status %d: %s", m.Suite, port, code, out)
	}
}

// TestManyReloads: what is replaced five hundred times leaves no control group, no socket
// and no descriptor behind, and the master as small as it was.
func TestManyReloads(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		if m.Suite != "forky" {
			return // it is the same everywhere, and takes a minute
		}
		m.fleet(t, `
[worker.web]
exec = ["sleep", "987672"]
count = 2
roll = "start-first"
settle_sec = 0
environment = { N = "0" }
`)
		m.Run(t, "systemctl", "start", service)
		reload := func(from, to int) {
			t.Helper()
			m.Run(t, "sh", "-ec", fmt.Sprintf(`for n in $(seq %d %d); do
				sed -i "s/N = .*/N = \"$n\" }/" /etc/prefork/fleet.toml
				prefork reload --quiet fleet
			done`, from, to))
		}
		rest := func() (groups, descriptors string, memory int) {
			t.Helper()
			m.WaitFor(t, "the end of all predecessors", func() bool {
				return m.Run(t, "sh", "-c", "pgrep --full --exact 'sleep 987672' | wc -l") == "2\n"
			})
			master := fmt.Sprint(m.service(t).MainPID)
			groups = m.Run(t, "sh", "-c", "find /sys/fs/cgroup$(systemctl show --property=ControlGroup --value "+service+") -type d | wc -l; ls /run/prefork/fleet/notify | wc -l")
			descriptors = m.Run(t, "sh", "-c", "ls -l /proc/"+master+"/fd | sed -n 's/.*-> //; s/:.*//p' | sort | uniq --count")
			out := m.Run(t, "sh", "-c", "sed -n '/^RssAnon:/s/[^0-9]//gp' /proc/"+master+"/status")
			_, _ = fmt.Sscan(out, &memory) // the kernel wrote it
			return groups, descriptors, memory
		}
		reload(1, 20)
		groups, descriptors, memory := rest()
		for n := range 5 {
			reload(100*n+100, 100*n+199)
		}
		groupsNow, descriptorsNow, memoryNow := rest()
		if groupsNow != groups || descriptorsNow != descriptors || memory == 0 || memoryNow > memory+2048 {
			t.Errorf("%s: groups and sockets %q, before %q; descriptors %q, before %q; memory %d kB, before %d kB",
				m.Suite, groupsNow, groups, descriptorsNow, descriptors, memoryNow, memory)
		}
		t.Logf("%s: memory %d kB, before %d kB", m.Suite, memoryNow, memory)
	})
}
