// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/control"
)

// doors puts the attackers into a machine, and starts two fleets: one of root's with
// a worker of nobody's, and one as it is shipped, which the other's user could enter.
func (m machine) doors(t *testing.T) {
	t.Helper()
	m.story(t)
	content, err := os.ReadFile("testdata/doors.py")
	if err != nil {
		t.Fatal(err)
	}
	m.WriteFile(t, "/opt/app/doors.py", string(content))
	m.Run(t, "install", "-d", "-m0777", "/opt/app/pub")
	m.allow(t, "fleet", "users")
	m.dropIn(t, "[Service]\nWatchdogSec=5s\nReadWritePaths=/opt/app/pub\n")
	const calm = `
[floor]
path = ["/opt/app"]
preload = ["story", "doors"]

[worker.calm]
entry = "story:calm"
type = "notify"
watchdog_sec = "5s"
`
	m.WriteFile(t, "/etc/prefork/edge.toml", calm)
	m.fleet(t, calm, `
[worker.hostile]
entry = "doors:worker"
type = "notify"
user = "nobody"
file_descriptor_store_max = 2
`)
	m.Run(t, "systemctl", "start", service, "prefork@edge.service")
}

// look asks a fleet how it is, as an operator does, and tells how long that took.
func (m machine) look(t *testing.T, fleet string) (f control.Status, took time.Duration) {
	t.Helper()
	begin := time.Now()
	out := m.Run(t, "prefork", "status", "--json", fleet)
	took = time.Since(begin)
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatalf("%s: %v: %s", m.Suite, err, out)
	}
	return f, took
}

func pidsOf(f control.Status) (pids []uint32) {
	for _, s := range f.Slots {
		pids = append(pids, s.MainPID)
	}
	return pids
}

// as is a command by another user.
func as(user string, args ...string) []string {
	return append([]string{"setpriv", "--reuid=" + user, "--clear-groups"}, args...)
}

// TestStrangersHangNothing has a worker of nobody's, and four other processes of that
// user, send what blocks whoever closes it, and as much as they can, to every notify
// socket: the master answers and pets its watchdog, and no worker is lost.
func TestStrangersHangNothing(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.doors(t)
		const sockets = `
/run/prefork/edge/control 600 prefork
/run/prefork/edge/notify/calm.0 600 prefork
/run/prefork/fleet/control 600 root
/run/prefork/fleet/notify/calm.0 600 root
/run/prefork/fleet/notify/hostile.0 600 nobody
`
		if got := "\n" + m.Run(t, "sh", "-c", `find /run/prefork -type s -printf '%p %m %u\n' | sort`); got != sockets {
			t.Errorf("%s: the sockets are%s", m.Suite, got)
		}
		if got := m.Run(t, "find", "/run/prefork", "-perm", "/022"); got != "" {
			t.Errorf("%s: others may write to %s", m.Suite, got)
		}
		unit, edge := m.service(t), m.Service(t, "prefork@edge.service")
		before, _ := m.look(t, "fleet")
		descriptors := m.descriptors(t, unit.MainPID)
		var all []*exec.Cmd
		for i := range 4 {
			c := m.Command(as("nobody", "python3", "/opt/app/doors.py", "bother", "/run/prefork/"+[]string{"fleet", "edge"}[i/3]+"/notify")...)
			c.Stdout = new(bytes.Buffer)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		var took []time.Duration
		m.WaitFor(t, "keep-alives of the master", func() bool {
			f, d := m.look(t, "fleet")
			took = append(took, d)
			if !slices.Equal(pidsOf(f), pidsOf(before)) || f.NRestarts != 0 {
				t.Fatalf("%s: %+v", m.Suite, f)
			}
			return m.service(t).Watchdog > unit.Watchdog+12*time.Second
		})
		m.tell(t, "enough")
		slices.Sort(took)
		t.Logf("%s: status was asked %d times, and took %s, at most %s", m.Suite, len(took), took[len(took)/2], took[len(took)-1])
		if took[len(took)/2] > time.Second {
			t.Errorf("%s: status takes %s", m.Suite, took[len(took)/2])
		}
		m.WaitFor(t, "what came of it for the worker", func() bool { return m.ReadFile(t, "/opt/app/pub/worker") != "" })
		said := []string{m.ReadFile(t, "/opt/app/pub/worker")}
		for _, c := range all {
			if err := c.Wait(); err != nil {
				t.Errorf("%s: %v", m.Suite, err)
			}
			said = append(said, c.Stdout.(*bytes.Buffer).String())
		}
		for i, text := range said {
			var got map[string]any
			if err := json.Unmarshal([]byte(text), &got); err != nil || got["calm.0"] != "EACCES" {
				t.Errorf("%s: attacker %d: %v, %s", m.Suite, i, err, text)
			}
			own, _ := got["hostile.0"].(map[string]any)
			if n, _ := own["lingering"].(float64); n == 0 && i < 4 {
				t.Errorf("%s: attacker %d has sent nothing that lingers: %s", m.Suite, i, text)
			}
		}
		t.Logf("%s: %v", m.Suite, said)
		m.WaitFor(t, "descriptors closed", func() bool { return m.descriptors(t, unit.MainPID) <= descriptors+2 })
		for name, old := range map[string]int{service: unit.MainPID, "prefork@edge.service": edge.MainPID} {
			if u := m.Service(t, name); u.MainPID != old || u.NRestarts != 0 || u.ActiveState != "active" {
				t.Errorf("%s: %s: %+v", m.Suite, name, u)
			}
		}
		if got := m.entries(t, "MESSAGE", "PREFORK_EVENT=slot-watchdog"); len(got) != 0 {
			t.Errorf("%s: %q", m.Suite, got)
		}
		m.steersNoTerminal(t)
		if u := m.service(t); u.MainPID != unit.MainPID {
			t.Errorf("%s: %+v", m.Suite, u)
		}
	})
}

