// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal makes a terminal: what shows it, and what is in it. It hangs up
// when what shows it is closed.
func openTerminal(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return screen, terminal
}

// ignoring has the fleet started by a shell that ignores these signals.
func (r *rig) ignoring(signals string) {
	r.t.Helper()
	shell, err := exec.LookPath("sh")
	if err != nil {
		r.t.Fatal(err)
	}
	r.cmd.Path = shell
	r.cmd.Args = append([]string{"sh", "-c", "trap '' " + signals + `; exec "$@"`, "sh", self(r.t)}, r.cmd.Args[1:]...)
}

// replaces kills the slot's process and waits for the next: a master that stops
// its fleet starts none. It returns the new one.
func (r *rig) replaces(title string) process {
	r.t.Helper()
	before := r.child(title)
	kill(r.t, before.pid, unix.SIGKILL)
	var after process
	r.eventually("a successor of "+title, func() bool {
		found := r.children(title)
		if len(found) != 1 || found[0].pid == before.pid {
			return false
		}
		after = found[0]
		return true
	})
	return after
}

const talker = `
[worker.a]
exec = ["sh", "-c", "trap 'trap \"\" USR1; seq 100000; touch DIR/said' USR1; while :; do sleep 0.01; done"]
restart = "always"
restart_sec = "1ms"
`

// When the terminal hangs up the fleet ends in order, wherever it writes its log;
// unless SIGHUP was ignored when it was started: then it goes on, and what is said
// to the terminal that is gone stops nobody.
func TestTerminalHangsUp(t *testing.T) {
	for name, c := range map[string]struct{ ignored, inTerminal bool }{
		"log in the terminal":          {false, true},
		"log elsewhere":                {false, false},
		"ignored, log in the terminal": {true, true},
		"ignored, log elsewhere":       {true, false},
	} {
		t.Run(name, func(t *testing.T) {
			screen, terminal := openTerminal(t)
			r := prepare(t, talker)
			if c.ignored {
				r.ignoring("HUP")
			}
			r.cmd.Stdin, r.cmd.Stdout = terminal, terminal
			r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
			if c.inTerminal {
				r.cmd.Stderr = terminal
				if err := r.cmd.Start(); err != nil {
					t.Fatal(err)
				}
				r.watch(strings.NewReader(""))
			} else {
				r.start()
			}
			r.waitReady()
			if err := screen.Close(); err != nil {
				t.Fatal(err)
			}
			if !c.ignored {
				if code := r.wait(); code != 0 {
					t.Errorf("exit status %d, want 0", code)
				}
				return
			}
			worker := r.replaces("sh -c trap")
			r.eventually("the worker has said what it has to say", func() bool {
				_ = unix.Kill(worker.pid, unix.SIGUSR1) // not before it has its handler
				_, err := os.Stat(r.path("said"))
				return err == nil || !alive(worker.pid)
			})
			r.signal(unix.SIGTERM)
			if code := r.wait(); code != 0 {
				t.Errorf("exit status %d, want 0", code)
			}
		})
	}
}

// A shell without job control has what it runs in the background ignore the
// Ctrl-C and the Ctrl-\ that are for what it runs in the foreground. SIGTERM is for
// the fleet, and a worker ignores SIGPIPE alone.
func TestCtrlCForAnother(t *testing.T) {
	r := prepare(t, talker)
	r.ignoring("HUP INT QUIT TERM")
	r.start()
	r.waitReady()
	worker := r.child("sh -c trap")
	for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGHUP} {
		r.signal(sig)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", worker.pid))
	if err != nil || !regexp.MustCompile(`(?m)^SigIgn:\s0{12}1000$`).Match(status) {
		t.Errorf("what a worker ignores is not SIGPIPE alone (%v):\n%s", err, status)
	}
	r.replaces("sh -c trap")
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
}

// Without a terminal nothing can hang up: SIGHUP does not end the fleet.
func TestHangupWithoutATerminal(t *testing.T) {
	r := prepare(t, talker)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r.start()
	r.waitReady()
	r.signal(unix.SIGHUP)
	r.replaces("sh -c trap")
	r.signal(unix.SIGINT)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
}
