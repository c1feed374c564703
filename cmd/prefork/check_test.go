// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/examine"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

// check returns the command that checks a fleet file in a folder with these modules.
func check(t *testing.T, file string, modules map[string]string, args ...string) (cmd *exec.Cmd, dir string) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("fleet.toml", file)
	for name, text := range modules {
		write(name, text)
	}
	cmd = exec.Command(self(t), append(append([]string{"check"}, args...), filepath.Join(dir, "fleet.toml"))...)
	cmd.Env = append(environment(t), "PREFORK_TEST_ROLE=prefork")
	cmd.Dir = dir
	return cmd, dir
}

func outputOf(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// The report fits a terminal, what the floor prints is beside it, and the exit status says
// whether the fleet would use the floor.
func TestCheckFloor(t *testing.T) {
	const file = "[floor]\npath = [\".\"]\npreload = [\"app\"]\n[worker.web]\nentry = \"app.that.has.a.long.name.of.its.own:serve\"\n[worker.late]\nentry = \"late:serve\"\ncount = 2\n"
	cmd, dir := check(t, file, map[string]string{
		"app.py":  "import os, xml.dom.minidom, logging\nos.umask(0)\nprint('printed\\x1b]0;title\\a')\n",
		"late.py": "text = bytes(range(256)) * (8 << 12)\ndef serve(): pass\n",
	}, "--floor")
	report, printed, code := outputOf(t, cmd)
	if code != 0 || printed != "printed ]0;title \nModuleNotFoundError: No module named 'app.that'; 'app' is not a package\n" {
		t.Errorf("exit status %d, standard error %q", code, printed)
	}
	for line := range strings.Lines(report) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > usualWidth || strings.TrimRight(line, " ") != line {
			t.Errorf("a line of %d characters: %q", utf8.RuneCountInString(line), line)
		}
	}
	for _, want := range []string{
		"fleet: the fleet would use this floor\n", "\nModules\n", " app\n", "    xml.dom.minidom\n", "\nWhat the floor holds\n", "\nHooks that run at each fork\n",
		"  umask: 0022, now 0000; workers have it as before\n    by app\n", "\nWhat entries still import\n", "  late, late:serve: 1 module, 8.",
		"\nPrivate memory of a worker of late, kB, median of 5\n", "  plain*  ", "  as advised  ", "\nAdvice\n", "  floor.preload = [\"app\", \"late\"]: ", "  floor.warm: Is not set,",
		"  worker.web.entry: Mend it: ", "  all of that: Was tried together: ",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("%q is missing in\n%s", want, report)
		}
	}
	if left, _ := fs.Glob(os.DirFS(dir), "*"); slices.Contains(left, "control") {
		t.Errorf("left behind: %q", left)
	}
	cmd, _ = check(t, "[floor]\npath = [\".\"]\npreload = [\"app\"]\n[worker.web]\nentry = \"app:serve\"\n", map[string]string{"app.py": "import socket\nkept = socket.socket()\ndef serve(): pass"}, "--floor", "--json")
	text, _, code := outputOf(t, cmd)
	var r examine.Report
	if err := json.Unmarshal([]byte(text), &r); err != nil || code != exit.Failure || r.Usable || len(r.Descriptors) != 1 || r.Memory == nil || r.Memory.Rows[0].Birth == 0 {
		t.Errorf("exit status %d, %v: %s", code, err, text)
	}
	cmd, _ = check(t, "[worker.web]\nexec = [\"true\"]\n", nil, "--floor")
	if out, errs, code := outputOf(t, cmd); code != exit.Failure || out != "" || errs == "" {
		t.Errorf("no floor: exit status %d: %q, %q", code, out, errs)
	}
	cmd, _ = check(t, "[flor]\n", nil, "--floor")
	if out, errs, code := outputOf(t, cmd); code != exit.Config || out != "" || !strings.Contains(errs, "flor") {
		t.Errorf("a bad file: exit status %d: %q, %q", code, out, errs)
	}
}

// However the check ends, its processes end with it.
func TestCheckFloorIsInterrupted(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGKILL} {
		cmd, dir := check(t, "[floor]\npath = [\".\"]\npreload = [\"app\"]\n[worker.web]\nentry = \"app:serve\"\n", map[string]string{
			"app.py": "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '1000'])\n" +
				"open('DIR/new', 'w').write(f'{os.getpid()} {child.pid}')\nos.rename('DIR/new', 'DIR/pids')\ntime.sleep(1000)",
		}, "--floor")
		var report bytes.Buffer
		cmd.Stdout = &report
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pids []string
		eventually(t, "the floor hangs", func() bool {
			text, _ := os.ReadFile(filepath.Join(dir, "pids"))
			pids = strings.Fields(string(text))
			return len(pids) == 2
		})
		floor, _ := strconv.Atoi(pids[0])
		child, _ := strconv.Atoi(pids[1])
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if status, ok := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }); !ok || status.Signal() != sig || report.Len() > 0 {
			t.Errorf("%v: it ended with %v, and reported %q", sig, cmd.ProcessState, report.String())
		}
		eventually(t, "the floor ends", func() bool { return unix.Kill(floor, 0) != nil })
		if sig == unix.SIGKILL {
			_ = unix.Kill(child, unix.SIGKILL) // there was nobody left to do it
		} else if unix.Kill(child, 0) == nil {
			t.Errorf("%v: what the floor has started is left", sig)
		}
	}
}

