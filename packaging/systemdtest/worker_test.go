// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestServersTakeTheirSockets runs three servers that know nothing of prefork.
// The master holds each address, so a server that does not take what it was
// handed down cannot bind its own and does not answer.
func TestServersTakeTheirSockets(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.WriteFile(t, "/etc/nginx/worker.conf", `
daemon off;
pid /var/lib/prefork/fleet/nginx.pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path /var/lib/prefork/fleet/body;
	proxy_temp_path /var/lib/prefork/fleet/proxy;
	fastcgi_temp_path /var/lib/prefork/fleet/fastcgi;
	uwsgi_temp_path /var/lib/prefork/fleet/uwsgi;
	scgi_temp_path /var/lib/prefork/fleet/scgi;
	server {
		listen 127.0.0.1:8083;
		location / { return 200 "nginx"; }
	}
}
`)
		m.fleet(t, floorTable, `
[socket.u]
listen = ["127.0.0.1:8081"]
[socket.g]
listen = ["127.0.0.1:8082"]
[socket.n]
listen = ["127.0.0.1:8083"]

[worker.uvicorn]
entry = "app:uvicorn"
sockets = ["u"]

[worker.gunicorn]
exec = ["/usr/bin/gunicorn", "--chdir", "/opt/app", "app:wsgi"]
sockets = ["g"]

[worker.nginx]
exec = ["/usr/sbin/nginx", "-c", "/etc/nginx/worker.conf"]
environment = { NGINX = "3;" }
sockets = ["n"]
`)
		m.Run(t, "systemctl", "start", service)
		for port, name := range map[string]string{"8081": "uvicorn", "8082": "gunicorn", "8083": "nginx"} {
			m.WaitFor(t, "answer of "+name, func() bool {
				out, code := m.Try("curl", "-sS", "--include", "--max-time", "5", "http://127.0.0.1:"+port+"/")
				return code == 0 && strings.Contains(strings.ToLower(out), "server: "+name)
			})
		}
		if u := m.service(t); u.StatusText != "3/3 ready" || u.NRestarts != 0 {
			t.Errorf("%s: %+v", m.Suite, u)
		}
		m.Run(t, "systemctl", "stop", service)
		m.assertCleanStop(t)
	})
}

// given is what dump.py writes down.
type given struct {
	PID     int
	FDs     map[string]string
	Environ map[string]string
	Stderr  string
}

func (m machine) given(t *testing.T, path string) given {
	t.Helper()
	m.WaitFor(t, path, func() bool { return m.ReadFile(t, path) != "" })
	var g given
	if err := json.Unmarshal([]byte(m.ReadFile(t, path)), &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// TestWorkerGetsWhatIsDocumented compares the descriptors and the environment
// of both kinds of worker with the contract: nothing of what systemd gave the
// master reaches them.
func TestWorkerGetsWhatIsDocumented(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, floorTable, httpTable, `
[socket.other]
listen = ["127.0.0.1:8081"]

[worker.forked]
entry = "app:dump"
sockets = ["http", "other"]
environment = { MINE = "yes" }

[worker.program]
exec = ["/usr/bin/python3", "/opt/app/dump.py", "/var/lib/prefork/fleet/dump.exec"]
sockets = ["http", "other"]
environment = { MINE = "yes" }
`)
		m.dropIn(t, "[Service]\nFileDescriptorStoreMax=4\nEnvironment=INHERITED=yes\n")
		m.Run(t, "systemctl", "start", httpSocket, service)
		for path, worker := range map[string]string{"/var/lib/prefork/fleet/dump.entry": "forked", "/var/lib/prefork/fleet/dump.exec": "program"} {
			g := m.given(t, path)
			assertDescriptors(t, worker, g)
			assertEnvironment(t, worker, g)
		}
	})
}

func assertDescriptors(t *testing.T, worker string, g given) {
	t.Helper()
	// The floor holds what libffi, from 3.5 on, needs for callbacks: its own file.
	maps.DeleteFunc(g.FDs, func(_, target string) bool {
		return worker == "forked" && strings.Contains(target, "/libffi.so")
	})
	got := slices.Sorted(maps.Keys(g.FDs))
	if want := []string{"0", "1", "2", "3", "4"}; !slices.Equal(got, want) {
		t.Errorf("%s has descriptors %v, want %v", worker, g.FDs, want)
	}
	for _, fd := range []string{"3", "4"} {
		if !strings.HasPrefix(g.FDs[fd], "socket:") {
			t.Errorf("%s: descriptor %s is %s, want a socket", worker, fd, g.FDs[fd])
		}
	}
	if g.FDs["0"] != "/dev/null" {
		t.Errorf("%s: standard input is %s", worker, g.FDs["0"])
	}
}

