// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
)

const watchedFleet = `
ready_when = 2
[worker.well]
exec = ["sleep", "987681"]
count = 2
[worker.crash]
exec = ["sh", "-c", "exit 3"]
restart_sec = "10min"
restart_max_delay_sec = "10min"
`

// terminal is a shell in a tmux of its own.
type terminal struct {
	t      *testing.T
	rig    *rig
	dir    string   // of the programs
	socket string   // of tmux
	env    []string // of the shell
}

// inTerminal runs a fleet, with the real programs, and a shell beside it.
func inTerminal(t *testing.T, file string) *terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("tmux is missing, and with CI=true nothing is skipped")
		}
		t.Skip("tmux is missing")
	}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	r := prepare(t, file)
	x := &terminal{t: t, rig: r, dir: buildPrograms(t), socket: r.path("tmux")}
	x.env = append(environment(t), "PS1=$ ", "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	r.cmd.Path = filepath.Join(x.dir, "prefork")
	r.cmd.Env = append(r.cmd.Env, "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	r.start()
	x.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sh")
	t.Cleanup(func() { x.tmux("kill-server") })
	return x
}

// buildPrograms builds what make build does, side by side.
func buildPrograms(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, ".", "../prefork-view")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

func (x *terminal) tmux(args ...string) string {
	x.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-S", x.socket}, args...)...)
	cmd.Env = x.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %v: %v: %s", args, err, out)
	}
	return string(out)
}

func (x *terminal) keys(keys ...string) {
	x.t.Helper()
	x.tmux(append([]string{"send-keys"}, keys...)...)
}

func (x *terminal) screen() string { return x.tmux("capture-pane", "-p") }

// shows waits until the screen matches.
func (x *terminal) shows(pattern string) []string {
	x.t.Helper()
	var found []string
	match := regexp.MustCompile("(?m)" + pattern)
	defer func() {
		if found == nil {
			x.t.Logf("the screen:\n%s", x.screen())
		}
	}()
	x.rig.eventually("a screen with "+pattern, func() bool {
		found = match.FindStringSubmatch(x.screen())
		return found != nil
	})
	return found
}

// top starts the view, and notes how the terminal is before and afterwards.
func (x *terminal) top(environment string) {
	x.t.Helper()
	x.keys("-l", fmt.Sprintf("clear; echo the shell; stty -a >%s; %s %s top %s; echo exit=$?; stty -a >%s",
		x.rig.path("before"), environment, filepath.Join(x.dir, "prefork"), x.rig.path("fleet.toml"), x.rig.path("after")))
	x.keys("Enter")
	x.shows(`^edge|^fleet  `)
}

// isBack waits for the shell, with what it said before, and compares the terminal.
func (x *terminal) isBack() {
	x.t.Helper()
	x.shows(`\Athe shell\n(.|\n)*^exit=0\n`)
	var before, after []byte
	x.rig.eventually("a terminal that is as before", func() bool {
		before, _ = os.ReadFile(x.rig.path("before"))
		after, _ = os.ReadFile(x.rig.path("after"))
		return len(before) > 0 && bytes.Equal(before, after)
	})
	if flags := x.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"); flags != "0 1 0\n" {
		x.t.Errorf("alternate screen, cursor, mouse: %s", flags)
	}
	_ = os.Remove(x.rig.path("after"))
}

// pidOf is that which the view shows.
func (x *terminal) pidOf(slot string) int {
	x.t.Helper()
	pid, _ := strconv.Atoi(x.shows(`^. ` + regexp.QuoteMeta(slot) + ` +ready +\w+ +(\d+)`)[1])
	return pid
}

// view is the process that draws: the child of the shell.
func (x *terminal) view() int {
	x.t.Helper()
	shell, _ := strconv.Atoi(strings.TrimSpace(x.tmux("display-message", "-p", "#{pane_pid}")))
	pid := 0
	x.rig.eventually("a view", func() bool {
		for _, p := range processes(x.t) {
			if p.parent == shell && strings.HasPrefix(p.title, viewName+" ") {
				pid = p.pid
			}
		}
		return pid != 0
	})
	return pid
}