// A fleet that runs notices nothing of a check of its file.
func TestCheckFloorOfAFleetThatRuns(t *testing.T) {
	r := start(t, "[floor]\npath = [\"DIR\"]\npreload = [\"app\"]\n[socket.http]\nlisten = \"DIR/http.sock\"\n[worker.web]\nentry = \"app:serve\"\nsockets = [\"http\"]\n")
	r.waitReady()
	before, err := r.get()
	if err != nil {
		t.Fatal(err)
	}
	log, said := r.logged(), len(r.notifications())
	cmd := exec.Command(self(t), "check", "--floor", r.path("fleet.toml"))
	cmd.Env, cmd.Dir = r.cmd.Env, r.dir
	report, errs, code := outputOf(t, cmd)
	if code != 0 || !strings.Contains(report, "fleet: the fleet would use this floor\n") {
		t.Errorf("exit status %d: %s\n%s", code, report, errs)
	}
	if after, err := r.get(); err != nil || after != before {
		t.Errorf("%d answers, %v; before it was %d", after, err, before)
	}
	if now := r.logged(); now != log || len(r.notifications()) != said {
		t.Errorf("the fleet noticed: %s", strings.TrimPrefix(now, log))
	}
}

// A file alone tells when an entry cannot be in the floor, or hardly.
func TestEntriesThatAreNotPreloaded(t *testing.T) {
	for keys, want := range map[string]string{
		``:                              "app.web is not in floor.preload: each worker imports it for itself; what it costs: prefork check --floor F\n",
		`preload = ["json"]`:            "app.web is not in floor.preload: each worker imports it for itself, unless what is loaded there does; what it costs: prefork check --floor F\n",
		`preload = ["app.web"]`:         "",
		`preload = ["json", "app"]`:     "",
		`preload = ["app.web.more"]`:    "",
		`preload = ["app.base", "app"]`: "",
		`setup = "app:load"`:            "",
	} {
		file, err := fleetfile.Parse("F", "/F.toml", []byte("[floor]\n"+keys+"\n[worker.web]\nentry = \"app.web:serve\"\n[worker.other]\nexec = [\"true\"]\n"), fleetfile.Host{})
		if err != nil {
			t.Fatal(err)
		}
		said := ""
		for _, w := range entriesNotPreloaded("F", file) {
			said += w.Key + ": " + w.Text + "\n"
		}
		if want != "" {
			want = "worker.web.entry: " + want
		}
		if said != want {
			t.Errorf("%s: got %q, want %q", keys, said, want)
		}
	}
}

// What this machine lacks is warned of, and the file is good nevertheless.
func TestCheckWarnsOfWhatTheMachineLacks(t *testing.T) {
	cmd, dir := check(t, `
[floor]
path = ["lib"]
[socket.http]
listen = "8091"
[socket.idle]
listen = "8092"
[worker.web]
exec = ["/no/such/program"]
sockets = ["http"]
user = "nosuchuser"
environment_file = ["none.env", "-optional.env"]
working_directory = "/no/such/dir"
[worker.text]
exec = ["DIR/fleet.toml"]
group = "nosuchgroup"
`, nil, "--json")
	text, errs, code := outputOf(t, cmd)
	var c checked
	if err := json.Unmarshal([]byte(text), &c); err != nil || code != 0 || errs != "" || !c.Good || !strings.Contains(c.Resolved, "[socket.idle]") {
		t.Fatalf("exit status %d, %v, %q: %s", code, err, errs, text)
	}
	got := ""
	for _, w := range c.Warnings {
		got += w.Key + ": " + w.Text + "\n"
	}
	want := strings.ReplaceAll(`floor.path: there is no directory DIR/lib here
worker.web.exec: there is no /no/such/program here
worker.web.user: there is no user nosuchuser here
worker.web.working_directory: there is no directory /no/such/dir here
worker.web.environment_file: there is no DIR/none.env here; a leading - makes it optional
worker.text.exec: DIR/fleet.toml is not executable: chmod +x DIR/fleet.toml
worker.text.group: there is no group nosuchgroup here
socket.idle: no worker has it: clients that connect wait for ever; write sockets = ["idle"] in the worker that serves it
`, "DIR", dir)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	cmd, _ = check(t, "[worker.w]\nexec = [\"true\"]\ncuont = 1\n", nil, "--json")
	text, _, code = outputOf(t, cmd)
	c = checked{}
	if err := json.Unmarshal([]byte(text), &c); err != nil || code != exit.Config || c.Good || len(c.Errors) != 1 || c.Errors[0].Line != 3 || c.Errors[0].Key != "worker.w.cuont" {
		t.Errorf("exit status %d, %v: %s", code, err, text)
	}
}

