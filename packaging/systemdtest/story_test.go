// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

const storyFloor = `
[floor]
path = ["/opt/app"]
preload = ["story"]
`

// story puts the workers of the stories into a machine.
func (m machine) story(t *testing.T) {
	t.Helper()
	content, err := os.ReadFile("testdata/story.py")
	if err != nil {
		t.Fatal(err)
	}
	m.WriteFile(t, "/opt/app/story.py", string(content))
}

// tell lets workers of the stories go on.
func (m machine) tell(t *testing.T, name string) {
	t.Helper()
	m.WriteFile(t, "/run/told/"+name, "")
}

// entries returns the value of a field in the entries of the journal that match.
func (m machine) entries(t *testing.T, field string, matches ...string) []string {
	t.Helper()
	m.Run(t, "journalctl", "--sync")
	args := []string{"journalctl", "--no-pager", "--output=json", "--all"}
	var values []string
	for line := range strings.Lines(m.Run(t, append(args, matches...)...)) {
		values = append(values, fieldOf(line, field))
	}
	return values
}

// TestStory walks through the life of a fleet as an operator sees it.
func TestStory(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.story(t)
		m.fleet(t, `start = "connection"`, storyFloor, `
[socket.http]
listen = ["127.0.0.1:8080"]

[worker.web]
entry = "story:greet"
sockets = ["http"]

[worker.slow]
entry = "story:slow"
type = "notify"

[worker.beating]
entry = "story:beating"
type = "notify"
watchdog_sec = "2s"
timeout_stop_sec = "1s"
restart_sec = "100ms"

[worker.crash]
entry = "story:crash"
restart_sec = "200ms"
start_limit_burst = 3
start_limit_interval_sec = "1min"

[worker.parent]
entry = "story:parent"
timeout_stop_sec = "2s"
`)
		m.firstConnectionStarts(t)
		m.readyOnlyWhenAllAre(t)
		m.saysWhoSpeaks(t)
		m.stuckWorkerIsKilled(t)
		m.crashLoopIsExplained(t)
		m.stopLeavesNothing(t)
	})
}

func (m machine) firstConnectionStarts(t *testing.T) {
	t.Helper()
	m.Run(t, "systemctl", "start", httpSocket)
	if u := m.service(t); u.ActiveState != "inactive" {
		t.Errorf("%s: before the first connection: %+v", m.Suite, u)
	}
	if out := m.Run(t, "curl", "-sS", "--max-time", "60", "http://127.0.0.1:8080/"); out == "" {
		t.Errorf("%s: the first connection has no answer", m.Suite)
	}
}

func (m machine) readyOnlyWhenAllAre(t *testing.T) {
	t.Helper()
	m.WaitFor(t, "all others", func() bool { return strings.HasPrefix(m.service(t).StatusText, "3/5 ready") })
	if u := m.service(t); u.ActiveState != "activating" {
		t.Errorf("%s: before the worker's READY=1: %+v", m.Suite, u)
	}
	m.tell(t, "ready")
	m.WaitFor(t, "READY=1", func() bool { return m.service(t).ActiveState == "active" })
}

// saysWhoSpeaks: a line of a worker is found by the name of its slot, with its
// pid, and belongs to the unit.
func (m machine) saysWhoSpeaks(t *testing.T) {
	t.Helper()
	said := m.entries(t, "MESSAGE", "--identifier=slow.0", "--unit="+service)
	if len(said) != 1 || said[0] != "slow speaks, as "+m.entries(t, "_PID", "--identifier=slow.0")[0] {
		t.Errorf("%s: slow.0 said %q", m.Suite, said)
	}
	if got := m.entries(t, "OBJECT_PID", "PREFORK_SLOT=slow.0", "PREFORK_EVENT=slot-ready"); len(got) != 1 ||
		!strings.HasSuffix(said[0], " "+got[0]) {
		t.Errorf("%s: the entry about slow.0 has pid %v, it says %q", m.Suite, got, said)
	}
}

func (m machine) stuckWorkerIsKilled(t *testing.T) {
	t.Helper()
	m.tell(t, "stuck")
	m.WaitFor(t, "the successor of the stuck worker", func() bool {
		return len(strings.Fields(m.ReadFile(t, "/var/lib/prefork/fleet/beating"))) == 2
	})
	for field, want := range map[string]string{
		"PREFORK_RESULT": "watchdog", "EXIT_CODE": "killed", "EXIT_STATUS": "9", "PREFORK_WORKER": "beating",
		"PREFORK_FAILURES": "1", "PREFORK_GENERATION": "1", "SYSLOG_IDENTIFIER": "prefork",
	} {
		if got := m.entries(t, field, "PREFORK_SLOT=beating.0", "PREFORK_EVENT=slot-restarts"); len(got) != 1 || got[0] != want {
			t.Errorf("%s: the end of the stuck worker has %s=%v, want %s", m.Suite, field, got, want)
		}
	}
	if got := m.entries(t, "MESSAGE", "PREFORK_SLOT=beating.0", "PREFORK_EVENT=slot-watchdog"); len(got) != 1 ||
		!strings.Contains(got[0], "no WATCHDOG=1 for 2s") || !strings.Contains(got[0], `"about to hang"`) || !strings.Contains(got[0], "SIGABRT") {
		t.Errorf("%s: about the stuck worker: %q", m.Suite, got)
	}
}