// TestTopInATerminal does what an operator does: looks, at three sizes, sees a
// worker die, restarts another, filters, and has the shell back.
func TestTopInATerminal(t *testing.T) {
	x := inTerminal(t, watchedFleet)
	x.top("")
	x.shows(`^fleet  active  2/3 ready; crash\.0 restarts in `)
	x.shows(`^► crash\.0 +waiting .*\n  well\.0 +ready .*\n  well\.1 +ready `)
	x.shows(`^── next: crash\.0 starts in \d+min`)
	t.Logf("80x24:\n%s", x.screen())
	if !strings.Contains(x.tmux("capture-pane", "-pe"), "\x1b[32mready") {
		t.Error("ready is not green")
	}

	first := x.pidOf("well.1")
	kill(t, first, unix.SIGKILL)
	x.shows(`^\d\d:\d\d:\d\d well\.1 +ready → waiting +signal: killed by SIGKILL`)
	x.shows(`^\d\d:\d\d:\d\d well\.1 +(waiting|starting) → ready`)
	if pid := x.pidOf("well.1"); pid == first || pid != int(x.rig.slot("well.1").MainPID) {
		t.Errorf("well.1 is shown as %d, was %d, is %d", pid, first, x.rig.slot("well.1").MainPID)
	}

	x.keys("s")
	x.shows(`^── 3 slots, by name`)
	x.keys("/", "w", "e", "l", "Enter")
	x.shows(`^── 2 of 3 slots with "wel", by name[^\n]*\n[^\n]*\n► well\.0 `)
	first = x.pidOf("well.0")
	x.keys("r")
	x.shows(`^ restart well\.0\? y/n`)
	x.keys("n")
	x.shows(`^restart well\.0: not done`)
	x.keys("r", "y")
	x.shows(`^restart well\.0: under way`)
	x.rig.eventually("another process", func() bool { pid := x.pidOf("well.0"); return pid != first && alive(pid) })

	x.tmux("resize-window", "-x", "120", "-y", "40")
	x.shows(`RESTARTS .* NOW`)
	t.Logf("120x40:\n%s", x.screen())
	x.tmux("resize-window", "-x", "60", "-y", "15")
	x.shows(`CPU PRIVATE$`)
	x.shows(`^\? help[^\n]*\n?\z`)
	t.Logf("60x15:\n%s", x.screen())
	x.tmux("resize-window", "-x", "1", "-y", "1")
	x.tmux("resize-window", "-x", "80", "-y", "24")
	x.shows(`^  SLOT .* MEMORY`)

	x.keys("C-z")
	x.shows(`\Athe shell\n(.|\n)*Stopped`)
	_ = os.Remove(x.rig.path("after")) // it is written once more
	x.keys("-l", "fg; echo exit=$?; stty -a >"+x.rig.path("after"))
	x.keys("Enter")
	x.shows(`^── 2 of 3 slots`)
	x.keys("q")
	x.isBack()
}

// TestTopOutlivesItsMaster, and a signal leaves the terminal as it was.
func TestTopOutlivesItsMaster(t *testing.T) {
	x := inTerminal(t, watchedFleet)
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT} {
		x.top("NO_COLOR=1")
		x.shows(`^  well\.1 +ready`)
		if screen := x.tmux("capture-pane", "-pe"); regexp.MustCompile("\x1b\\[[0-9;]*[34][0-7]m").MatchString(screen) {
			t.Errorf("colours:\n%q", screen)
		}
		kill(t, x.view(), sig)
		x.isBack()
	}
	x.keys("-l", "TERM=dumb "+filepath.Join(x.dir, "prefork")+" top "+x.rig.path("fleet.toml")+"; echo exit=$?")
	x.keys("Enter")
	x.shows(`TERM is "dumb(.|\n)*exit=1\n`)

	x.top("")
	x.shows(`^  well\.1 +ready`)
	x.rig.signal(unix.SIGSTOP)
	x.shows(`^fleet  the master has not answered for \d+s`)
	x.keys("?")
	x.shows(`^any key goes back`)
	x.keys("?")
	x.rig.signal(unix.SIGCONT)
	x.shows(`^fleet  active`)
	x.rig.signal(unix.SIGTERM)
	x.shows(`^fleet  the master has been gone for \d+s`)
	x.keys("C-c")
	x.isBack()
}

// TestTopWithoutAView says what is missing, and of a fleet what status does.
func TestTopWithoutAView(t *testing.T) {
	r := startSeen(t, "[worker.w]\nexec = [\"sleep\", \"987682\"]\n")
	r.waitReady()
	r.write("idle.toml", "[worker.w]\nexec = [\"true\"]\n")
	built := filepath.Join(buildPrograms(t), "prefork")
	installed := filepath.Join(t.TempDir(), "bin", "prefork")
	install := func(from, to string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(from, to); err != nil {
			t.Fatal(err)
		}
	}
	says := func(program, fleet, want string) {
		t.Helper()
		cmd := exec.Command(program, "top", fleet)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != exit.Failure || !strings.Contains(string(out), want) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%s top %s: exit status %d: %s", program, fleet, code, out)
		}
	}
	const works = "prefork top: a view needs a terminal; without one: prefork status "
	says(built, r.path("fleet.toml"), works)
	says(built, r.path("idle.toml"), "does not run; start it: prefork run ")
	says(built, "nosuchfleet", "no fleet runs by that name")
	install(built, installed)
	says(installed, r.path("fleet.toml"), "is not installed: install prefork-view")
	install(built+"-view", filepath.Join(filepath.Dir(installed), "../lib/prefork", viewName))
	says(installed, r.path("fleet.toml"), works)
}
