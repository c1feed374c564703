// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/decnet/prefork/packaging/systemdtest"
)

// withFiles is a setup for Boot: the files are there when systemd starts.
func withFiles(files map[string]string) func(t testing.TB, root string) {
	return func(t testing.TB, root string) {
		t.Helper()
		for path, content := range files {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// served is a fleet of one worker that answers at a port.
func served(port int, keys string) string {
	return fmt.Sprintf(`%s
[floor]
path = ["/opt/app"]
[socket.http]
listen = "127.0.0.1:%d"
[worker.web]
entry = "app:serve"
sockets = ["http"]
`, keys, port)
}

// state returns the ActiveState of a unit.
func (m machine) state(t *testing.T, unit string) string {
	t.Helper()
	return strings.TrimSpace(m.Run(t, "systemctl", "show", "--property=ActiveState", "--value", unit))
}

func (m machine) assertState(t *testing.T, want string, units ...string) {
	t.Helper()
	for _, unit := range units {
		if got := m.state(t, unit); got != want {
			t.Errorf("%s: %s is %s, want %s", m.Suite, unit, got, want)
		}
	}
}

// answers asks for one answer of app.serve at a port.
func (m machine) answers(t *testing.T, port int) {
	t.Helper()
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	if out, code := m.Try("curl", "-sS", "--max-time", "60", url); code != 0 || !strings.Contains(out, `"slot": "web.0"`) {
		t.Errorf("%s: port %d: exit status %d: %s", m.Suite, port, code, out)
	}
}

// TestBoot boots with fleets of every kind in the three directories, a broken
// one among them, and then mends that one.
func TestBoot(t *testing.T) {
	t.Parallel()
	app, err := os.ReadFile("testdata/app.py")
	if err != nil {
		t.Fatal(err)
	}
	boot, connection := `start = "boot"`, `start = "connection"`
	files := map[string]string{
		"/opt/app/app.py":                  string(app),
		"/etc/prefork/atboot.toml":         served(9001, boot),
		"/usr/lib/prefork/oncall.toml":     served(9002, connection),
		"/etc/prefork/manual.toml":         served(9003, ""),
		"/run/prefork/gone.toml":           served(9004, boot), // /run is empty after a boot
		"/etc/prefork/first.toml":          served(9005, boot),
		"/usr/lib/prefork/first.toml":      served(9006, boot),
		"/etc/prefork/masked.toml":         "",
		"/usr/lib/prefork/masked.toml":     served(9007, boot),
		"/etc/prefork/broken.toml":         served(9008, boot+"\nno_such_key = 1"),
		"/etc/prefork/broken-call.toml":    served(9009, connection+"\nno_such_key = 1"),
		"/etc/prefork/.hidden.toml":        served(9010, boot),
		"/etc/prefork/not a name.toml":     served(9011, boot),
		"/etc/prefork/torn.toml":           boot + "\n[worker.web\n",
		"/etc/prefork/directory.toml/file": "",
	}
	for _, suite := range systemdtest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			m := machine{systemdtest.Boot(t, suite, systemdtest.InstallPrefork, withFiles(files))}
			m.assertState(t, "active", "multi-user.target")
			// What the package does not have here, the user, comes after the boot.
			m.WaitFor(t, "fleets that are started at boot", func() bool {
				return m.state(t, "prefork@atboot.service") == "active" && m.state(t, "prefork@first.service") == "active"
			})
			m.assertState(t, "active", "prefork-atboot:http.socket", "prefork-first:http.socket", "prefork-oncall:http.socket",
				"prefork-broken:http.socket", "prefork-broken-call:http.socket")
			m.assertState(t, "inactive", "prefork@oncall.service", "prefork@manual.service", "prefork-manual:http.socket",
				"prefork@masked.service", "prefork-masked:http.socket", "prefork@broken-call.service", "prefork@gone.service",
				"prefork@.hidden.service")
			m.answers(t, 9001)
			m.answers(t, 9002)
			m.answers(t, 9005)
			m.assertState(t, "active", "prefork@oncall.service")
			m.brokenIsMended(t)
		})
	}
}

// brokenIsMended: a broken fleet says what is wrong with it, and serves who has
// waited when that is mended.
func (m machine) brokenIsMended(t *testing.T) {
	t.Helper()
	for fleet, where := range map[string]string{"broken": "broken.toml:2:", "torn": "torn.toml:2:"} {
		m.WaitFor(t, "exit status 78 of "+fleet, func() bool { return m.Service(t, "prefork@"+fleet+".service").ExecMainStatus == 78 })
		if journal := m.Journal(t, "prefork@"+fleet+".service"); !strings.Contains(journal, where) {
			t.Errorf("%s: the journal of %s does not say %s:\n%s", m.Suite, fleet, where, journal)
		}
	}
	m.Run(t, "systemctl", "daemon-reload")
	m.Run(t, "journalctl", "--sync")
	said := m.Run(t, "journalctl", "--no-pager", "--output=cat", "--identifier=prefork-generator")
	for _, want := range []string{"broken.toml:2:", "broken-call.toml:2:", "torn.toml:2:", "not a name.toml", "directory.toml"} {
		if !strings.Contains(said, want) {
			t.Errorf("%s: the generator did not say %q:\n%s", m.Suite, want, said)
		}
	}
	answered := make(chan string, 1)
	go func() {
		out, _ := m.Try("curl", "-sS", "--max-time", "60", "http://127.0.0.1:9009/")
		answered <- out
	}()
	m.WaitFor(t, "a start by connection", func() bool {
		return m.Service(t, "prefork@broken-call.service").ExecMainStatus == 78
	})
	m.WriteFile(t, "/etc/prefork/broken.toml", served(9008, `start = "boot"`))
	m.WriteFile(t, "/etc/prefork/broken-call.toml", served(9009, `start = "connection"`))
	m.Run(t, "systemctl", "daemon-reload")
	if out := <-answered; !strings.Contains(out, `"slot": "web.0"`) {
		t.Errorf("%s: the client that has waited: %s", m.Suite, out)
	}
	m.WaitFor(t, "the mended fleet", func() bool { return m.state(t, "prefork@broken.service") == "active" })
	m.answers(t, 9008)
	for _, fleet := range []string{"broken", "broken-call"} {
		if journal := m.Journal(t, "prefork@"+fleet+".service"); strings.Contains(journal, "systemd did not pass") {
			t.Errorf("%s: the master of %s bound a socket itself:\n%s", m.Suite, fleet, journal)
		}
	}
}

