// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

const hostileWorkers = `
[worker.web]
entry = "story:greet"
sockets = ["http"]
type = "notify"
watchdog_sec = "5s"
`

// TestHostileNotifications has a worker send 100,000 datagrams of every bad kind
// while its sibling starts anew: that one is ready in time, no keep-alive is
// missed, and the master is no bigger after than before.
func TestHostileNotifications(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.story(t)
		m.dropIn(t, "[Service]\nWatchdogSec=5s\n")
		m.fleet(t, storyFloor, `
[worker.calm]
entry = "story:calm"
type = "notify"
timeout_start_sec = "20s"
watchdog_sec = "5s"
restart = "always"

[worker.hostile]
entry = "story:hostile"
file_descriptor_store_max = 4
`)
		m.Run(t, "systemctl", "start", service)
		master := m.service(t).MainPID
		idle, fds := m.memory(t, master), m.descriptors(t, master)
		m.tell(t, "attack")
		// What is heard of a slot in a second is bounded, so that all of it takes
		// longer than one fact may.
		parts := func() int { return len(strings.Fields(m.ReadFile(t, "/var/lib/prefork/fleet/sent"))) }
		m.WaitFor(t, "the first thousand datagrams", func() bool { return parts() > 0 })
		// By now it has the pages of its program that datagrams need.
		before := m.memory(t, master)
		calm := m.lastPID(t, "calm.0")
		m.Run(t, "kill", "-KILL", calm)
		m.WaitFor(t, "its successor", func() bool {
			now := m.lastPID(t, "calm.0")
			return now != calm && strings.HasPrefix(m.service(t).StatusText, "2/2 ready")
		})
		for done := 1; done <= 5; done++ {
			m.WaitFor(t, "another part of the attack", func() bool { return parts() > done })
		}
		m.WaitFor(t, "the end of the attack", func() bool { return m.exists(t, "/var/lib/prefork/fleet/done") })
		sent := strings.Fields(m.ReadFile(t, "/var/lib/prefork/fleet/done"))
		after := m.memory(t, master)
		t.Logf("%s: datagrams %v; the master's memory: %d kB idle, %d kB after the first thousand, %d kB after all", m.Suite, sent, idle, before, after)
		// A master that has just tidied up may be smaller than it was when it was idle. To keep
		// 40 bytes of each datagram would take as much.
		if after > max(idle, before)+3<<10 {
			t.Errorf("%s: the master has grown from %d and %d to %d kB", m.Suite, idle, before, after)
		}
		m.WaitFor(t, "descriptors closed", func() bool { return m.descriptors(t, master) <= fds+4 })
		u := m.service(t)
		if u.MainPID != master || u.NRestarts != 0 || u.ActiveState != "active" {
			t.Errorf("%s: %+v", m.Suite, u)
		}
		if got := m.entries(t, "MESSAGE", "PREFORK_EVENT=slot-watchdog"); len(got) != 0 {
			t.Errorf("%s: %q", m.Suite, got)
		}
		if got := m.entries(t, "MESSAGE", "--identifier=prefork", "PRIORITY=4"); len(got) > 5 {
			t.Errorf("%s: %d warnings, of which the first: %q", m.Suite, len(got), got[:5])
		}
	})
}

// lastPID is the pid of the process that became a slot last.
func (m machine) lastPID(t *testing.T, slot string) (pid string) {
	t.Helper()
	m.WaitFor(t, slot+" in the journal", func() bool { // which may be behind
		pids := m.entries(t, "OBJECT_PID", "PREFORK_SLOT="+slot, "PREFORK_EVENT=slot-ready")
		if len(pids) > 0 {
			pid = pids[len(pids)-1]
		}
		return pid != ""
	})
	return pid
}

// memory is the proportional set size of a process, in kB.
func (m machine) memory(t *testing.T, pid int) int {
	t.Helper()
	for line := range strings.Lines(m.Run(t, "cat", "/proc/"+strconv.Itoa(pid)+"/smaps_rollup")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			n, _ := strconv.Atoi(f[1]) // the kernel wrote it
			return n
		}
	}
	t.Fatalf("%s: process %d has no memory", m.Suite, pid)
	return 0
}

