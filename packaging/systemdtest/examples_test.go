// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

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
		"ruby":        func(t *testing.T, m machine) { m.serves(t, "ruby", 8088, `"slot":"web.`) },
		"tasks":       tasksWork,
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

// tasksWork wants ten workers in four processes, of which one task is started again alone,
// and a process that is killed comes back with all of its tasks.
func tasksWork(t *testing.T, m machine) {
	all := []string{"reconcile", "enrich", "orchestrate", "mutate", "clusterer", "campaign-clusterer", "attribution", "reuse-correlate"}
	readies := func(task string) int {
		return len(m.entries(t, "PREFORK_SLOT", "PREFORK_FLEET=tasks", "PREFORK_TASK="+task, "PREFORK_EVENT=task-ready"))
	}
	m.WaitFor(t, "eight tasks", func() bool {
		return !slices.ContainsFunc(all, func(task string) bool { return readies(task) == 0 })
	})
	m.example(t, "tasks", "prefork .*")
	m.WaitFor(t, "a task that was restarted", func() bool { return readies("enrich") == 2 })
	if n := readies("reconcile"); n != 1 {
		t.Errorf("%s: its sibling was started %d times", m.Suite, n)
	}
	m.kill(t, "tasks", "batch")
	m.WaitFor(t, "the tasks of a successor", func() bool { return readies("reconcile") == 2 && readies("mutate") == 2 })
	if n := readies("clusterer"); n != 1 {
		t.Errorf("%s: a task of another slot was started %d times", m.Suite, n)
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
	for slot, packet := range map[string]string{"sniffer.0": " bytes", "counter.0": " packets on lo"} {
		m.WaitFor(t, "the raw socket", func() bool { return len(m.entries(t, "MESSAGE", "--identifier="+slot)) > 0 })
		m.Try("curl", "-sS", "http://127.0.0.1:1/") // refused, with two packets
		m.WaitFor(t, "a packet", func() bool {
			return strings.Contains(strings.Join(m.entries(t, "MESSAGE", "--identifier="+slot), "\n"), packet)
		})
	}
	for slot, sets := range map[string]int{"sniffer.0": 4, "counter.0": 4, "modest.0": 0} {
		status := m.Run(t, "grep", "-E", "Uid|CapInh|CapPrm|CapEff|CapAmb", "/proc/"+m.lastPID(t, slot)+"/status")
		const netRaw, none = "0000000000002000", "0000000000000000"
		if strings.Count(status, netRaw) != sets || strings.Count(status, none) != 4-sets || strings.Contains(status, "Uid:\t0\t") {
			t.Errorf("%s: %s has\n%s", m.Suite, slot, status)
		}
	}
}
