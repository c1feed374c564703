// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"strings"
	"testing"
)

// TestBrokenFloor has floors that cannot be loaded. Each is one failed start:
// exit status 1, with the cause in STATUS and in the journal.
func TestBrokenFloor(t *testing.T) {
	floors := []struct {
		module, source string
		cause          string // the fact that the operator has to find
	}{
		{"raises", "raise RuntimeError('no licence found')", "no licence found"},
		{"absent", "", "absent"},
		{"background", `
import threading, time
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
`, "thread"},
		{"endless", "import time\ntime.sleep(1000)", "endless"},
	}
	onEachSuite(t, func(t *testing.T, m machine) {
		m.dropIn(t, "[Service]\nRestart=no\n")
		for _, f := range floors {
			if f.source != "" {
				m.WriteFile(t, "/opt/app/"+f.module+".py", f.source)
			}
			m.fleet(t, `timeout_start_sec = "3s"`, floorTable, `preload = ["`+f.module+`"]`, `
[worker.web]
entry = "app:dump"
`)
			if _, code := m.Try("systemctl", "start", service); code == 0 {
				t.Errorf("%s: floor %s: the start succeeded", m.Suite, f.module)
			}
			u := m.service(t)
			if u.ActiveState != "failed" || u.Result != "exit-code" || u.ExecMainStatus != 1 {
				t.Errorf("%s: floor %s: %+v, want exit status 1", m.Suite, f.module, u)
			}
			if !strings.Contains(u.StatusText, f.cause) {
				t.Errorf("%s: floor %s: status %q does not say %q", m.Suite, f.module, u.StatusText, f.cause)
			}
			if journal := m.lastRun(t); !strings.Contains(journal, f.cause) {
				t.Errorf("%s: floor %s: the journal does not say %q:\n%s", m.Suite, f.module, f.cause, journal)
			}
		}
	})
}

// lastRun returns what the service has logged since its last start, without
// what systemd says about it.
func (m machine) lastRun(t *testing.T) string {
	t.Helper()
	id := strings.TrimSpace(m.Run(t, "systemctl", "show", "--property=InvocationID", "--value", service))
	m.Run(t, "journalctl", "--sync")
	return m.Run(t, "journalctl", "--no-pager", "--output=cat", "_SYSTEMD_INVOCATION_ID="+id)
}

// TestBadFleetFileIsMended has a client waiting at the socket while the fleet
// file is wrong. It is served once the file is right, and nobody types anything
// else.
func TestBadFleetFileIsMended(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, "# line 1 is a comment", "no_such_key = 1", floorTable, httpTable, webTable)
		m.Run(t, "systemctl", "start", httpSocket)
		answered := make(chan error, 1)
		go func() {
			_, err := m.ask()
			answered <- err
		}()
		m.WaitFor(t, "two failed starts", func() bool { return m.service(t).NRestarts >= 2 })
		m.WaitFor(t, "exit status 78", func() bool { return m.service(t).ExecMainStatus == 78 })
		if journal := m.Journal(t, service); !strings.Contains(journal, "/etc/prefork/fleet.toml:2:") {
			t.Errorf("%s: no file and line in the journal:\n%s", m.Suite, journal)
		}
		select {
		case err := <-answered:
			t.Fatalf("%s: the client did not wait: %v", m.Suite, err)
		default:
		}
		m.fleet(t, floorTable, httpTable, webTable)
		if err := <-answered; err != nil {
			t.Errorf("%s: the waiting client: %v", m.Suite, err)
		}
		m.waitForStatus(t, "8/8 ready")
	})
}
