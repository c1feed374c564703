// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// allow installs a shipped drop-in for a fleet, as its comment says.
func (m machine) allow(t *testing.T, fleet, dropIn string) {
	t.Helper()
	m.Run(t, "install", "-D", "-m0644", "-t", "/etc/systemd/system/prefork@"+fleet+".service.d", "/usr/share/prefork/"+dropIn+".conf")
	m.Run(t, "systemctl", "daemon-reload")
}

// dropIns are the names of those that are shipped.
func dropIns(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("../../units/drop-ins/*.conf")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%v, %v", paths, err)
	}
	for i, path := range paths {
		paths[i] = strings.TrimSuffix(filepath.Base(path), ".conf")
	}
	return paths
}

// everySocket has each setting that a socket unit can have.
const everySocket = `
[socket.http]
listen = ["0.0.0.0:8080", "[::]:8080", "@web"]
reuse_port = true
free_bind = true

[socket.mixed]
listen = ["0.0.0.0:8090", "[::]:8090", "8091", "[fe80::1%%lo]:8092"]

[socket.file]
listen = ["/var/run/a file at 100%%.sock"]
type = "seqpacket"
mode = "0600"
user = "root"
group = "0"

[socket.log]
listen = ["127.0.0.1:8093", "/run/log.sock"]
type = "datagram"

[worker.web]
exec = ["sleep", "infinity"]
sockets = ["http", "mixed", "file", "log"]
`

// TestUnitsAreValid wants no word from systemd about what is shipped and what
// is generated, with each drop-in and with all of them.
func TestUnitsAreValid(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		units := []string{"/usr/lib/systemd/system/prefork@.service"}
		for _, start := range []string{"manual", "boot", "connection"} {
			fleet := "every-" + start
			text := strings.NewReplacer(":80", ":"+strconv.Itoa(80+len(units)), "@web", "@"+start, ".sock", start+".sock").Replace(everySocket)
			m.WriteFile(t, "/etc/prefork/"+fleet+".toml", `start = "`+start+`"`+text)
			units = append(units, "prefork@"+fleet+".service")
			for _, socket := range []string{"http", "mixed", "mixed:ipv6", "file", "log"} {
				units = append(units, "prefork-"+fleet+":"+socket+".socket")
			}
		}
		for _, name := range dropIns(t) {
			m.WriteFile(t, "/etc/prefork/"+name+".toml", httpTable)
			m.allow(t, name, name)
			m.allow(t, "all", name)
			units = append(units, "prefork@"+name+".service", "prefork-"+name+":http.socket")
		}
		units = append(units, "prefork@all.service")
		for _, unit := range units {
			if out := m.Run(t, "systemd-analyze", "verify", "--man=no", m.verifiable(t, unit)); out != "" {
				t.Errorf("%s: systemd-analyze verify %s: %s", m.Suite, unit, out)
			}
		}
		// Nor did it say anything when it read them.
		m.Run(t, "journalctl", "--sync")
		journal := m.Run(t, "journalctl", "--no-pager", "--output=cat", "--boot")
		for line := range strings.Lines(journal) {
			if strings.Contains(line, "/system/prefork") || strings.Contains(line, "/generator/") || strings.Contains(line, "prefork-generator") {
				t.Errorf("%s: in the journal: %s", m.Suite, line)
			}
		}
	})
}

// verifiable is what systemd-analyze can be told of a unit: it takes a colon for
// the beginning of an alias, so that a generated socket needs another name.
func (m machine) verifiable(t *testing.T, unit string) string {
	t.Helper()
	if !strings.Contains(unit, ":") {
		return unit
	}
	copied := "/run/verify/" + strings.ReplaceAll(unit, ":", "-")
	m.WriteFile(t, copied, m.ReadFile(t, "/run/systemd/generator/"+unit))
	return copied
}

// TestHardening has systemd's mark of the shipped unit, at most 2.0, and notes
// those with the drop-ins.
func TestHardening(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, floorTable, webTable, httpTable)
		unit := "/usr/lib/systemd/system/prefork@.service"
		for _, args := range [][]string{{service}, {"--offline=true", unit}} {
			args = append([]string{"systemd-analyze", "security", "--no-pager", "--threshold=20"}, args...)
			out, code := m.Try(args...)
			t.Logf("%s: %s", m.Suite, lastLine(out))
			if code != 0 {
				t.Errorf("%s: %s:\n%s", m.Suite, strings.Join(args, " "), out)
			}
		}
		for _, name := range dropIns(t) {
			m.allow(t, name, name)
			out, _ := m.Try("systemd-analyze", "security", "--no-pager", "prefork@"+name+".service")
			t.Logf("%s: with %s.conf: %s", m.Suite, name, lastLine(out))
		}
	})
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// TestNewerSystemd gets what it has and the oldest does not know.
func TestNewerSystemd(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.fleet(t, "[worker.w]\nexec = [\"sleep\", \"infinity\"]\n")
		got := m.Run(t, "systemctl", "show", "--property=DelegateSubgroup,RestartSteps,RestartMaxDelayUSec", service)
		want := []string{"RestartSteps=8", "RestartMaxDelayUSec=30s", "DelegateSubgroup=supervisor"}
		if m.SystemdVersion < 254 {
			want = []string{""}
		}
		if lines := strings.Split(strings.TrimSpace(got), "\n"); len(lines) != len(want) {
			t.Errorf("%s: %s", m.Suite, got)
		} else {
			for _, line := range lines {
				if !slices.Contains(want, line) {
					t.Errorf("%s: got %s, want %q", m.Suite, line, want)
				}
			}
		}
		// The master is in a leaf of its own, whoever has put it there.
		m.Run(t, "systemctl", "start", service)
		cgroup := m.Run(t, "cat", fmt.Sprintf("/proc/%d/cgroup", m.service(t).MainPID))
		if !strings.HasSuffix(strings.TrimSpace(cgroup), "/"+service+"/supervisor") {
			t.Errorf("%s: the master is in %s", m.Suite, cgroup)
		}
	})
}

