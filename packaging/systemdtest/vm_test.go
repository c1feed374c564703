// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/packaging/systemdtest"
	"github.com/decnet/prefork/supervisor/memory"
)

const limitsFleet = `
[floor]
path = ["/opt/app"]
preload = ["limits"]
setup = "limits:load"

[worker.calm]
entry = "limits:calm"

[worker.hungry]
entry = "limits:hungry"
memory_max = "48M"
restart_sec = "100ms"

[worker.leak]
entry = "limits:leak"
recycle_private = "24M"
settle_sec = 0

[worker.bomb]
entry = "limits:bomb"
tasks_max = 20

[worker.busy]
entry = "limits:busy"
cpu_quota = "20%"
cpu_weight = 10

[worker.program]
exec = ["/bin/sleep", "infinity"]
memory_high = "32M"
io_weight = 50
`

// vm is a virtual machine with a fleet that has limits.
type vm struct{ *systemdtest.VM }

const unitGroup = "/sys/fs/cgroup/system.slice/system-prefork.slice/prefork@fleet.service"

// group is the control group of a slot, by its mark.
func (m vm) group(t *testing.T, slot string) string {
	t.Helper()
	out := m.Run(t, "python3", "-c", `
import os, sys
top = sys.argv[1]
for name in sorted(os.listdir(top)):
    try:
        if os.getxattr(os.path.join(top, name), "user.prefork.slot").decode() == sys.argv[2]:
            print(os.path.join(top, name))
    except OSError:
        pass
`, unitGroup, slot)
	if groups := strings.Fields(out); len(groups) == 1 {
		return groups[0]
	}
	t.Fatalf("%s: the control groups of %s: %q", m.Suite, slot, out)
	return ""
}

