// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/control"
)

// needRuby skips a test of the zygote for Ruby; where everything must run it fails.
func needRuby(t *testing.T) {
	t.Helper()
	switch _, err := exec.LookPath("ruby"); {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%v, and with CI=true nothing is skipped", err)
	default:
		t.Skip(err)
	}
}

// rubyFleet is the shipped example, on a socket in the test's folder.
type rubyFleet struct {
	*rig
	text string
}

func startRuby(t *testing.T) *rubyFleet {
	t.Helper()
	needRuby(t)
	text, err := os.ReadFile("../../packaging/examples/ruby/ruby.toml")
	if err != nil {
		t.Fatal(err)
	}
	app, err := os.ReadFile("../../packaging/examples/ruby/ruby_app.rb")
	if err != nil {
		t.Fatal(err)
	}
	program, err := filepath.Abs("../../packaging/zygotes/zygote.rb")
	if err != nil {
		t.Fatal(err)
	}
	f := &rubyFleet{text: strings.NewReplacer("/usr/share/prefork/zygote.rb", program, "127.0.0.1:8088", "DIR/http.sock").Replace(string(text))}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	f.rig = prepare(t, f.text)
	f.write("ruby_app.rb", string(app))
	f.cmd.Env = append(f.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	f.start()
	f.waitReady()
	return f
}

// answer is that of the example.
type answer struct {
	Slot       string
	PID        int
	Generation int
}

// ask asks the example, and returns who answers.
func (f *rubyFleet) ask() (a answer) {
	f.t.Helper()
	conn, err := net.Dial("unix", f.path("http.sock"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		f.t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		f.t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(text), "\r\n\r\n")
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		f.t.Fatalf("%v: %q", err, text)
	}
	return a
}

func (f *rubyFleet) look() (s control.Status) {
	f.t.Helper()
	out, said, code := prefork(f.t, "status", "--json", f.path("fleet.toml"))
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 {
		f.t.Fatalf("exit status %d, %v:\n%s%s", code, err, out, said)
	}
	return s
}

func (f *rubyFleet) do(args ...string) {
	f.t.Helper()
	if out, said, code := prefork(f.t, append(args, f.path("fleet.toml"))...); code != 0 {
		f.t.Fatalf("%q: exit status %d:\n%s%s", args, code, out, said)
	}
}

// only waits until the last predecessor has ended: until then it may answer, too.
func (f *rubyFleet) only(generation int) {
	f.t.Helper()
	f.eventually(fmt.Sprint("slots of generation ", generation, " alone"), func() bool {
		all := f.children("prefork: web.")
		return len(all) == 3 && !slices.ContainsFunc(all, func(p process) bool {
			return !strings.HasSuffix(p.title, fmt.Sprint(" gen ", generation))
		})
	})
}

// A floor of another language is a floor: its workers are replaced when they die, it is
// loaded again when it is lost, and a restart and a reload roll onto the next one.
func TestFloorInRuby(t *testing.T) {
	f := startRuby(t)
	a := f.ask()
	if !strings.HasPrefix(a.Slot, "web.") || a.Generation != 1 {
		t.Errorf("got %+v, want a slot of web, of generation 1", a)
	}
	kill(t, a.PID, unix.SIGKILL)
	f.eventually("a successor of "+a.Slot, func() bool {
		found := f.children("prefork: " + a.Slot + " [fleet] gen 1")
		return len(found) == 1 && found[0].pid != a.PID
	})
	f.do("restart")
	f.only(2)
	if a := f.ask(); a.Generation != 2 {
		t.Errorf("after a restart: got %+v, want generation 2", a)
	}
	f.write("fleet.toml", strings.ReplaceAll(strings.Replace(f.text, "[floor]", "[floor]\nenv = { CHANGED = \"1\" }", 1), "DIR", f.dir))
	f.do("reload")
	f.only(3)
	a = f.ask()
	if a.Generation != 3 {
		t.Errorf("after a reload that changes the floor: got %+v, want generation 3", a)
	}
	floor := f.child("prefork: floor [fleet] gen 3").pid
	kill(t, floor, unix.SIGKILL)
	f.child("prefork: floor [fleet] gen 4")
	if !alive(a.PID) {
		t.Error("a worker ended with its floor")
	}
	kill(t, a.PID, unix.SIGKILL)
	f.eventually("a successor, be it a spare of the lost floor", func() bool {
		found := f.children("prefork: " + a.Slot + " [fleet]")
		return len(found) == 1 && found[0].pid != a.PID
	})
	f.eventually("the next floor in the status, and a spare of it", func() bool {
		return f.look().Generation == 4 && len(f.children("prefork: spare [fleet] gen 4")) == 1
	})
	// What only prefork's own zygote can do is told, and costs nobody anything.
	const want = "floor.zygote is another program, which has no Python objects"
	if _, said, code := prefork(t, "memory", "--why", f.path("fleet.toml")); code != 1 || !strings.Contains(said, want) {
		t.Errorf("memory --why: exit status %d, want %q in: %s", code, want, said)
	}
	f.signal(unix.SIGTERM)
	if code := f.wait(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
}

// An entry has its arguments, after setup, warm and after_fork have been called, each of
// which may name what is to be required first.
func TestEntryInRubyWithArguments(t *testing.T) {
	needRuby(t)
	program, err := filepath.Abs("../../packaging/zygotes/zygote.rb")
	if err != nil {
		t.Fatal(err)
	}
	r := prepare(t, fmt.Sprintf(`
[floor]
zygote = ["ruby", %q]
path = ["DIR"]
setup = "calls:Calls::Note.setup"
warm = "Calls::Note.warm"
after_fork = "Calls::Note.after_fork"
[worker.a]
entry = "calls:run"
args = ["it's \"é\" 😀", 1.0, { x = [true] }]
kwargs = { word = "w" }
restart = "no"
`, program))
	r.write("calls.rb", `
module Calls
  module Note
    class << self
      attr_reader :all
      %i[setup warm after_fork].each { |name| define_method(name) { (@all ||= []) << name } }
    end
  end
end
def run(*args, word:) = warn("called #{Calls::Note.all} #{args} #{word}")
`)
	r.start()
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
	called := regexp.MustCompile(`called \[:setup, :warm, :after_fork\] \["it's \\"é\\" 😀", 1\.0, {"x" ?=> ?\[true\]}\] w\n`)
	if !called.MatchString(r.logged()) {
		t.Errorf("want %s", called)
	}
}

// What is said of a worker that fails is as of any other: its own status and its own
// words.
func TestEntryInRubyThatCannotBeCalled(t *testing.T) {
	needRuby(t)
	program, err := filepath.Abs("../../packaging/zygotes/zygote.rb")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, fmt.Sprintf("[floor]\nzygote = [\"ruby\", %q]\n[worker.a]\nentry = \"Nothing.serve\"\n", program))
	r.eventually("the cause", func() bool { return strings.Contains(r.logged(), "uninitialized constant Nothing") })
}

// A program that is no zygote, or one of another protocol, ends the fleet with a cause that
// names it.
func TestProgramThatIsNoZygote(t *testing.T) {
	says := func(text string) string {
		return fmt.Sprintf(`["python3", "-c", '''
import os, time
fd = int(os.environ["PREFORK_ZYGOTE_FD"])
os.read(fd, 1 << 18)
os.write(fd, b"%s")
time.sleep(1000)
''']`, text)
	}
	for name, c := range map[string]struct{ zygote, want string }{
		"says nothing":     {`["sleep", "1000"]`, `waiting for the first word of the zygote "sleep" did not finish within 2s`},
		"ends":             {`["true"]`, "floor: exited with status 0"},
		"is not there":     {`["DIR/no-zygote"]`, "DIR/no-zygote"},
		"another protocol": {says(`loaded\0002`), "the zygote speaks protocol 2, this prefork 1; set floor.zygote to one that speaks it"},
		"no protocol":      {says(`loaded`), "loaded must have a number, the protocol that it speaks"},
		"nonsense":         {says(`hello`), `unknown message "hello"`},
		"broken":           {says(`broken\000no luck`), "floor: no luck"},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := ""
			if name == "says nothing" {
				timeout = "timeout_start_sec = \"2s\"\n"
			}
			r := start(t, timeout+"[floor]\nzygote = "+c.zygote+"\n[worker.a]\nentry = \"serve\"\n")
			if code := r.wait(); code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
			want := strings.ReplaceAll(c.want, "DIR", r.dir)
			if !strings.Contains(r.logged(), want) || !strings.Contains(r.status(), want) {
				t.Errorf("the log and STATUS, %q, are to name the cause %q", r.status(), want)
			}
		})
	}
}