// What a file names is looked for once: where it is wrong is said by file, line and key.
func TestCheckImport(t *testing.T) {
	const file = "[floor]\npath = [\".\"]\npreload = [\"base\"]\n[worker.web]\nentry = \"base:serve\"\n[worker.late]\nentry = \"late:run\"\n" +
		"[worker.io.tasks]\nbeat = \"base:beat\"\n"
	modules := map[string]string{"base.py": "def serve(): pass\nasync def beat(): pass\nnumber = 7\n", "late.py": "import colorsys\ndef run(): pass\n"}
	cmd, _ := check(t, file, modules, "--import")
	out, said, code := outputOf(t, cmd)
	const want = "worker.web.entry      base:serve  preloaded\n" +
		"worker.late.entry     late:run    2 modules are imported by each worker\nworker.io.tasks.beat  base:beat   preloaded\n"
	if out != want || said != "" || code != 0 {
		t.Errorf("exit status %d, got\n%s%s\nwant\n%s", code, out, said, want)
	}
	wrong := strings.NewReplacer("base:serve", "base:number", "late:run", "late:walk", "base:beat", "nosuch:beat").Replace(file)
	cmd, dir := check(t, wrong, modules, "--import")
	out, said, code = outputOf(t, cmd)
	for _, line := range []string{
		":5: worker.web.entry: base:number: TypeError: base:number is of type int, which cannot be called\n",
		":7: worker.late.entry: late:walk: AttributeError: module 'late' has no attribute 'walk'\n",
		":9: worker.io.tasks.beat: nosuch:beat: ModuleNotFoundError: No module named 'nosuch'\n",
	} {
		if !strings.Contains(said, "\nprefork: "+dir+"/fleet.toml"+line) {
			t.Errorf("nothing says %q", line)
		}
	}
	if out != "" || code != exit.Failure {
		t.Errorf("exit status %d, %s%s", code, out, said)
	}
	cmd, _ = check(t, strings.Replace(file, "base", "nosuch", 1), modules, "--import")
	if _, said, code := outputOf(t, cmd); code != exit.Failure || !strings.Contains(said, "the floor cannot be used: importing nosuch: ModuleNotFoundError") {
		t.Errorf("exit status %d: %s", code, said)
	}
}

// An entry that a module of the floor does not have is an error of the floor: no worker runs
// at the start, and none is touched by a reload. Of any other module it is the worker's.
func TestEntriesAreResolvedWithTheFloor(t *testing.T) {
	const good = "[floor]\npath = [\"DIR\"]\npreload = [\"app\"]\n[worker.web]\nentry = \"app:idle\"\ncount = 2\n"
	r := start(t, strings.Replace(good, "app:idle", "app:nosuch", 1))
	const cause = ":5: worker.web.entry: app:nosuch: module 'app' has no attribute 'nosuch'"
	if code := r.wait(); code != 1 || !strings.Contains(r.logged(), "fleet fails: floor: "+r.path("fleet.toml")+cause) || strings.Contains(r.logged(), "web.0") {
		t.Errorf("exit status %d", code)
	}

	r = start(t, good)
	r.waitReady()
	before := r.children("prefork: web.")
	r.write("fleet.toml", strings.ReplaceAll(strings.ReplaceAll(good, "app:idle", "app:nosuch")+"[floor.env]\nA = \"1\"\n", "DIR", r.dir))
	_, said, code := prefork(t, "reload", r.path("fleet.toml"))
	if code != 1 || !strings.Contains(said, cause) {
		t.Errorf("reload: exit status %d: %s", code, said)
	}
	same := func(a, b process) bool { return a.pid == b.pid && a.title == b.title }
	if now := r.children("prefork: web."); !slices.EqualFunc(now, before, same) {
		t.Errorf("the workers were %v, and are %v", before, now)
	}
	if strings.Contains(r.logged(), "web.0: starting") && strings.Count(r.logged(), "starting -> ready") != 2 {
		t.Error("a worker was started with it")
	}
}
