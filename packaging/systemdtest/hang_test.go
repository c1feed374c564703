// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"strings"
	"testing"
)

const hangs = `
import asyncio, ctypes, threading, time

def lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

def sleep():
    time.sleep(1e6)

def c():
    mutex = ctypes.create_string_buffer(64)
    lock = ctypes.PyDLL(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)

async def loop():
    await asyncio.get_running_loop().create_future()
`

// TestHungSlotsSayWhere: the journal shows under the name of each slot where it hung when
// its watchdog ended it; of a program the master says it. An operator gets the same of one
// that lives.
func TestHungSlotsSayWhere(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.WriteFile(t, "/opt/app/hangs.py", hangs)
		m.fleet(t, `
[floor]
path = ["/opt/app"]
preload = ["hangs"]
[defaults]
restart = "no"
watchdog_sec = "2s"
[worker.lock]
entry = "hangs:lock"
[worker.sleep]
entry = "hangs:sleep"
[worker.c]
entry = "hangs:c"
[worker.loop]
entry = "hangs:loop"
[worker.program]
exec = ["sleep", "1000"]
[worker.well]
entry = "hangs:loop"
watchdog_sec = 0
`)
		m.Run(t, "systemctl", "start", service)
		m.waitForStatus(t, "1/6 ready")
		said := func(slot string) string {
			return strings.Join(m.entries(t, "MESSAGE", "_SYSTEMD_UNIT="+service, "SYSLOG_IDENTIFIER="+slot), "\n") + "\n"
		}
		for _, name := range []string{"lock", "sleep", "c", "loop"} {
			if got := said(name + ".0"); !strings.Contains(got, " in "+name+"\n") {
				t.Errorf("%s: %s.0 does not say where it hangs:\n%s", m.Suite, name, got)
			}
		}
		if got := said("loop.0"); !strings.Contains(got, "Task 'Task-1' waits for Future") {
			t.Errorf("%s: no task in:\n%s", m.Suite, got)
		}
		about := strings.Join(m.entries(t, "MESSAGE", "PREFORK_SLOT=program.0", "SYSLOG_IDENTIFIER=prefork"), "\n")
		if !strings.Contains(about, "program.0: thread ") || !strings.Contains(about, "(sleep) sleeps") {
			t.Errorf("%s: where the program hangs is not in:\n%s", m.Suite, about)
		}
		if out := m.Run(t, "prefork", "stacks", "fleet", "well.0"); !strings.Contains(out, "prefork logs fleet well.0:\n  thread ") {
			t.Errorf("%s: stacks prints\n%s", m.Suite, out)
		}
		m.WaitFor(t, "the stacks of one that is well", func() bool { return strings.Contains(said("well.0"), "Task 'Task-1' waits for Future") })
		m.waitForStatus(t, "1/6 ready")
	})
}