// check-zygote says what has failed, in TAP, and its exit status says that something has.
func TestCheckZygote(t *testing.T) {
	entries, err := filepath.Abs("../../packaging/zygotes/conformance")
	if err != nil {
		t.Fatal(err)
	}
	check := func(args ...string) (string, int) {
		out, said, code := prefork(t, append([]string{"check-zygote", "--timeout", patience.String(), "--path", entries, "--preload", "conformance"}, args...)...)
		return out + said, code
	}
	out, code := check("--entry", "conformance:entry", "--only", "exit")
	if code != 0 || !strings.HasPrefix(out, "TAP version 13\nok 1 - load: ") || !strings.HasSuffix(out, "\n1..4\n") {
		t.Errorf("exit status %d:\n%s", code, out)
	}
	out, code = check("--entry", "conformance:entry", "--only", "fork", "--", "python3", "-c", "import sys; sys.exit('no zygote')")
	for _, want := range []string{"not ok 1 - load: ", "\n#   it wrote: no zygote\n", "\nok 2 - fork # SKIP it needs load\n1..2\n", "1 of 2 checks failed"} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("exit status %d, want %q in:\n%s", code, want, out)
		}
	}
	for _, args := range [][]string{{"--only", "fork"}, {"--entry", "a:b", "--only", "none"}} {
		if out, code := check(args...); code != 2 {
			t.Errorf("%q: exit status %d, want 2:\n%s", args, code, out)
		}
	}
}
