// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"encoding/json"
	"fmt"
	"os"
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
listen = ["0.0.0.0:8090", "[::]:8090", "8091", "[fe80::1%lo]:8092"]

[socket.file]
listen = ["/var/run/a file at 100%.sock"]
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

// example runs those commands in the comment of a shipped example that match an
// extended regular expression, in the example's folder.
func (m machine) example(t *testing.T, name, commands string) {
	t.Helper()
	m.Run(t, "sh", "-ec", "cd /usr/share/doc/prefork/examples/"+name+"; sed -nE 's,^#   ("+commands+"),\\1,p' "+name+".toml | sh -e")
}

// hasSysResource reports whether this container can raise limits: some machines
// that run the tests cannot themselves.
func (m machine) hasSysResource(t *testing.T) bool {
	t.Helper()
	for line := range strings.Lines(m.ReadFile(t, "/proc/1/status")) {
		if set, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n&(1<<24) != 0
		}
	}
	t.Fatalf("%s: /proc/1/status has no CapBnd", m.Suite)
	return false
}

// TestExamples does with each example what its comment says, kills a worker of
// those that serve, and stops it. Those that need a drop-in name it when it is not
// there.
func TestExamples(t *testing.T) {
	entries, err := os.ReadDir("../examples")
	if err != nil {
		t.Fatal(err)
	}
	// This one runs without systemd: see TestContainer in cmd/prefork.
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return e.Name() == "container" })
	works := map[string]func(t *testing.T, m machine){
		"aiohttp": func(t *testing.T, m machine) { m.serves(t, "aiohttp", 8086, "web.") },
		"asgi":    func(t *testing.T, m machine) { m.serves(t, "asgi", 8084, "web.") },
		"demo":    func(t *testing.T, m machine) { m.serves(t, "demo", 8080, `"worker": "web.`) },
		"django":  func(t *testing.T, m machine) { m.serves(t, "django", 8085, "web.") },
		"nginx":   nginxWorks,
		"on-connection": func(t *testing.T, m machine) {
			m.says(t, 8081, "web.")
			m.Run(t, "systemctl", "stop", "prefork@on-connection.service")
			m.says(t, 8081, "web.")
		},
		"priorities":  prioritiesWork,
		"queue":       queueWorks,
		"raw-sockets": rawSocketsWork,
		"users":       usersWork,
		"wsgi":        func(t *testing.T, m machine) { m.serves(t, "wsgi", 8083, "web.") },
	}
	for _, e := range entries {
		if works[e.Name()] == nil {
			t.Errorf("nothing is known about the example %s", e.Name())
		}
	}
	onEachSuite(t, func(t *testing.T, m machine) {
		// The work of the queue takes until it may end.
		m.Run(t, "sed", "-i", `s,time.sleep(1),while not os.path.exists("`+jobsMayEnd+`"): time.sleep(0.1),`, "/usr/share/doc/prefork/examples/queue/queue_worker.py")
		if !m.hasSysResource(t) {
			t.Logf("%s: this container has no CAP_SYS_RESOURCE: without what needs it", m.Suite)
			m.Run(t, "sed", "-i", "/-900/d; /limit_nofile/d", "/usr/share/doc/prefork/examples/priorities/priorities.toml")
		}
		for _, e := range entries {
			name := e.Name()
			unit := "prefork@" + name + ".service"
			if name == "demo" { // made for a terminal
				m.Run(t, "sh", "-c", "install -D -m0644 -t /etc/prefork /usr/share/doc/prefork/examples/demo/* && systemctl daemon-reload")
				m.Run(t, "systemctl", "start", unit)
			}
			if slices.Contains(dropIns(t), name) {
				m.example(t, name, "(install .* /etc/prefork .*|systemctl daemon-reload)")
				m.assertForbidden(t, unit, name)
			}
			m.example(t, name, "(install|systemctl) .*")
			works[name](t, m)
			m.WaitFor(t, "ready example "+name, func() bool { return m.state(t, unit) == "active" })
			m.Run(t, "sh", "-c", "systemctl stop 'prefork-*.socket' 'prefork@*.service'")
			if killed := m.entries(t, "MESSAGE", "PREFORK_FLEET="+name, "PREFORK_EVENT=slot-timeout"); len(killed) > 0 {
				t.Errorf("%s: %s does not stop by itself: %q", m.Suite, name, killed)
			}
		}
	})
}

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

// says wants a text in the answer of a port.
func (m machine) says(t *testing.T, port int, want string) {
	t.Helper()
	out, code := m.Try("curl", "-sS", "--max-time", "60", fmt.Sprintf("http://127.0.0.1:%d/", port))
	if code != 0 || !strings.Contains(out, want) {
		t.Errorf("%s: port %d: exit status %d, %q; want %q", m.Suite, port, code, out, want)
	}
}

// serves wants an answer, and the next one after all workers web were killed.
func (m machine) serves(t *testing.T, fleet string, port int, want string) {
	t.Helper()
	m.says(t, port, want)
	m.kill(t, fleet, "web")
	m.says(t, port, want)
}