func assertEnvironment(t *testing.T, worker string, g given) {
	t.Helper()
	want := map[string]string{
		"INHERITED":      "yes",
		"MINE":           "yes",
		"LISTEN_PID":     strconv.Itoa(g.PID),
		"LISTEN_FDS":     "2",
		"LISTEN_FDNAMES": "http:other",
		"PREFORK_FLEET":  "fleet",
		"PREFORK_WORKER": worker,
		"PREFORK_SLOT":   worker + ".0",
	}
	for name, value := range want {
		if got := g.Environ[name]; got != value {
			t.Errorf("%s: %s=%q, want %q", worker, name, got, value)
		}
	}
	if stream, ok := g.Environ["JOURNAL_STREAM"]; ok && stream != g.Stderr {
		t.Errorf("%s: JOURNAL_STREAM=%s, its standard error is %s", worker, stream, g.Stderr)
	}
	if g.Environ["PREFORK_INVOCATION_ID"] == "" {
		t.Errorf("%s has no PREFORK_INVOCATION_ID", worker)
	}
	for _, name := range []string{
		"WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PIDFDID", "FDSTORE", "MAINPID", "MAINPIDFDID",
		"INVOCATION_ID", "SYSTEMD_EXEC_PID",
	} {
		if value, ok := g.Environ[name]; ok {
			t.Errorf("%s has the master's %s=%s", worker, name, value)
		}
	}
	if socket := g.Environ["NOTIFY_SOCKET"]; strings.HasPrefix(socket, "/run/systemd/") {
		t.Errorf("%s has systemd's NOTIFY_SOCKET=%s", worker, socket)
	}
}

// TestStopLeavesNothing stops a fleet with a worker that ignores SIGTERM and
// one that leaves a child behind. The master ends both in time: systemd, which
// says so when it kills something, finds nothing to do.
func TestStopLeavesNothing(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, floorTable, `
[worker.stubborn]
entry = "app:stubborn"
timeout_stop_sec = "2s"

[worker.parent]
exec = ["/bin/sh", "-c", "sleep 12345 & exec sleep 12345"]
`)
		m.Run(t, "systemctl", "start", service)
		m.WaitFor(t, "stubborn worker", func() bool { return m.exists(t, "/var/lib/prefork/fleet/stubborn.ready") })
		m.WaitFor(t, "two sleeps", func() bool {
			out, _ := m.Try("pgrep", "--full", "--count", "^sleep 12345$")
			return strings.TrimSpace(out) == "2"
		})
		begin := time.Now()
		m.Run(t, "systemctl", "stop", service)
		if took := time.Since(begin); took < 2*time.Second || took > 12*time.Second {
			t.Errorf("%s: the stop took %v, want 2 s and a little", m.Suite, took)
		}
		if !m.exists(t, "/var/lib/prefork/fleet/stubborn.asked") {
			t.Errorf("%s: stubborn.0 was not asked to stop", m.Suite)
		}
		if out, code := m.Try("pgrep", "--full", "--list-full", "^sleep 12345$|^prefork|/opt/app"); code != 1 {
			t.Errorf("%s: processes are left: %s", m.Suite, out)
		}
		m.assertCleanStop(t)
	})
}

// assertCleanStop wants the service stopped by the master's own work.
func (m machine) assertCleanStop(t *testing.T) {
	t.Helper()
	u := m.service(t)
	if u.ActiveState != "inactive" || u.Result != "success" || u.ExecMainStatus != 0 || u.NRestarts != 0 {
		t.Errorf("%s: after stop: %+v", m.Suite, u)
	}
	if cgroup := "/sys/fs/cgroup" + u.ControlGroup; u.ControlGroup != "" && m.exists(t, cgroup) {
		t.Errorf("%s: cgroup %s is left", m.Suite, cgroup)
	}
	journal := m.Journal(t, service)
	if !strings.Contains(journal, "fleet shut down") {
		t.Errorf("%s: the master did not say that it is done:\n%s", m.Suite, journal)
	}
	for _, words := range []string{"Killing process", "remains running after unit stopped"} {
		if strings.Contains(journal, words) {
			t.Errorf("%s: systemd found processes of the fleet:\n%s", m.Suite, journal)
		}
	}
}