func (m machine) descriptors(t *testing.T, pid int) int {
	t.Helper()
	return len(strings.Fields(m.Run(t, "ls", "/proc/"+strconv.Itoa(pid)+"/fd")))
}

// TestJournalFlood has one slot write lines as fast as it can. The master's
// entries and those of its siblings are all there: the unit has no rate limit.
func TestJournalFlood(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.story(t)
		m.fleet(t, storyFloor, `
[worker.flood]
entry = "story:flood"

[worker.calm]
entry = "story:calm"
type = "notify"
restart = "always"
restart_sec = "100ms"
`)
		m.Run(t, "systemctl", "start", service)
		m.WaitFor(t, "the flood", func() bool { return m.exists(t, "/var/lib/prefork/fleet/flooded") })
		for range 5 {
			calm := m.lastPID(t, "calm.0")
			m.Run(t, "kill", "-KILL", calm)
			m.WaitFor(t, "its successor in the journal", func() bool { return m.lastPID(t, "calm.0") != calm })
		}
		if got := len(m.entries(t, "MESSAGE", "--identifier=calm.0")); got != 6 {
			t.Errorf("%s: calm.0 has said %d lines, want 6", m.Suite, got)
		}
		// What the machine shows if the test fails is then what matters.
		defer m.Try("sh", "-c", "journalctl --rotate; journalctl --vacuum-size=1M")
		if got := m.Run(t, "sh", "-c", "journalctl --no-pager -u systemd-journald | grep -c Suppressed || true"); strings.TrimSpace(got) != "0" {
			t.Errorf("%s: the journal has suppressed messages: %s", m.Suite, got)
		}
	})
}

// TestOperations does to a fleet that serves what operators do to services.
func TestOperations(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.story(t)
		m.dropIn(t, "[Service]\nWatchdogSec=6s\n")
		m.fleet(t, storyFloor, httpTable, hostileWorkers)
		m.Run(t, "systemctl", "start", service)
		first := m.greeted(t)
		master := m.service(t).MainPID
		serves := func(after string) {
			t.Helper()
			if got := m.greeted(t); got != first {
				t.Errorf("%s: after %s process %s answers, before %s", m.Suite, after, got, first)
			}
			if u := m.service(t); u.MainPID != master || u.ActiveState != "active" || u.NRestarts != 0 {
				t.Errorf("%s: after %s: %+v", m.Suite, after, u)
			}
		}
		m.Run(t, "systemctl", "daemon-reload")
		serves("daemon-reload")
		m.Run(t, "systemctl", "daemon-reexec")
		serves("daemon-reexec")
		m.Run(t, "systemctl", "reset-failed", service)
		serves("reset-failed")
		m.Run(t, "systemctl", "restart", "systemd-journald")
		serves("a restart of the journal")
		m.Run(t, "systemctl", "kill", "--signal=SIGHUP", "--kill-whom=main", service)
		m.WaitFor(t, "the answer to SIGHUP in the journal", func() bool {
			return strings.Contains(m.Journal(t, service), "reload 1 is done: nothing has changed")
		})
		serves("SIGHUP")
		m.frozen(t)
		serves("freeze and thaw")
		m.stopped(t)
		serves("SIGSTOP and SIGCONT of all its processes")

		// Of all processes: the master stops the fleet, and systemd has no reason
		// to start it again.
		m.Run(t, "systemctl", "kill", service)
		m.WaitFor(t, "the end", func() bool { return m.service(t).ActiveState == "inactive" })
		if u := m.service(t); u.Result != "success" {
			t.Errorf("%s: after systemctl kill: %+v", m.Suite, u)
		}
		if got := m.greeted(t); got == first { // the socket is still there
			t.Errorf("%s: process %s answers after its end", m.Suite, got)
		}
		m.Run(t, "systemctl", "kill", "--signal=SIGKILL", service)
		m.WaitFor(t, "another master", func() bool { u := m.service(t); return u.ActiveState == "active" && u.NRestarts == 1 })
		m.greeted(t)
	})
}