func (m machine) crashLoopIsExplained(t *testing.T) {
	t.Helper()
	m.waitForStatus(t, "crash.0 failed (start-limit-hit after exit-code 3)")
	if got := m.entries(t, "EXIT_STATUS", "PREFORK_SLOT=crash.0", "PREFORK_EVENT=slot-restarts"); fmt.Sprint(got) != "[3 3 3]" {
		t.Errorf("%s: the ends of crash.0 have statuses %v", m.Suite, got)
	}
	if got := m.entries(t, "MESSAGE", "--identifier=crash.0"); len(got) != 3 || got[0] != "crash speaks" {
		t.Errorf("%s: crash.0 said %q", m.Suite, got)
	}
	text := m.Run(t, "journalctl", "--no-pager", "--catalog", "PREFORK_SLOT=crash.0")
	for _, want := range []string{"Defined-By: prefork", "crash.0", "start_limit_burst"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s: journalctl -x about crash.0 does not say %q:\n%s", m.Suite, want, text)
		}
	}
}

func (m machine) stopLeavesNothing(t *testing.T) {
	t.Helper()
	m.WaitFor(t, "the daemon", func() bool { return m.exists(t, "/var/lib/prefork/fleet/daemon") })
	// A crash first: the daemon, which ignores SIGTERM, ends with the process that
	// it came from.
	parent := m.entries(t, "OBJECT_PID", "PREFORK_SLOT=parent.0", "PREFORK_EVENT=slot-ready")[0]
	old := m.Run(t, "pgrep", "--full", "^sleep 54321$")
	m.Run(t, "kill", "-KILL", parent)
	m.WaitFor(t, "another daemon", func() bool {
		out, _ := m.Try("pgrep", "--full", "^sleep 54321$")
		return out != "" && strings.TrimSpace(out) != strings.TrimSpace(old)
	})
	if got := m.entries(t, "MESSAGE", "PREFORK_SLOT=parent.0", "PREFORK_EVENT=slot-left"); len(got) != 2 ||
		!strings.Contains(got[0], "1 process that it left behind got SIGTERM, SIGKILL follows in 2s") ||
		!strings.Contains(got[1], "did not end within 2s; sent SIGKILL") {
		t.Errorf("%s: about what parent.0 left behind: %q", m.Suite, got)
	}
	m.Run(t, "systemctl", "stop", service)
	if out, code := m.Try("pgrep", "--full", "--list-full", "^sleep 54321$|^prefork"); code != 1 {
		t.Errorf("%s: processes are left: %s", m.Suite, out)
	}
	m.assertCleanStop(t)
	if files := m.Run(t, "sh", "-c", "ls -A /run/prefork 2>/dev/null || true"); files != "" {
		t.Errorf("%s: files are left in /run/prefork: %s", m.Suite, files)
	}
	if got := strconv.Itoa(m.service(t).NRestarts); got != "0" {
		t.Errorf("%s: %s restarts", m.Suite, got)
	}
}

// TestStoredDescriptorsOutliveTheMaster: what a worker has stored comes back to
// its successor, also if the master has been killed meanwhile; systemd's own
// store has it then.
func TestStoredDescriptorsOutliveTheMaster(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.story(t)
		m.fleet(t, storyFloor, `
[worker.keeper]
entry = "story:keeper"
file_descriptor_store_max = 2
`)
		m.Run(t, "systemctl", "start", service)
		m.WaitFor(t, "a stored descriptor", func() bool { return m.ReadFile(t, "/var/lib/prefork/fleet/stored") != "" })
		first := strings.TrimSpace(m.ReadFile(t, "/var/lib/prefork/fleet/stored"))
		m.WaitFor(t, "systemd's copy", func() bool {
			return strings.TrimSpace(m.Run(t, "systemctl", "show", "--value", "--property=NFileDescriptorStore", service)) == "1"
		})
		m.Run(t, "kill", "-KILL", strconv.Itoa(m.service(t).MainPID))
		m.WaitFor(t, "what was stored", func() bool { return m.ReadFile(t, "/var/lib/prefork/fleet/kept") != "" })
		if got := strings.TrimSpace(m.ReadFile(t, "/var/lib/prefork/fleet/kept")); got != "of process "+first {
			t.Errorf("%s: got %q, want that of process %s", m.Suite, got, first)
		}
	})
}

// TestWithoutDelegation: a unit that delegates nothing gets one notice, and what
// a worker leaves behind is found all the same; limits are then an error.
func TestWithoutDelegation(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.story(t)
		m.dropIn(t, "[Service]\nDelegate=no\nRestart=no\nDelegateSubgroup=\n")
		m.fleet(t, storyFloor, `
[worker.calm]
entry = "story:calm"
type = "notify"
notify_access = "all"
`)
		m.Run(t, "systemctl", "start", service)
		if got := strings.Count(m.Journal(t, service), "no control groups ("); got != 1 {
			t.Errorf("%s: %d notices, want 1", m.Suite, got)
		}
		m.Run(t, "systemctl", "stop", service)
		m.fleet(t, storyFloor, `
[worker.calm]
entry = "story:calm"
memory_max = "1G"
`)
		if _, code := m.Try("systemctl", "start", service); code == 0 {
			t.Errorf("%s: a fleet with limits starts without control groups", m.Suite)
		}
		u := m.service(t)
		if u.ExecMainStatus != 78 || !strings.Contains(u.StatusText, "worker.calm.memory_max: needs control groups") {
			t.Errorf("%s: %+v", m.Suite, u)
		}
	})
}