func (m vm) number(t *testing.T, path string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(m.Run(t, "cat", path)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (m vm) journal(t *testing.T, matches ...string) string {
	t.Helper()
	m.Run(t, "journalctl", "--sync")
	return m.Run(t, append([]string{"journalctl", "--no-pager", "--output=cat"}, matches...)...)
}

// TestLimits is about what only a kernel with all controllers can do.
func TestLimits(t *testing.T) {
	for _, suite := range systemdtest.VMSuites {
		t.Run(suite, func(t *testing.T) {
			program, err := os.ReadFile("testdata/limits.py")
			if err != nil {
				t.Fatal(err)
			}
			m := vm{systemdtest.BootVM(t, suite, systemdtest.InstallPrefork,
				systemdtest.File("/opt/app/limits.py", string(program)),
				systemdtest.File("/etc/prefork/fleet.toml", limitsFleet))}
			m.Run(t, "systemctl", "start", service)
			m.floorIsChargedOnce(t)
			m.onlyTheHungryOneIsKilled(t)
			m.leakIsRecycled(t)
			m.forkBombIsStopped(t)
			m.quotaHolds(t)
			m.killedMasterIsReplaced(t)
			m.Run(t, "systemctl", "stop", service)
			if out, code := m.Try("test", "-e", unitGroup); code == 0 {
				t.Errorf("%s: the unit's control group is left: %s", suite, out)
			}
			m.countIsOfTheQuota(t)
		})
	}
}

// countIsOfTheQuota: a count of processors is that of the unit, and is counted again when
// the file is read again; who checks the file elsewhere is told so.
func (m vm) countIsOfTheQuota(t *testing.T) {
	t.Helper()
	const unit = "prefork@counted.service"
	m.Run(t, "sh", "-c", `mkdir -p /etc/prefork /run/systemd/system/`+unit+`.d &&
		printf '[Service]\nCPUQuota=50%%\n' >/run/systemd/system/`+unit+`.d/quota.conf &&
		printf '[worker.w]\nexec = ["sleep", "infinity"]\ncount = "2*cpu+1"\n' >/etc/prefork/counted.toml && systemctl daemon-reload`)
	status := func() string { return m.Run(t, "systemctl", "show", "--value", "-p", "StatusText", unit) }
	m.Run(t, "systemctl", "start", unit)
	if got := status(); !strings.HasPrefix(got, "3/3 ready") {
		t.Errorf("%s: %s with half a processor", m.Suite, got)
	}
	if got := m.journal(t, "-u", unit); !strings.Contains(got, "worker.w.count is 3: 2*cpu+1 with 1 processor (2 by affinity, 0.5 by cpu.max)") {
		t.Errorf("%s: the journal does not say why: %s", m.Suite, got)
	}
	if out, _ := m.Try("sh", "-c", "prefork check counted 2>&1"); !strings.Contains(out, "count = 5  # 2*cpu+1 with 2 processors") ||
		!strings.Contains(out, "5 is what it is here") {
		t.Errorf("%s: check, outside of the unit: %s", m.Suite, out)
	}
	m.Run(t, "systemctl", "set-property", "--runtime", unit, "CPUQuota=150%")
	m.Run(t, "systemctl", "reload", unit)
	if got := status(); !strings.HasPrefix(got, "5/5 ready") {
		t.Errorf("%s: %s with one and a half", m.Suite, got)
	}
	m.Run(t, "systemctl", "stop", unit)
}

// floorIsChargedOnce: the pages of the floor belong to the zygote's group, also
// when a worker has read them all.
func (m vm) floorIsChargedOnce(t *testing.T) {
	t.Helper()
	m.WaitFor(t, "calm.0", func() bool { return m.ReadFile("/var/lib/prefork/fleet/calm") != "" })
	floor, calm := m.number(t, unitGroup+"/floor-1/memory.current"), m.number(t, m.group(t, "calm.0")+"/memory.current")
	master := m.number(t, unitGroup+"/supervisor/memory.current")
	t.Logf("%s: memory charged: floor %.1f MB, calm.0 %.1f MB, master %.1f MB", m.Suite,
		float64(floor)/1e6, float64(calm)/1e6, float64(master)/1e6)
	if floor < 64<<20 || calm > 16<<20 {
		t.Errorf("%s: the floor is charged %d bytes and calm.0 %d", m.Suite, floor, calm)
	}
	var told memory.Report
	if err := json.Unmarshal([]byte(m.Run(t, "prefork", "memory", "--json", "fleet", "calm.0")), &told); err != nil {
		t.Fatal(err)
	}
	if f, s := told.Floors[0], told.Slots[0]; f.Charged < 64<<20 || s.Charged == 0 || s.Charged > 16<<20 || s.Shared < 64<<20 || f.Problem+s.Problem != "" {
		t.Errorf("%s: prefork memory tells of the floor %+v, and of calm.0 %+v", m.Suite, f, s)
	}
}

// leakIsRecycled: recycle_private counts what all processes of a slot have written, and
// none of the floor, which is larger.
func (m vm) leakIsRecycled(t *testing.T) {
	t.Helper()
	pid := m.ReadFile("/var/lib/prefork/fleet/leak")
	m.Run(t, "touch", "/run/told/leak")
	m.WaitFor(t, "the successor of leak.0", func() bool {
		now := m.ReadFile("/var/lib/prefork/fleet/leak")
		return now != "" && now != pid
	})
	m.WaitFor(t, "what is told of it", func() bool {
		return m.journal(t, "PREFORK_SLOT=leak.0", "PREFORK_EVENT=slot-recycled") != ""
	})
	got := m.journal(t, "PREFORK_SLOT=leak.0", "PREFORK_EVENT=slot-recycled")
	if !regexp.MustCompile(`^leak\.0: recycled: 3[2-9](\.\d)?M private`).MatchString(got) || strings.Count(got, "\n") != 1 {
		t.Errorf("%s: about leak.0: %q", m.Suite, got)
	}
}

// onlyTheHungryOneIsKilled: memory_max ends one slot, all of it, with its own
// result, while another goes on.
func (m vm) onlyTheHungryOneIsKilled(t *testing.T) {
	t.Helper()
	pid := m.ReadFile("/var/lib/prefork/fleet/hungry")
	m.Run(t, "sh", "-c", "mkdir -p /run/told; touch /run/told/eat")
	m.WaitFor(t, "the successor of hungry.0", func() bool {
		now := m.ReadFile("/var/lib/prefork/fleet/hungry")
		return now != "" && now != pid
	})
	// Its child may still be dying when it is looked for: that is another entry.
	if got := m.journal(t, "PREFORK_SLOT=hungry.0", "PREFORK_EVENT=slot-oom-killed", "PREFORK_RESULT=oom-kill"); strings.Count(got, "out of memory") != 1 {
		t.Errorf("%s: about hungry.0: %q", m.Suite, got)
	} else {
		t.Logf("%s: %s", m.Suite, strings.TrimSpace(got))
	}
	peak := strings.TrimSpace(m.Run(t, "sh", "-c",
		"journalctl --output=json PREFORK_SLOT=hungry.0 PREFORK_EVENT=slot-oom-killed | grep -o '\"MEMORY_PEAK\" *: *\"[0-9]*\"' | grep -o '[0-9]*'; true"))
	// Kernel 6.1 has memory.peak: it came with 5.19.
	if n, _ := strconv.Atoi(peak); n < 40<<20 || n > 50<<20 {
		t.Errorf("%s: its peak was %q, want a little less than 48 MB", m.Suite, peak)
	}
	before := m.ReadFile("/var/lib/prefork/fleet/calm")
	m.WaitFor(t, "calm.0 to count on", func() bool { return m.ReadFile("/var/lib/prefork/fleet/calm") != before })
	if got := m.journal(t, "PREFORK_SLOT=calm.0", "PREFORK_EVENT=slot-restarts"); strings.Contains(got, "calm.0") {
		t.Errorf("%s: calm.0 was touched: %s", m.Suite, got)
	}
}

func (m vm) forkBombIsStopped(t *testing.T) {
	t.Helper()
	m.Run(t, "touch", "/run/told/fork")
	m.WaitFor(t, "the end of the bomb", func() bool { return m.ReadFile("/var/lib/prefork/fleet/bomb") != "" })
	// 20 tasks are the worker and 19 children; 11 is EAGAIN.
	if got := m.ReadFile("/var/lib/prefork/fleet/bomb"); got != "19 11" {
		t.Errorf("%s: the bomb has made %q children and errno", m.Suite, got)
	}
	if got := m.number(t, m.group(t, "bomb.0")+"/pids.current"); got != 20 {
		t.Errorf("%s: %d tasks in bomb.0, want 20", m.Suite, got)
	}
}

// quotaHolds compares the processor time of a slot with the time that passes.
func (m vm) quotaHolds(t *testing.T) {
	t.Helper()
	m.Run(t, "touch", "/run/told/run")
	used := func() (cpu, passed time.Duration) {
		out := m.Run(t, "sh", "-c", "cut -d ' ' -f 1 /proc/uptime; grep usage_usec "+m.group(t, "busy.0")+"/cpu.stat")
		f := strings.Fields(out)
		up, err1 := strconv.ParseFloat(f[0], 64)
		usec, err2 := strconv.ParseInt(f[2], 10, 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("%s: %q", m.Suite, out)
		}
		return time.Duration(usec) * time.Microsecond, time.Duration(up * float64(time.Second))
	}
	m.WaitFor(t, "busy.0 to be busy", func() bool { cpu, _ := used(); return cpu > time.Second })
	cpu, passed := used()
	m.WaitFor(t, "time to pass", func() bool { _, now := used(); return now > passed+5*time.Second })
	cpu2, passed2 := used()
	share := float64(cpu2-cpu) / float64(passed2-passed)
	t.Logf("%s: busy.0 used %.0f %% of a processor for %s", m.Suite, 100*share, passed2-passed)
	if share > 0.25 {
		t.Errorf("%s: busy.0 used %.2f of a processor, want at most 0.20", m.Suite, share)
	}
}

// killedMasterIsReplaced: systemd must be able to start the service in a group
// that has controllers and that an earlier master has divided.
func (m vm) killedMasterIsReplaced(t *testing.T) {
	t.Helper()
	main := func() string {
		return strings.TrimSpace(m.Run(t, "systemctl", "show", "--value", "--property=MainPID", service))
	}
	before := main()
	m.Run(t, "kill", "-KILL", before)
	m.WaitFor(t, "another master", func() bool {
		state := strings.TrimSpace(m.Run(t, "systemctl", "show", "--value", "--property=ActiveState", service))
		return state == "active" && main() != before
	})
}