// greeted asks story.greet for its pid.
func (m machine) greeted(t *testing.T) string {
	t.Helper()
	return m.Run(t, "curl", "-sS", "--max-time", "60", "http://127.0.0.1:8080/")
}

// frozen freezes the unit for longer than the watchdogs of workers and of the
// master. A systemd before 257 counts the time of the freezer against the master,
// so that its watchdogs have to be off, as the README says.
func (m machine) frozen(t *testing.T) {
	t.Helper()
	if m.SystemdVersion < 257 {
		m.Run(t, "systemctl", "service-watchdogs", "no")
	}
	m.Run(t, "systemctl", "freeze", service)
	time.Sleep(longerThanWatchdogs) // the time is what is tested
	m.Run(t, "systemctl", "thaw", service)
	m.aBeatLater(t)
	m.Run(t, "systemctl", "service-watchdogs", "yes")
}

// longerThanWatchdogs is longer than those of the master and of the workers.
const longerThanWatchdogs = 7 * time.Second

// stopped stops all processes of the unit for as long. systemd rightly ends a
// master that is stopped, but for its workers' sake it is to be left alone here.
func (m machine) stopped(t *testing.T) {
	t.Helper()
	m.Run(t, "systemctl", "service-watchdogs", "no")
	m.Run(t, "systemctl", "kill", "--signal=SIGSTOP", service)
	time.Sleep(longerThanWatchdogs) // the same
	m.Run(t, "systemctl", "kill", "--signal=SIGCONT", service)
	m.aBeatLater(t)
	m.Run(t, "systemctl", "service-watchdogs", "yes")
}

// aBeatLater waits until the master's watchdog has been served anew, and so has
// had the time to do something wrong.
func (m machine) aBeatLater(t *testing.T) {
	t.Helper()
	since := m.service(t).Watchdog
	m.WaitFor(t, "two keep-alives of the master", func() bool { return m.service(t).Watchdog > since+5*time.Second })
	if got := m.entries(t, "MESSAGE", "PREFORK_EVENT=slot-watchdog"); len(got) != 0 {
		t.Errorf("%s: %q", m.Suite, got)
	}
}

// TestStuckJournal stops the journal's process for a while, as if its disk did not
// answer: nothing of the fleet waits for it, and what happened meanwhile is told
// later.
func TestStuckJournal(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.story(t)
		m.dropIn(t, "[Service]\nWatchdogSec=5s\n")
		m.fleet(t, storyFloor, httpTable, `
[worker.web]
entry = "story:greet"
sockets = ["http"]
restart_sec = "10ms"
restart_max_delay_sec = "100ms"
`)
		m.Run(t, "systemctl", "start", service)
		last := m.greeted(t)
		master := m.service(t)
		m.Run(t, "pkill", "-STOP", "systemd-journal")
		for range 10 {
			m.Run(t, "kill", "-KILL", last)
			// Who is being killed may still have taken the connection.
			m.WaitFor(t, "the answer of another process", func() bool {
				next, code := m.Try("curl", "-sS", "--max-time", "60", "http://127.0.0.1:8080/")
				if code != 0 || next == last {
					return false
				}
				last = next
				return true
			})
		}
		m.WaitFor(t, "keep-alives of the master", func() bool { return m.service(t).Watchdog > master.Watchdog+6*time.Second })
		m.Run(t, "pkill", "-CONT", "systemd-journal")
		if u := m.service(t); u.MainPID != master.MainPID || u.NRestarts != 0 {
			t.Errorf("%s: %+v", m.Suite, u)
		}
		m.WaitFor(t, "all entries", func() bool {
			return len(m.entries(t, "MESSAGE", "PREFORK_SLOT=web.0", "PREFORK_EVENT=slot-restarts")) == 10
		})
	})
}
