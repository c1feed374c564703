// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"os"
	"strings"
	"testing"
)

// TestSlotsEndGently: what a main process leaves behind in its control group is
// asked to end, by a stop and after a crash, also in a group of its own, in another
// session, and stopped. What does not want to is killed.
func TestSlotsEndGently(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.WriteFile(t, "/opt/app/saves.sh", `
trap 'echo "$1 saved" >>/var/lib/prefork/fleet/told; exit 0' TERM
echo "$1 runs" >>/var/lib/prefork/fleet/told
while :; do sleep 0.1; done
`)
		m.WriteFile(t, "/opt/app/helped.py", `
import os, subprocess, time
from multiprocessing import shared_memory
HELPER = subprocess.Popen(["sh", "/opt/app/saves.sh", "helper"])
def hold():
    block = shared_memory.SharedMemory(name="prefork_test_%d" % os.getpid(), create=True, size=4096)
    time.sleep(1000)
`)
		m.fleet(t, `
[floor]
path = ["/opt/app"]
preload = ["helped"]

[defaults]
restart_sec = "100ms"

[worker.shared]
entry = "helped:hold"

[worker.shell]
exec = ["sh", "-c", "setsid sh /opt/app/saves.sh program & sh /opt/app/saves.sh other; :"]

[worker.pool]
exec = ["sh", "-c", "trap : TERM; sh /opt/app/saves.sh child & while ! wait $!; do :; done; echo 'main ends' >>/var/lib/prefork/fleet/told"]
kill_mode = "control-group"
timeout_stop_sec = "infinity"

[worker.stubborn]
exec = ["sh", "-c", "(trap '' TERM; exec sleep 12345) & exec sleep 12346"]
timeout_stop_sec = "2s"
`)
		told := func(line string) (n int) {
			for got := range strings.Lines(m.ReadFile(t, "/var/lib/prefork/fleet/told")) {
				if strings.TrimSpace(got) == line {
					n++
				}
			}
			return n
		}
		wait := func(line string, n int) {
			t.Helper()
			m.WaitFor(t, line, func() bool { return told(line) >= n })
		}
		m.Run(t, "systemctl", "start", service)
		for _, name := range []string{"helper", "program", "other", "child"} {
			wait(name+" runs", 1)
		}
		block := func() string { return strings.TrimSpace(m.Run(t, "sh", "-c", "ls /dev/shm | grep prefork_test || :")) }
		m.WaitFor(t, "shared memory", func() bool { return block() != "" })

		// The crash of a shell, one of whose programs is stopped.
		m.Run(t, "pkill", "-STOP", "--full", "saves.sh program$")
		m.Run(t, "sh", "-c", "kill -KILL $(ps -o ppid= -p $(pgrep --full --oldest '^sh /opt/app/saves.sh other$'))")
		wait("program runs", 2)
		wait("other runs", 2)
		if told("program saved") != 1 || told("other saved") != 1 {
			t.Errorf("%s: after the crash of their shell:\n%s", m.Suite, m.ReadFile(t, "/var/lib/prefork/fleet/told"))
		}

		// The crash of a worker that shares memory.
		before := block()
		m.Run(t, "kill", "-KILL", m.entries(t, "OBJECT_PID", "PREFORK_SLOT=shared.0", "PREFORK_EVENT=slot-ready")[0])
		m.WaitFor(t, "shared memory of the successor", func() bool { return block() != "" && block() != before })

		// The loss of a floor.
		m.Run(t, "pkill", "-KILL", "--full", `^prefork: floor \[fleet\]`)
		wait("helper runs", 2)
		if told("helper saved") != 1 {
			t.Errorf("%s: the helper of a lost floor was not asked to end", m.Suite)
		}

		m.Run(t, "systemctl", "stop", service)
		for line, want := range map[string]int{
			"helper saved": 2, "program saved": 2, "other saved": 2, "child saved": 1, "main ends": 1,
		} {
			if got := told(line); got != want {
				t.Errorf("%s: %q was told %d times, want %d", m.Suite, line, got, want)
			}
		}
		if left := block(); left != "" {
			t.Errorf("%s: shared memory is left: %s", m.Suite, left)
		}
		if out, code := m.Try("pgrep", "--full", "--list-full", "saves.sh|^sleep 1234|^prefork"); code != 1 {
			t.Errorf("%s: processes are left: %s", m.Suite, out)
		}
		if got := m.entries(t, "MESSAGE", "PREFORK_SLOT=stubborn.0", "PREFORK_EVENT=slot-left"); len(got) != 2 ||
			!strings.Contains(got[1], "did not end within") {
			t.Errorf("%s: about what stubborn.0 left behind: %q", m.Suite, got)
		}
		m.assertCleanStop(t)
	})
}

