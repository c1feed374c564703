// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/packaging/systemdtest"
)

const (
	service    = "prefork@fleet.service"
	httpSocket = "prefork-fleet:http.socket"
	floorTable = `
[floor]
path = ["/opt/app"]
env = { OPENBLAS_NUM_THREADS = "1" }
`
	realFloorTable = floorTable +
		`preload = ["numpy", "django", "sqlalchemy", "aiohttp", "requests", "cryptography"]
`
	httpTable = `
[socket.http]
listen = ["127.0.0.1:8080"]
`
)

// machine is a machine with prefork and the programs of testdata in /opt/app.
type machine struct{ *systemdtest.Machine }

// onEachSuite runs a test on a machine of each suite.
func onEachSuite(t *testing.T, test func(t *testing.T, m machine)) {
	t.Helper()
	t.Parallel()
	for _, suite := range systemdtest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			m := machine{systemdtest.Boot(t, suite, systemdtest.InstallPrefork)}
			for _, name := range []string{"app.py", "dump.py", "client.py"} {
				content, err := os.ReadFile("testdata/" + name)
				if err != nil {
					t.Fatal(err)
				}
				m.WriteFile(t, "/opt/app/"+name, string(content))
			}
			test(t, m)
		})
	}
}

// fleet writes /etc/prefork/fleet.toml from its parts, and has its sockets
// generated.
func (m machine) fleet(t *testing.T, parts ...string) {
	t.Helper()
	m.WriteFile(t, "/etc/prefork/fleet.toml", strings.Join(parts, "\n"))
	m.Run(t, "systemctl", "daemon-reload")
}

// dropIn adds settings to the service.
func (m machine) dropIn(t *testing.T, settings string) {
	t.Helper()
	m.WriteFile(t, "/etc/systemd/system/"+service+".d/test.conf", settings)
	m.Run(t, "systemctl", "daemon-reload")
}

func (m machine) service(t *testing.T) systemdtest.Unit {
	t.Helper()
	return m.Service(t, service)
}

// waitForStatus waits until the service is active and its STATUS has a text.
func (m machine) waitForStatus(t *testing.T, text string) {
	t.Helper()
	m.WaitFor(t, "status "+text, func() bool {
		u := m.service(t)
		return u.ActiveState == "active" && strings.Contains(u.StatusText, text)
	})
}

// reply is what app.serve answers.
type reply struct {
	PID        int
	Slot       string
	Generation int
	Floor      []string
}

// ask makes one request of app.serve.
func (m machine) ask() (reply, error) {
	var r reply
	out, code := m.Try("curl", "-sS", "--max-time", "60", "http://127.0.0.1:8080/")
	if code != 0 {
		return r, fmt.Errorf("curl: exit status %d: %s", code, out)
	}
	err := json.Unmarshal([]byte(out), &r)
	return r, err
}

// mustAsk is ask that ends the test if there is no answer.
func (m machine) mustAsk(t *testing.T) reply {
	t.Helper()
	r, err := m.ask()
	if err != nil {
		t.Fatalf("%s: %v", m.Suite, err)
	}
	return r
}

// workers returns the pids behind all slots, by slot, once count of them have
// answered.
func (m machine) workers(t *testing.T, count int) map[string]reply {
	t.Helper()
	seen := make(map[string]reply)
	m.WaitFor(t, fmt.Sprintf("answers of %d slots", count), func() bool {
		r := m.mustAsk(t)
		seen[r.Slot] = r
		return len(seen) == count
	})
	return seen
}

// zygotes returns the pids of those children of the master that hold a floor,
// oldest first. They are known by their title.
func (m machine) zygotes(t *testing.T) []int {
	t.Helper()
	master := strconv.Itoa(m.service(t).MainPID)
	out, _ := m.Try("pgrep", "--parent", master, "--full", "^prefork: floor ")
	var pids []int
	for field := range strings.FieldsSeq(out) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatalf("pgrep: %s", out)
		}
		pids = append(pids, pid)
	}
	return pids
}

// times returns the instants that app.crash has written down.
func (m machine) times(t *testing.T) []time.Duration {
	t.Helper()
	var times []time.Duration
	for field := range strings.FieldsSeq(m.ReadFile(t, "/var/lib/prefork/fleet/crash.times")) {
		d, err := time.ParseDuration(field + "s")
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, d)
	}
	return times
}

func (m machine) exists(t *testing.T, path string) bool {
	t.Helper()
	_, code := m.Try("test", "-e", path)
	return code == 0
}

// TestShippedUnitIsValid wants no complaint from any systemd. The manual pages
// are not looked for: these machines have no man.
func TestShippedUnitIsValid(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		out := m.Run(t, "systemd-analyze", "verify", "--man=no", "/usr/lib/systemd/system/prefork@.service")
		if out != "" {
			t.Errorf("systemd-analyze verify: %s", out)
		}
	})
}

// TestFleetServes is the ordinary life of a fleet: eight workers on the real
// floor, behind a socket of systemd's, that are started, restarted and stopped.
func TestFleetServes(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, realFloorTable, httpTable, `
[worker.web]
entry = "app:serve"
count = 8
sockets = ["http"]
`)
		m.Run(t, "systemctl", "start", service)
		if u := m.service(t); u.ActiveState != "active" || !strings.HasPrefix(u.StatusText, "8/8 ready") || u.NRestarts != 0 {
			t.Fatalf("after start: %+v", u)
		}
		m.Run(t, "systemctl", "status", "--no-pager", service)
		floor := []string{"numpy", "django", "sqlalchemy", "aiohttp", "requests", "cryptography"}
		for slot, r := range m.workers(t, 8) {
			if !slices.Equal(r.Floor, floor) {
				t.Errorf("%s has %v of the floor, want %v", slot, r.Floor, floor)
			}
		}
		restartUnderLoad(t, m)
		m.Run(t, "systemctl", "stop", service)
		if u := m.service(t); u.ActiveState != "inactive" || u.Result != "success" || u.ExecMainStatus != 0 {
			t.Errorf("after stop: %+v", u)
		}
	})
}

// restartUnderLoad restarts the service while a client connects again and
// again. Connections queue in systemd's socket, so none is refused. Each worker
// may lose the one that it has accepted: these do not finish what they began.
func restartUnderLoad(t *testing.T, m machine) {
	t.Helper()
	before := m.service(t).MainPID
	client := m.Command("python3", "/opt/app/client.py")
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	served := func() int { return m.outcomes(t)["served"] }
	m.WaitFor(t, "served client", func() bool { return served() > 0 })
	m.Run(t, "systemctl", "restart", service)
	after := served()
	m.WaitFor(t, "served client after the restart", func() bool { return served() > after+10 })
	m.WriteFile(t, "/run/client.stop", "")
	if err := client.Wait(); err != nil {
		t.Errorf("client: %v", err)
	}
	got := m.outcomes(t)
	t.Logf("%s: client across a restart: %v", m.Suite, got)
	if got["refused"] != 0 || got["lost"] > 8 {
		t.Errorf("client across a restart: %v, want none refused and at most 8 lost", got)
	}
	u := m.service(t)
	if !strings.HasPrefix(u.StatusText, "8/8 ready") || u.NRestarts != 0 || u.MainPID == before {
		t.Errorf("after restart: %+v, main pid before %d", u, before)
	}
}

// outcomes returns what client.py has counted so far.
func (m machine) outcomes(t *testing.T) map[string]int {
	t.Helper()
	got := make(map[string]int)
	if text := m.ReadFile(t, "/run/client.json"); text != "" {
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
	}
	return got
}