// TestConnectionWaitsForRestart has a client connect while the service is down
// for a restart.
func TestConnectionWaitsForRestart(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, served(8080, ""))
		m.Run(t, "systemctl", "start", service)
		m.assertState(t, "active", httpSocket)
		m.answers(t, 8080)
		m.dropIn(t, "[Service]\nExecStartPre=/bin/sh -c 'until test -e /run/go; do sleep 0.1; done'\n")
		m.Run(t, "systemctl", "restart", "--no-block", service)
		m.WaitFor(t, "the pause", func() bool { return m.service(t).SubState == "start-pre" })
		answered := make(chan error, 1)
		go func() {
			_, err := m.ask()
			answered <- err
		}()
		m.WaitFor(t, "the client's connection", func() bool {
			return strings.Contains(m.Run(t, "ss", "-Htn", "state", "established", "dport", "=", ":8080"), ":8080")
		})
		select {
		case err := <-answered:
			t.Fatalf("%s: the client did not wait: %v", m.Suite, err)
		default:
		}
		m.WriteFile(t, "/run/go", "")
		if err := <-answered; err != nil {
			t.Errorf("%s: the waiting client: %v", m.Suite, err)
		}
		if journal := m.Journal(t, service); strings.Contains(journal, "systemd did not pass") {
			t.Errorf("%s: the master bound a socket itself:\n%s", m.Suite, journal)
		}
	})
}

// TestBrokenFileOfRunningFleet breaks the file of a fleet that serves, has
// systemd read it and restarts the fleet: the socket stays open, and who connects
// waits until the file is mended.
func TestBrokenFileOfRunningFleet(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, served(8080, ""))
		m.Run(t, "systemctl", "start", service)
		m.answers(t, 8080)
		master := m.service(t).MainPID
		m.fleet(t, served(8080, ""), "[worker.other]\nexec = [\"open")
		m.answers(t, 8080)
		if u := m.service(t); u.MainPID != master || u.ActiveState != "active" {
			t.Errorf("%s: %+v", m.Suite, u)
		}
		if _, code := m.Try("systemctl", "restart", service); code == 0 {
			t.Errorf("%s: the broken fleet has started", m.Suite)
		}
		answered := make(chan error, 1)
		go func() {
			_, err := m.ask()
			answered <- err
		}()
		m.WaitFor(t, "two more failed starts", func() bool { return m.service(t).NRestarts >= 2 })
		select {
		case err := <-answered:
			t.Fatalf("%s: the client did not wait: %v", m.Suite, err)
		default:
		}
		m.fleet(t, served(8080, ""))
		if err := <-answered; err != nil {
			t.Errorf("%s: the waiting client: %v", m.Suite, err)
		}
		m.assertState(t, "active", httpSocket)
		if journal := m.Journal(t, service); strings.Contains(journal, "systemd did not pass") {
			t.Errorf("%s: the master bound a socket itself:\n%s", m.Suite, journal)
		}
	})
}

// TestSocketsAreAsTheFileSays has each kind of socket, and adds one to a fleet
// that runs: it comes with the next restart.
func TestSocketsAreAsTheFileSays(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		const sockets = `
[socket.http]
listen = ["0.0.0.0:8080", "[::]:8080", "8081", "/run/web site at 100%%.sock", "@web"]
backlog = 77
mode = "0640"
user = "daemon"
group = "adm"

[socket.local]
listen = "[fe80::1%%lo]:8083"
free_bind = true

[worker.web]
exec = ["sleep", "infinity"]
sockets = ["http", "local"`
		m.fleet(t, sockets, "]")
		m.Run(t, "systemctl", "start", service)
		got := m.Run(t, "ss", "-Hltnx")
		for _, want := range []string{
			"0.0.0.0:8080 ", "[::]:8080 ", "*:8081 ", "/run/web site at 100%.sock ", "@web ", "[fe80::1]%lo:8083 ",
		} {
			if !strings.Contains(got, " 77 ") || !strings.Contains(got, want) {
				t.Errorf("%s: nobody listens on %s:\n%s", m.Suite, want, got)
			}
		}
		if got := m.Run(t, "stat", "--format=%a %U %G", "/run/web site at 100%.sock"); strings.TrimSpace(got) != "640 daemon adm" {
			t.Errorf("%s: the socket's file is %s", m.Suite, got)
		}
		m.fleet(t, sockets, `, "more"]
[socket.more]
listen = "127.0.0.1:8084"
`)
		m.Run(t, "systemctl", "restart", service)
		m.assertState(t, "active", "prefork-fleet:more.socket")
		if journal := m.Journal(t, service); strings.Contains(journal, "systemd did not pass") || strings.Contains(journal, "systemd listens on") {
			t.Errorf("%s: the sockets are not those of the file:\n%s", m.Suite, journal)
		}
		m.Run(t, "systemctl", "stop", "prefork-fleet:http.socket", service)
		if m.exists(t, "/run/web site at 100%.sock") {
			t.Errorf("%s: the socket's file is left", m.Suite)
		}
	})
}