// TestGroupsOfAFleetThatStops: systemd, which removes them in the end, finds the
// control group of each slot when it signals the processes of the unit meanwhile.
// Before version 258 it gives up on one that goes away under its hands.
func TestGroupsOfAFleetThatStops(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, `
[worker.quick]
exec = ["sleep", "infinity"]
count = 5

[worker.slow]
exec = ["sh", "-c", "trap 'until [ -e /run/end ]; do sleep 0.1; done; exit 0' TERM; echo waits; while :; do sleep 1; done"]
timeout_stop_sec = "infinity"
`)
		found := func() string {
			return m.Run(t, "find", "/sys/fs/cgroup/system.slice", "-path", "*"+service+"/p-*", "-type", "d")
		}
		m.Run(t, "systemctl", "start", service)
		m.WaitFor(t, "its workers", func() bool { return strings.Contains(m.Journal(t, service), "waits") })
		before := found()
		m.Run(t, "systemctl", "stop", "--no-block", service)
		m.WaitFor(t, "the end of the quick ones", func() bool {
			return len(m.entries(t, "MESSAGE", "PREFORK_WORKER=quick", "PREFORK_EVENT=slot-exited")) == 5
		})
		if during := found(); before == "" || during != before {
			t.Errorf("%s: groups before the stop:\n%sand during it:\n%s", m.Suite, before, during)
		}
		m.Run(t, "systemctl", "kill", "--signal=CONT", service)
		m.WriteFile(t, "/run/end", "")
		m.WaitFor(t, "the end", func() bool { return m.service(t).ActiveState == "inactive" })
		m.assertCleanStop(t)
		if after := found(); after != "" {
			t.Errorf("%s: groups after the stop:\n%s", m.Suite, after)
		}
	})
}

// TestPlacesToWrite: what the unit keeps read-only is given to a fleet by the drop-in that
// the manual shows.
func TestPlacesToWrite(t *testing.T) {
	page, err := os.ReadFile("../man/prefork@.service.8")
	if err != nil {
		t.Fatal(err)
	}
	_, dropIn, _ := strings.Cut(string(page), "\n.Bd -literal -offset 2n\n[Service]\n# Made by systemd")
	dropIn, _, found := strings.Cut(dropIn, "\n.Ed\n")
	if !found {
		t.Fatal("the manual shows no drop-in")
	}
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, `
[worker.writer]
exec = ["sh", "-c", "for d in /var/log/shop /var/cache/shop /srv/uploads \"$HOME\"; do touch $d/it && echo $d >>$STATE_DIRECTORY/could; done; echo end >>$STATE_DIRECTORY/could; exec sleep 12345"]
`)
		m.Run(t, "install", "-d", "-o", "prefork", "/srv/uploads")
		could := func() (text string) {
			m.Run(t, "rm", "-f", "/var/lib/prefork/fleet/could")
			m.Run(t, "systemctl", "restart", service)
			m.WaitFor(t, "the worker", func() bool {
				text = m.Run(t, "sh", "-c", "cat /var/lib/prefork/fleet/could 2>/dev/null || :")
				return strings.HasSuffix(text, "end\n")
			})
			return text
		}
		if got := could(); got != "end\n" {
			t.Errorf("without it, it could write to %s", got)
		}
		m.WriteFile(t, "/etc/systemd/system/"+service+".d/places.conf", "[Service]\n# Made by systemd"+dropIn+"\n")
		m.Run(t, "systemctl", "daemon-reload")
		if got, want := could(), "/var/log/shop\n/var/cache/shop\n/srv/uploads\n/var/lib/prefork/fleet\nend\n"; got != want {
			t.Errorf("with it, it could write to %s", got)
		}
	})
}
