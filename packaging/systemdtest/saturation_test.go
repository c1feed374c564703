// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/control"
)

// silentClients connect, ask for nothing, and stay.
const silentClients = `
import signal, socket
clients = [socket.create_connection(("127.0.0.1", 8080)) for _ in range(201)]
for _ in range(3):
    clients.append(socket.socket(socket.AF_UNIX))
    clients[-1].connect("/run/local.sock")
signal.pause()
`

// TestSaturation: systemctl tells how many connections wait while the only worker is busy,
// in the sandbox of the unit, and also where the sockets are of another network namespace.
func TestSaturation(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.WriteFile(t, "/opt/app/silent.py", silentClients)
		m.fleet(t, floorTable, httpTable, `
[socket.local]
listen = "/run/local.sock"
[worker.web]
entry = "app:serve"
sockets = ["http", "local"]
`)
		m.Run(t, "systemctl", "start", httpSocket, "prefork-fleet:local.socket", service)
		m.saturates(t, "1/1 ready; http: 200 connections wait; local: 3 connections wait", control.SocketStatus{
			Name: "local", Address: "/run/local.sock", Type: "stream", Queue: 3, QueueLimit: 4096, Drops: -1,
		})

		m.dropIn(t, "[Service]\nPrivateNetwork=yes\n")
		m.Run(t, "systemctl", "restart", service)
		m.waitForStatus(t, "1/1 ready")
		m.saturates(t, "1/1 ready; http: 200 connections wait; local: connections wait", control.SocketStatus{
			Name: "local", Address: "/run/local.sock", Type: "stream", Queue: -1, QueueLimit: -1, Drops: -1,
		})
	})
}

// saturates has clients wait, and go.
func (m machine) saturates(t *testing.T, text string, local control.SocketStatus) {
	t.Helper()
	m.Run(t, "systemd-run", "--unit=clients", "--collect", "python3", "/opt/app/silent.py")
	says := func() string {
		return strings.TrimSuffix(m.Run(t, "systemctl", "show", "-P", "StatusText", service), "\n")
	}
	m.WaitFor(t, "status "+text, func() bool { return says() == text })
	if out := m.Run(t, "systemctl", "status", "--no-pager", service); !strings.Contains(out, `Status: "`+text+`"`) {
		t.Errorf("%s: systemctl status:\n%s", m.Suite, out)
	}
	var f control.Status
	if err := json.Unmarshal([]byte(m.Run(t, "prefork", "status", "--json", "fleet")), &f); err != nil || len(f.Sockets) != 2 ||
		f.Sockets[0].Queue != 200 || f.Sockets[0].QueueLimit != 4096 || f.Sockets[1] != local {
		t.Errorf("%s: %v, %+v", m.Suite, err, f.Sockets)
	}
	m.Run(t, "systemctl", "stop", "clients.service")
	m.WaitFor(t, "nobody waits at http", func() bool { return !strings.Contains(says(), "http:") })
	// No worker accepts at local: who has gone waits there still, until the socket is new.
	m.Run(t, "systemctl", "stop", service, "prefork-fleet:local.socket")
	m.Run(t, "systemctl", "start", "prefork-fleet:local.socket")
	m.Run(t, "systemctl", "start", service)
	m.waitForStatus(t, "1/1 ready")
}
