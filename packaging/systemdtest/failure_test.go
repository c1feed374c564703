// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

const webTable = `
[worker.web]
entry = "app:serve"
count = 8
sockets = ["http"]
`

// TestCrashLoopBacksOff has a worker that fails at once beside a good one. On
// the newest systemd the delays are the real ones, from 1 s to 30 s; elsewhere
// they are a tenth of them, which shows the same in a tenth of the time.
func TestCrashLoopBacksOff(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		unit, keys := 100*time.Millisecond, `
restart_sec = "100ms"
restart_max_delay_sec = "3s"
`
		if m.Suite == "forky" {
			unit, keys = time.Second, "" // the defaults
		}
		m.fleet(t, `ready_when = 1`, floorTable, httpTable, `
[worker.good]
entry = "app:serve"
sockets = ["http"]

[worker.bad]
entry = "app:crash"
`+keys)
		m.Run(t, "systemctl", "start", httpSocket, service)
		good := m.mustAsk(t)
		master := m.service(t).MainPID

		want := []time.Duration{1, 2, 4, 8, 16, 30}
		m.WaitFor(t, "seven starts of bad.0", func() bool { return len(m.times(t)) > len(want) })
		starts := m.times(t)
		for i := range want {
			least := want[i] * unit
			// Up to a tenth of jitter, and what a busy machine needs to fork.
			most := least + least/10 + 2*time.Second
			if got := starts[i+1] - starts[i]; got < least || got > most {
				t.Errorf("%s: restart %d came after %v, want %v to %v", m.Suite, i+1, got, least, most)
			}
		}
		if r := m.mustAsk(t); r.PID != good.PID {
			t.Errorf("%s: good.0 was process %d and is %d", m.Suite, good.PID, r.PID)
		}
		// It is ready for a moment before it ends.
		m.WaitFor(t, "bad.0 in STATUS", func() bool { return strings.Contains(m.service(t).StatusText, "bad.0") })
		u := m.service(t)
		if u.NRestarts != 0 || u.MainPID != master {
			t.Errorf("%s: %+v", m.Suite, u)
		}
	})
}

// TestStoppedMasterIsReplaced lets systemd's watchdog find a master that does
// not move.
func TestStoppedMasterIsReplaced(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.dropIn(t, "[Service]\nWatchdogSec=3s\n")
		m.fleet(t, floorTable, httpTable, webTable)
		m.Run(t, "systemctl", "start", httpSocket, service)
		before := m.service(t).MainPID
		m.Run(t, "kill", "-STOP", strconv.Itoa(before))
		m.WaitFor(t, "another master", func() bool {
			u := m.service(t)
			return u.ActiveState == "active" && u.MainPID != before && u.NRestarts == 1
		})
		m.workers(t, 8)
		// The second master serves the watchdog for longer than it would survive
		// without.
		second := m.service(t)
		m.WaitFor(t, "served watchdog", func() bool {
			return m.service(t).Watchdog >= second.Watchdog+6*time.Second
		})
		if u := m.service(t); u.MainPID != second.MainPID || u.NRestarts != 1 {
			t.Errorf("%s: the second master did not last: %+v", m.Suite, u)
		}
	})
}

// TestLostZygoteTouchesNoWorker kills the floor under eight serving workers,
// then two of them.
func TestLostZygoteTouchesNoWorker(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, floorTable, httpTable, webTable)
		m.Run(t, "systemctl", "start", httpSocket, service)
		before := m.workers(t, 8)
		zygotes := m.zygotes(t)
		if len(zygotes) != 1 {
			t.Fatalf("%s: zygotes: %v", m.Suite, zygotes)
		}
		m.Run(t, "kill", "-KILL", strconv.Itoa(zygotes[0]))
		m.WaitFor(t, "another zygote", func() bool {
			now := m.zygotes(t)
			return len(now) == 1 && now[0] != zygotes[0]
		})
		m.waitForStatus(t, "8/8 ready")
		for slot, r := range m.workers(t, 8) {
			if r.PID != before[slot].PID || r.Generation != 1 {
				t.Errorf("%s: %s was %+v and is %+v", m.Suite, slot, before[slot], r)
			}
		}

		// The first successor may be a spare that the lost zygote has forked: it
		// is as good. The second is forked from the new floor.
		m.replace(t, before["web.3"])
		if r := m.replace(t, before["web.4"]); r.Generation != 2 {
			t.Errorf("%s: the second successor is %+v, want generation 2", m.Suite, r)
		}
		if u := m.service(t); u.NRestarts != 0 {
			t.Errorf("%s: %+v", m.Suite, u)
		}
	})
}

// replace kills a worker of webTable and returns its successor's answer.
func (m machine) replace(t *testing.T, old reply) reply {
	t.Helper()
	m.Run(t, "kill", "-KILL", strconv.Itoa(old.PID))
	var r reply
	lost := 0
	m.WaitFor(t, "successor of "+old.Slot, func() bool {
		now, err := m.ask()
		if err != nil {
			lost++ // who was killed may have accepted it before
		}
		r = now
		return r.Slot == old.Slot && r.PID != old.PID
	})
	if lost > 1 {
		t.Errorf("%s: %d connections are lost with one worker", m.Suite, lost)
	}
	return r
}