// kill kills all slots of a worker, and returns when the first has a successor.
func (m machine) kill(t *testing.T, fleet, worker string) {
	t.Helper()
	pid := m.lastPID(t, worker+".0")
	m.Run(t, "prefork", "kill", "--signal", "KILL", fleet, worker)
	m.WaitFor(t, "a successor in "+worker+".0", func() bool { return m.lastPID(t, worker+".0") != pid })
}

func nginxWorks(t *testing.T, m machine) {
	m.says(t, 8087, "app.")
	for _, worker := range []string{"app", "nginx"} {
		m.kill(t, "nginx", worker)
		m.says(t, 8087, "app.")
	}
}

// queueWorks kills the worker that does a job, and stops the one that does the next:
// both jobs are done.
func queueWorks(t *testing.T, m machine) {
	const job = "/var/lib/prefork/queue/1.job"
	said := func(words string) []string {
		return m.entries(t, "SYSLOG_IDENTIFIER", "MESSAGE="+words+" hello")
	}
	begun := func(n int) {
		t.Helper()
		m.WaitFor(t, fmt.Sprint("beginning ", n, " of a job"), func() bool { return len(said("begins")) == n })
	}
	m.example(t, "queue", "(cd|echo) .*")
	begun(1)
	m.Run(t, "prefork", "kill", "--signal", "KILL", "queue", said("begins")[0])
	begun(2)
	m.WriteFile(t, jobsMayEnd, "")
	m.WaitFor(t, "a job that is done", func() bool { return !m.exists(t, job) })
	m.Run(t, "rm", jobsMayEnd)
	m.example(t, "queue", "(cd|echo) .*")
	begun(3)
	const unit = "prefork@queue.service"
	m.Run(t, "systemctl", "stop", "--no-block", unit)
	m.WaitFor(t, "a stop", func() bool { return m.state(t, unit) == "deactivating" })
	m.WriteFile(t, jobsMayEnd, "")
	m.WaitFor(t, "a stopped queue", func() bool { return m.state(t, unit) == "inactive" })
	if done := said("has done"); len(done) != 2 || m.exists(t, job) {
		t.Errorf("%s: jobs were done by %q", m.Suite, done)
	}
	m.Run(t, "systemctl", "start", unit)
}

func usersWork(t *testing.T, m machine) {
	m.serves(t, "users", 8082, "web.0 is www-data, in www-data\n")
	out := m.Run(t, "ps", "-C", "sleep", "-o", "user=,group=,supgrp=")
	if got := strings.Join(strings.Fields(out), " "); got != "daemon daemon daemon,adm" {
		t.Errorf("%s: queue.0 is %q", m.Suite, got)
	}
	// What the master needs to make them so is not theirs.
	for _, slot := range []string{"web.0", "queue.0"} {
		sets := m.Run(t, "grep", "-E", "Cap(Inh|Prm|Eff|Amb)", "/proc/"+m.lastPID(t, slot)+"/status")
		if strings.Count(sets, "0000000000000000") != 4 {
			t.Errorf("%s: %s has\n%s", m.Suite, slot, sets)
		}
	}
}

func prioritiesWork(t *testing.T, m machine) {
	out := m.Run(t, "sh", "-c", `for pid in $(pgrep -f '^sleep infinity$'); do
		echo $(ps -o nice= $pid) $(cat /proc/$pid/oom_score_adj) $(grep files /proc/$pid/limits | tr -s ' ' | cut -d ' ' -f 5)
	done | sort`)
	want := "-5 -900 1048576\n10 500 524288\n10 500 524288\n"
	if !m.hasSysResource(t) {
		// Nor can systemd raise the hard limit to what the unit has.
		out = strings.ReplaceAll(out, " 20000\n", " 524288\n")
		want = "-5 0 524288\n10 500 524288\n10 500 524288\n"
	}
	if out != want {
		t.Errorf("%s: the workers have\n%swant\n%s", m.Suite, out, want)
	}
}

func rawSocketsWork(t *testing.T, m machine) {
	m.WaitFor(t, "the raw socket", func() bool { return len(m.entries(t, "MESSAGE", "--identifier=sniffer.0")) > 0 })
	m.Try("curl", "-sS", "http://127.0.0.1:1/") // refused, with two packets
	m.WaitFor(t, "a packet", func() bool {
		return strings.Contains(strings.Join(m.entries(t, "MESSAGE", "--identifier=sniffer.0"), "\n"), " bytes")
	})
	status := m.Run(t, "grep", "-E", "Uid|CapInh|CapEff|CapAmb", "/proc/"+m.lastPID(t, "sniffer.0")+"/status")
	const netRaw = "0000000000002000"
	if strings.Count(status, netRaw) != 3 || strings.Contains(status, "Uid:\t0\t") {
		t.Errorf("%s: the sniffer has\n%s", m.Suite, status)
	}
}
