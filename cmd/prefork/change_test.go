// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/control"
)

// changing is the file of a fleet that changes: what a test varies of it.
type changing struct {
	address string
	count   int
	release string // a variable of its workers
	model   string // a variable of its floor
	entry   string
	settle  string
	keys    string // more of the worker that serves
	jobs    string // more of the other worker
	more    string // more tables
}

func (c changing) file() string {
	return fmt.Sprintf(`
[floor]
path = ["DIR"]
preload = ["web"]
env = { MODEL = %q }
[socket.http]
listen = %q
[worker.web]
entry = "web:%s"
type = "notify"
sockets = ["http"]
count = %d
settle_sec = %q
environment = { RELEASE = %q }
%s
[worker.job]
exec = ["sleep", "987661"]
settle_sec = 0
%s
%s`, c.model, c.address, c.entry, c.count, c.settle, c.release, c.keys, c.jobs, c.more)
}

// changed is a fleet under load that is to change.
type changed struct {
	*rig
	*traffic
	now  changing
	were map[string]bool // pids that some slot has had
}

func startChanging(t *testing.T) *changed {
	t.Helper()
	c := &changed{were: map[string]bool{}, now: changing{address: fmt.Sprintf("127.0.0.1:%d", freePort(t)), count: 2, entry: "serve", settle: "20ms", release: "0", model: "0"}}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	c.rig = prepare(t, c.now.file())
	c.copyTo("web.py", "changes/web.py")
	c.cmd.Env = append(c.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	c.start()
	c.waitReady()
	c.traffic = startTraffic(t, c.now.address)
	return c
}

func (c *changed) writeFile() { c.write("fleet.toml", strings.ReplaceAll(c.now.file(), "DIR", c.dir)) }

// do has a command change the fleet, which must succeed.
func (c *changed) do(args ...string) string {
	c.t.Helper()
	out, said, code := c.try(args...)
	if code != 0 {
		c.t.Fatalf("%q: exit status %d:\n%s%s", args, code, out, said)
	}
	c.check(c.t, fmt.Sprint(args))
	return out
}

func (c *changed) try(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	args = slices.Insert(slices.Clone(args), 1, c.path("fleet.toml"))
	return prefork(c.t, args...)
}

// pids are the processes of slots by their names.
func (c *changed) pids() map[string]uint32 {
	c.t.Helper()
	pids := map[string]uint32{}
	for _, s := range c.look().Slots {
		pids[s.Name] = s.MainPID
		c.were[fmt.Sprint(s.MainPID)] = true
	}
	return pids
}

func (c *changed) look() (f control.Status) {
	c.t.Helper()
	out, said, code := prefork(c.t, "status", "--json", c.path("fleet.toml"))
	if err := json.Unmarshal([]byte(out), &f); err != nil || code != 0 {
		c.t.Fatalf("exit status %d, %v:\n%s%s", code, err, out, said)
	}
	return f
}

// rounds is how often each kind of change is made.
const rounds = 50

// A reload applies the difference, and nothing else: what has not changed keeps its
// process, and no client notices anything.
func TestReloadUnderLoad(t *testing.T) {
	c := startChanging(t)
	type kind struct {
		name  string
		edit  func(n int)
		rolls string // slots whose processes are replaced, by their beginning
	}
	c.write("env", "A=0\n")
	env := fmt.Sprintf("environment_file = %q\n", c.path("env"))
	c.pids()
	c.now.keys = env
	c.writeFile()
	c.do("reload")
	kinds := []kind{
		{"nothing", func(int) {}, ""},
		{"policy", func(n int) { c.now.keys = env + fmt.Sprintf("restart_sec = \"%dms\"\ntimeout_stop_sec = 20\n", n+1) }, ""},
		{"floor policy", func(n int) {
			c.now.more = fmt.Sprintf("[worker.other]\nexec = [\"sleep\", \"987662\"]\nrestart_sec = \"%dms\"\n", n+1)
		}, ""},
		{"count", func(n int) { c.now.count = 2 + n%3 }, ""},
		{"process", func(n int) { c.now.release = fmt.Sprint(n) }, "web."},
		{"another worker", func(n int) { c.now.jobs = fmt.Sprintf("environment = { N = \"%d\" }\n", n) }, "job."},
		{"sockets", func(n int) {
			c.now.more = fmt.Sprintf("[socket.more]\nlisten = \"DIR/more%d\"\n[worker.more]\nexec = [\"sleep\", \"987663\"]\nsockets = [\"more\"]\nsettle_sec = 0\n", n%2)
		}, "more."},
		{"environment file", func(n int) { c.write("env", fmt.Sprintf("A=%d\n", n)) }, "web."},
		{"floor", func(n int) { c.now.model = fmt.Sprint(n) }, "web."},
		{"worker removed", func(int) { c.now.more = "" }, ""},
	}
	for n := range rounds {
		k := kinds[n%len(kinds)]
		before := c.pids()
		k.edit(n)
		c.writeFile()
		out := c.do("reload")
		after := c.pids()
		for name, pid := range before {
			is, there := after[name]
			rolled := k.rolls != "" && strings.HasPrefix(name, k.rolls)
			if there && (is == pid) == rolled {
				t.Errorf("%d, %s: %s had %d and has %d\n%s", n, k.name, name, pid, is, out)
			}
		}
		c.expect(fmt.Sprintf("%d, %s", n, k.name))
	}
	c.flat()
}

// expect fails the test if somebody has answered who never was a slot.
func (c *changed) expect(when string) {
	c.t.Helper()
	for answer := range c.answered() {
		if pid, _, _ := strings.Cut(answer, " "); !c.were[pid] {
			c.t.Errorf("%s: %s answered, who was no slot", when, answer)
		}
	}
}

// flat: nothing of the changes is left.
func (c *changed) flat() {
	c.t.Helper()
	c.eventually("no process but those of slots", func() bool {
		f := c.look()
		return len(c.children("")) == len(f.Slots)+1+int(f.Spares)+1 // the floor, and a shim
	})
	c.t.Logf("%d requests on %d connections", c.asked.Load(), c.connected.Load())
}

// Rolling restarts, new floors and scaling, without a client that notices.
func TestRestartUnderLoad(t *testing.T) {
	c := startChanging(t)
	for n := range rounds {
		before := c.pids()
		switch n % 3 {
		case 0:
			c.do("restart", "web")
		case 1:
			c.do("restart", "web.1")
		default:
			c.do("scale", fmt.Sprintf("web=%d", 1+n%4))
			c.do("scale", "web=2")
		}
		after := c.pids()
		if after["job.0"] != before["job.0"] || n%3 == 0 && after["web.0"] == before["web.0"] || n%3 == 1 && (after["web.0"] != before["web.0"] || after["web.1"] == before["web.1"]) {
			t.Errorf("%d: %v became %v", n, before, after)
		}
	}
	c.flat()
}

func TestNewFloorsUnderLoad(t *testing.T) {
	c := startChanging(t)
	for n := range rounds {
		before := c.pids()
		c.do("restart")
		after, f := c.pids(), c.look()
		for name, pid := range before {
			if after[name] == pid {
				t.Errorf("%d: %s still has %d", n, name, pid)
			}
		}
		if int(f.Generation) != n+2 {
			t.Errorf("%d: the floor has generation %d", n, f.Generation)
		}
		c.expect(fmt.Sprint(n))
	}
	c.flat()
}

// Code that is newer than the floor is told of: a worker that is restarted on that floor does
// not have it.
func TestNewerCodeIsTold(t *testing.T) {
	c := startChanging(t)
	told := func(when string, want bool) {
		t.Helper()
		out, _, _ := prefork(t, "status", c.path("fleet.toml"))
		if strings.Contains(strings.Join(strings.Fields(out), " "), "is newer than the floor: prefork restart") != want {
			t.Errorf("%s: want it told %t:\n%s", when, want, out)
		}
	}
	told("as it was loaded", false)
	c.copyTo("web.py", "changes/web.py")
	told("written again", true)
	if out := c.do("restart", "web.0"); !strings.Contains(out, "the floor is the old one: "+c.path("web.py")+" is newer") {
		t.Errorf("restart of a slot says\n%s", out)
	}
	if out := c.do("restart"); strings.Contains(out, "the floor is the old one") {
		t.Errorf("restart says\n%s", out)
	}
	told("loaded again", false)

	// A link to another release.
	for _, release := range []string{"r1", "r2"} {
		if err := os.Mkdir(c.path(release), 0o755); err != nil {
			t.Fatal(err)
		}
		c.copyTo(release+"/web.py", "changes/web.py")
	}
	point := func(release string) {
		t.Helper()
		_ = os.Remove(c.path("current"))
		if err := os.Symlink(release, c.path("current")); err != nil {
			t.Fatal(err)
		}
	}
	point("r1")
	c.write("fleet.toml", strings.Replace(strings.ReplaceAll(c.now.file(), "DIR", c.dir), c.dir+"\"]", c.path("current")+"\"]", 1))
	c.do("reload")
	told("at a link", false)
	point("r2")
	told("the link leads elsewhere", true)
	c.do("restart")
	told("restarted", false)
}

// The manual's way to deploy new code, and back, as it is written there; and what becomes
// of a release that does not come up.
func TestDeployingAsInTheManual(t *testing.T) {
	page := section(t, "prefork@.service.8", ".Ss Deploying new code")
	var scripts []string
	for _, m := range regexp.MustCompile(`(?s)\.Bd -literal[^\n]*\n(.*?)\.Ed`).FindAllStringSubmatch(page, -1) {
		if strings.Contains(m[1], "prefork restart app\n") {
			scripts = append(scripts, strings.ReplaceAll(m[1], `\-`, "-"))
		}
	}
	if len(scripts) != 2 {
		t.Fatalf("the page has %q", scripts)
	}
	c := startChanging(t)
	code, err := os.ReadFile("testdata/changes/web.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range []string{"1", "2"} {
		if err := os.MkdirAll(c.path("releases/"+release), 0o755); err != nil {
			t.Fatal(err)
		}
		c.write("releases/"+release+"/web.py", strings.Replace(string(code), "os.environ.get('RELEASE', '')", "'release "+release+"'", 1))
	}
	run := func(script string) error {
		cmd := exec.Command("sh", "-ec", strings.NewReplacer("/srv/app", c.dir, "prefork restart app", self(t)+" restart --quiet "+c.path("fleet.toml")).Replace(script))
		cmd.Env = append(os.Environ(), "PREFORK_TEST_ROLE=prefork")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	serves := func(release string) {
		t.Helper()
		c.check(t, "deploying")
		c.eventually("only release "+release+" answers", func() bool {
			answers := c.answered()
			for answer := range answers {
				if !strings.HasSuffix(answer, " release "+release) {
					return false
				}
			}
			return len(answers) > 0
		})
	}
	if err := os.Symlink("releases/1", c.path("current")); err != nil {
		t.Fatal(err)
	}
	c.write("fleet.toml", strings.Replace(strings.ReplaceAll(c.now.file(), "DIR", c.dir), c.dir+"\"]", c.path("current")+"\"]", 1))
	c.do("reload")
	serves("1")
	for i, release := range []string{"2", "1"} {
		if err := run(scripts[i]); err != nil {
			t.Fatal(err)
		}
		serves(release)
	}
	c.write("releases/2/web.py", "raise ValueError('not finished')\n")
	if err := run(scripts[0]); err == nil || !strings.Contains(err.Error(), "is as it was: floor: importing web: ValueError: not finished") {
		t.Errorf("a broken release: %v", err)
	}
	serves("1")
	if err := run(scripts[1]); err != nil {
		t.Fatal(err)
	}
	serves("1")
}

// What cannot be is refused, or taken back: the command says why in its last line, the
// fleet keeps its processes or their like, and serves.
func TestBadChangesUnderLoad(t *testing.T) {
	c := startChanging(t)
	good := c.now
	web, err := os.ReadFile(c.path("web.py"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		name string
		edit func()
		code int
		want string // in the last line
		args []string
	}{
		{"a typo", func() { c.now.keys = "cuont = 3\n" }, exit.Config, "fleet.toml:15: worker.web.cuont: unknown key", []string{"reload"}},
		{"a typo and a restart", func() { c.now.keys = "cuont = 3\n" }, exit.Config, "unknown key", []string{"restart"}},
		{"an address that is taken", func() { c.now.more = "[socket.taken]\nlisten = \"DIR/app.py\"\n" }, exit.Failure, "socket.taken.listen: ", []string{"reload"}},
		{"an environment file that is not there", func() { c.now.keys = "environment_file = \"/none\"\n" }, exit.Config, "worker.web.environment_file: ", []string{"reload"}},
		{"a floor that raises", func() { c.write("web.py", "raise ValueError('broken release')\n") }, exit.Failure, "ValueError: broken release", []string{"restart"}},
		{"a floor that starts threads", func() {
			c.write("web.py", "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"+string(web))
		}, exit.Failure, "thread", []string{"restart"}},
		{"a floor without the entry", func() { c.write("web.py", "") }, exit.Failure, "serve", []string{"restart"}},
		{"a canary that ends", func() { c.now.entry, c.now.settle = "fail", "2s" }, exit.Failure, "web.0: exited with status 3", []string{"reload"}},
		{"a canary that is never ready", func() { c.now.entry, c.now.keys = "mute", "timeout_start_sec = \"500ms\"\n" }, exit.Failure, "web.0: ", []string{"reload"}},
		{"no such worker", func() {}, exit.Failure, `has no worker or slot "nobody"; it has`, []string{"restart", "nobody"}},
		{"too many", func() {}, exit.Failure, "from 0 to 10000", []string{"scale", "web=10001"}},
		{"nothing left", func() {}, exit.Failure, "there is no worker nobody", []string{"scale", "nobody=0"}},
	} {
		before := c.pids()
		bad.edit()
		c.writeFile()
		out, said, code := c.try(bad.args...)
		lines := strings.Split(strings.TrimSpace(said), "\n")
		if last := lines[len(lines)-1]; code != bad.code || !strings.Contains(last, bad.want) {
			t.Errorf("%s: exit status %d, want %d, and %q in the last line of:\n%s%s", bad.name, code, bad.code, bad.want, out, said)
		}
		if after := c.pids(); !maps.Equal(after, before) {
			t.Errorf("%s: %v became %v", bad.name, before, after)
		}
		c.check(t, bad.name)
		c.now = good
		c.write("web.py", string(web))
		c.writeFile()
	}
	c.do("reload")
	c.flat()
}