// probe tries what the sandbox is about, and what it must leave alone.
const probe = `
import ctypes, errno, json, mmap, os, socket, sys

def attempt(call):
    try:
        call()
    except OSError as e:
        return errno.errorcode[e.errno]
    return "done"

def touch(path):
    return lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))

libc = ctypes.CDLL(None, use_errno=True)

def unshare():
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
found = {
    "user": os.getuid() != 0,
    "state": attempt(touch(os.environ["STATE_DIRECTORY"] + "/file")),
    "runtime": attempt(touch(os.environ["RUNTIME_DIRECTORY"] + "/file")),
    "tmp": attempt(touch("/tmp/file")),
    "etc": attempt(touch("/etc/prefork/file")),
    "home": attempt(lambda: os.listdir("/root")),
    "code": attempt(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)),
    "nice": attempt(lambda: os.setpriority(os.PRIO_PROCESS, 0, 5)),
    "packet": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "namespace": attempt(unshare),
    "netlink": attempt(socket.if_nameindex),
    "others": os.path.exists("/proc/1"),
    "capabilities": int(status["CapBnd"], 16) | int(status["CapPrm"], 16),
    "privileges": status["NoNewPrivs"].strip(),
    "oom": open("/proc/self/oom_score_adj").read().strip(),
}
with open(os.environ["STATE_DIRECTORY"] + "/found", "w") as file:
    json.dump(found, file)
`

// TestSandbox has a worker try what the unit forbids: it is an error for the
// worker, never its death, and what workers need works.
func TestSandbox(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.WriteFile(t, "/opt/app/probe.py", probe)
		m.fleet(t, `
[worker.probe]
exec = ["python3", "/opt/app/probe.py"]
`)
		m.Run(t, "systemctl", "start", service)
		m.WaitFor(t, "the end of the fleet", func() bool { return m.service(t).ActiveState == "inactive" })
		got := map[string]any{}
		if err := json.Unmarshal([]byte(m.ReadFile(t, "/var/lib/prefork/fleet/found")), &got); err != nil {
			t.Fatalf("%s: %v\n%s", m.Suite, err, m.Journal(t, service))
		}
		for what, want := range map[string]any{
			"user": true, "state": "done", "runtime": "done", "tmp": "done", "etc": "EROFS", "home": "EACCES", "code": "done",
			"nice": "EPERM", "packet": "EAFNOSUPPORT", "namespace": "EPERM", "netlink": "done", "others": false,
			"capabilities": 0.0, "privileges": "1", "oom": "0",
		} {
			if got[what] != want {
				t.Errorf("%s: %s: got %v, want %v", m.Suite, what, got[what], want)
			}
		}
	})
}

// jobsMayEnd is a file for which the jobs of the queue wait.
const jobsMayEnd = "/run/jobs-may-end"

// assertForbidden wants the start to fail with the name of the drop-in that
// allows it.
func (m machine) assertForbidden(t *testing.T, unit, dropIn string) {
	t.Helper()
	if _, code := m.Try("systemctl", "start", unit); code == 0 {
		t.Errorf("%s: %s starts without %s.conf", m.Suite, unit, dropIn)
	}
	if journal := m.Journal(t, unit); !strings.Contains(journal, "/usr/share/prefork/"+dropIn+".conf") {
		t.Errorf("%s: %s does not say that it needs %s.conf:\n%s", m.Suite, unit, dropIn, journal)
	}
	m.Run(t, "systemctl", "stop", unit)
}

// TestHomesAreHidden: what lies in a home is an error at start that names the
// drop-in, and works with it.
func TestHomesAreHidden(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.WriteFile(t, "/home/app/serve.py", m.ReadFile(t, "/opt/app/app.py"))
		m.fleet(t, httpTable, `
[floor]
path = ["/home/app"]

[worker.web]
entry = "serve:serve"
sockets = ["http"]
working_directory = "/home/app"
`)
		m.assertForbidden(t, service, "home")
		m.allow(t, "fleet", "home")
		m.Run(t, "systemctl", "start", service)
		m.mustAsk(t)
	})
}

// TestForkedWorkerComesFirst: what is forked from a floor has no capability, and
// gets its priority all the same.
func TestForkedWorkerComesFirst(t *testing.T) {
	onEachSuite(t, func(t *testing.T, m machine) {
		m.allow(t, "fleet", "priorities")
		m.fleet(t, floorTable, httpTable, `
[worker.web]
entry = "app:serve"
sockets = ["http"]
nice = -5
limit_nofile = "2000:3000"
oom_score_adjust = 300
`)
		m.Run(t, "systemctl", "start", service)
		pid := strconv.Itoa(m.mustAsk(t).PID)
		got := m.Run(t, "sh", "-c", "ps -o nice= "+pid+"; cat /proc/"+pid+"/oom_score_adj; grep files /proc/"+pid+"/limits; grep CapEff /proc/"+pid+"/status")
		if f := strings.Fields(got); len(f) < 9 || f[0] != "-5" || f[1] != "300" || f[5] != "2000" || f[6] != "3000" || strings.Trim(f[len(f)-1], "0") != "" {
			t.Errorf("%s: the worker has %q", m.Suite, f)
		}
	})
}