// steersNoTerminal shows what the worker has said wherever an operator looks.
func (m machine) steersNoTerminal(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"prefork", "status"},
		{"prefork", "status", "fleet"},
		{"prefork", "status", "--json", "fleet"},
		{"prefork", "why", "fleet", "hostile.0"},
		{"prefork", "logs", "fleet"},
		{"prefork", "logs", "fleet", "hostile.0"},
		{"systemctl", "status", "--no-pager", service},
	} {
		if out := m.Run(t, args...); strings.ContainsAny(out, "\x1b\a\r") {
			t.Errorf("%s: %q: %q", m.Suite, args, out)
		}
	}
}

// TestCommandsKnowTheirFleet: the user of a fleet puts something else in the place of
// its control socket. No command of root's acts on another fleet, or waits for long.
func TestCommandsKnowTheirFleet(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.doors(t)
		const at, target = "/run/prefork/edge/control", "/run/prefork/fleet/control"
		before, _ := m.look(t, "fleet")
		take := func(user, what string) *exec.Cmd {
			return m.Command(as(user, "python3", "/opt/app/doors.py", "takeover", at, what)...)
		}
		for _, c := range []struct{ user, what, want string }{
			{"prefork", "symlink:" + target, "is a symbolic link, which no master makes"},
			{"prefork", "symlink:/nowhere", "is a symbolic link, which no master makes"},
			{"root", "hardlink:" + target, "is served by the master of another fleet"}, // prefork may not: protected_hardlinks
			{"prefork", "own", "does not answer"},
		} {
			taken := take(c.user, c.what)
			if err := taken.Start(); err != nil {
				t.Fatal(err)
			}
			if c.what == "own" {
				m.WaitFor(t, "another server", func() bool {
					owner, _ := m.Try("stat", "--format=%U", at)
					return strings.TrimSpace(owner) == c.user
				})
			} else if err := taken.Wait(); err != nil {
				t.Fatal(err)
			}
			commands := [][]string{
				{"kill", "--signal=KILL", "edge", "calm.0"},
				{"status"},
				{"status", "edge"},
				{"stop", "edge", "calm.0"},
				{"restart", "edge", "calm.0"},
				{"reset", "edge"},
				{"freeze", "edge", "calm.0"},
				{"why", "edge", "calm.0"},
				{"top", "edge"},
			}
			if c.what == "own" {
				commands = commands[:2] // each waits for it
			}
			for _, args := range commands {
				out, code := m.Try(append([]string{"prefork"}, args...)...)
				if code != 1 || !strings.Contains(out, c.want) || c.what != "own" && !strings.Contains(out, "Nothing was asked of it") {
					t.Errorf("%s: %s: prefork %q: exit status %d, %q", m.Suite, c.what, args, code, out)
				}
			}
			if out := m.Run(t, "prefork", "__complete", "kill", "edge", ""); strings.Contains(out, "calm") || strings.Contains(out, "hostile") {
				t.Errorf("%s: %s: a shell completes %q", m.Suite, c.what, out)
			}
			// The view looks again for a master that has gone, and may find this.
			view, _ := m.Try("sh", "-c", "TERM=xterm timeout 3 script -qec 'stty cols 200 rows 50; "+
				"/usr/lib/prefork/prefork-view top --socket "+at+" --name edge --file /etc/prefork/edge.toml edge' /dev/null </dev/null")
			if strings.Contains(view, "calm") || c.what != "own" && !strings.Contains(view, c.want) {
				t.Errorf("%s: %s: the view shows %q", m.Suite, c.what, view)
			}
			if c.what == "own" {
				m.tell(t, "enough")
				if err := taken.Wait(); err != nil {
					t.Errorf("%s: %v", m.Suite, err)
				}
			}
		}
		if f, _ := m.look(t, "fleet"); !slices.Equal(pidsOf(f), pidsOf(before)) || f.NRestarts != 0 || !strings.HasPrefix(f.StatusText, "2/2 ready") {
			t.Errorf("%s: the other fleet: %+v", m.Suite, f)
		}
		if got := m.entries(t, "MESSAGE", "PREFORK_EVENT=slot-stops"); len(got) != 0 {
			t.Errorf("%s: %q", m.Suite, got)
		}
	})
}
