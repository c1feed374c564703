// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/decnet/prefork/supervisor/rundir"
)

// says runs prefork, and wants an exit status and words in what it prints.
func says(t *testing.T, code int, words []string, args ...string) {
	t.Helper()
	out, stderr, got := prefork(t, args...)
	for _, want := range words {
		if !strings.Contains(out+stderr, want) {
			t.Errorf("prefork %s: no %q in\n%s%s", strings.Join(args, " "), want, out, stderr)
		}
	}
	if got != code {
		t.Errorf("prefork %s: exit status %d, want %d:\n%s%s", strings.Join(args, " "), got, code, out, stderr)
	}
}

// A fleet that runs from a file is found by its name, as prefork status lists it, as long as
// no other has it.
func TestFleetOfAFileIsFoundByItsName(t *testing.T) {
	name := fmt.Sprintf("hands%d", os.Getpid())
	r := startSeen(t, "[worker.w]\nexec = [\"sleep\", \"987681\"]\n")
	r.waitReady()
	r.write(name+".toml", "[worker.w]\nexec = [\"sleep\", \"987682\"]\ncount = 2\n")
	named := beside(t, r, name+".toml")
	says(t, 0, []string{name + ": active, 2/2 ready", named}, "status", name)
	says(t, 0, []string{"w.1 has been ready for"}, "why", name, "w.1")
	says(t, 0, []string{"  all is well"}, "why", name)
	says(t, 0, []string{"starting -> ready"}, "logs", name)
	says(t, 0, []string{"-> "}, "restart", name, "w.0")
	says(t, 0, []string{"active\n"}, "is-active", name)
	says(t, 1, []string{"did you mean " + name + ", which runs?"}, "status", "x"+name)
	if out, _, _ := prefork(t, "__complete", "status", ""); !slices.Contains(strings.Split(out, "\n"), name) {
		t.Errorf("completed: %s", out)
	}

	if err := os.Mkdir(r.path("other"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("other/"+name+".toml", "[worker.w]\nexec = [\"sleep\", \"987683\"]\n")
	other := beside(t, r, "other/"+name+".toml")
	says(t, 1, []string{"2 fleets run by the name", named, other}, "status", name)
	says(t, 0, []string{name + ": stopped"}, "stop", other)
	says(t, 3, []string{"inactive"}, "is-active", other)
	says(t, 0, []string{name + ": stopped"}, "stop", name)
	says(t, 4, []string{"inactive"}, "is-active", name)
	says(t, 0, []string{"active"}, "is-active", r.path("fleet.toml"))
}

// beside runs another fleet file of the folder of a rig, until it is found.
func beside(t *testing.T, r *rig, file string) (path string) {
	t.Helper()
	cmd := exec.Command(self(t), "run", r.path(file))
	cmd.Env = append(environment(t), "PREFORK_TEST_ROLE=prefork", "XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is told to stop
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-ended
	})
	eventually(t, file+" runs", func() bool {
		_, _, code := prefork(t, "is-active", "--quiet", r.path(file))
		return code == 0
	})
	return r.path(file)
}

// start, stop and restart --now are done when they return, and say what has come of them.
func TestCommandsWaitForSlots(t *testing.T) {
	r := startSeen(t, `
ready_when = 2
[worker.w]
exec = ["sleep", "987684"]
[worker.slow]
exec = ["sh", "-c", "trap 'sleep 0.3; exit 0' TERM; touch DIR/trapped; while :; do sleep 0.1; done"]
[worker.crash]
exec = ["sh", "-c", "exit 3"]
restart_sec = "10min"
restart_max_delay_sec = "10min"
`)
	r.waitReady()
	r.eventually("a trap", func() bool { _, err := os.Stat(r.path("trapped")); return err == nil })
	file, before := r.path("fleet.toml"), r.slot("w.0").MainPID
	says(t, 0, []string{"slow.0: stopped\n"}, "stop", file, "slow")
	if s := r.slot("slow.0"); s.State != "exited" {
		t.Errorf("it is %s", s.State)
	}
	says(t, 0, []string{"slow.0: ready, ", "w.0: ready, " + fmt.Sprint(before)}, "start", file, "slow.0", "w")
	out, _, _ := prefork(t, "restart", "--now", file, "w.0", "w")
	if !strings.HasPrefix(out, fmt.Sprintf("w.0: %d -> ", before)) || strings.Count(out, "\n") != 1 {
		t.Errorf("restart --now: %q", out)
	}
	says(t, 1, []string{"crash.0: exit-code: exited with status 3"}, "start", file, "crash")
	says(t, 0, []string{"fleet: active, 2/3 ready", "\n  crash.0: waiting for ", "exited with status 3", "prefork why " + file + " crash.0"}, "why", file)
	says(t, 0, []string{`"well": false`, `"what": "crash.0"`}, "why", "--json", file)
	says(t, 0, []string{`"name": "crash.0"`, `"history": [`, `"text": "starting -`}, "why", "--json", file, "crash.0")
	says(t, 1, []string{`"result":"failed"`}, "restart", "--now", "--json", file, "crash.0")
	if out, stderr, code := prefork(t, "stop", "--no-wait", file, "w"); out+stderr != "" || code != 0 {
		t.Errorf("--no-wait: exit status %d, %q, %q", code, out, stderr)
	}
	says(t, 0, []string{"fleet: stopped"}, "stop", file)
	if r.wait() != 0 {
		t.Error("the master was not stopped in order")
	}
}

// What hands are used to from kill(1), systemctl and others, and slips of the fingers.
func TestWordsOfOthers(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"stauts", "did you mean status?"},
		{"rel", "did you mean reload?"},
		{"reread", "prefork reload --dry-run FLEET"},
		{"tail -f x", "prefork logs -f FLEET"},
		{"shutdown --help", "prefork stop FLEET"},
		{"help xyz", `there is no command "xyz"`},
		{"status a b", "status takes one FLEET at most"},
	} {
		says(t, 2, []string{c.want}, strings.Fields(c.args)...)
	}
	says(t, 0, []string{"prefork "}, "--version")
	says(t, 0, []string{"FLEET  STATE"}, "ps")
	r := startSeen(t, "[worker.w]\nexec = [\"sh\", \"-c\", \"trap 'echo got it >> DIR/hup' HUP; touch DIR/trapped; while :; do sleep 0.05; done\"]\n")
	r.waitReady()
	r.eventually("a trap", func() bool { _, err := os.Stat(r.path("trapped")); return err == nil })
	for i, signal := range []string{"-HUP", "-1", "-SIGHUP", "-s HUP"} {
		says(t, 0, nil, append(append([]string{"kill"}, strings.Fields(signal)...), r.path("fleet.toml"), "w.0")...)
		r.eventually(signal, func() bool {
			text, _ := os.ReadFile(filepath.Join(r.dir, "hup")) // it may not be there yet
			return strings.Count(string(text), "got it") == i+1
		})
	}
	if out, _, _ := prefork(t, "__complete", "kill", "--signal", ""); !strings.Contains(out, "HUP\n") {
		t.Errorf("completed: %s", out)
	}

	t.Chdir(t.TempDir())
	if err := os.WriteFile("demo.toml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, 78, []string{"did you mean ./demo.toml?"}, "run", "demo")
}

// Events of a fleet that runs from a file are followed until its master ends.
func TestLogsFollowTheEventsOfAFile(t *testing.T) {
	r := startSeen(t, "[worker.w]\nexec = [\"sleep\", \"987685\"]\n")
	r.waitReady()
	cmd := exec.Command(self(t), "logs", "-f", "-n", "1", r.path("fleet.toml"))
	cmd.Env = append(os.Environ(), "PREFORK_TEST_ROLE=prefork")
	out, err := os.Create(r.path("followed"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // if it has not ended by itself
	followed := func() string {
		text, _ := os.ReadFile(r.path("followed"))
		return string(text)
	}
	r.eventually("the last event", func() bool { return strings.Contains(followed(), "w.0: starting -> ready") })
	if n := strings.Count(followed(), "\n"); n != 1 {
		t.Errorf("-n 1 prints %d lines:\n%s", n, followed())
	}
	says(t, 0, nil, "restart", "--now", r.path("fleet.toml"), "w.0")
	r.eventually("what follows", func() bool { return strings.Contains(followed(), "w.0: ready -> stopping: restart by") })
	says(t, 0, nil, "stop", r.path("fleet.toml"))
	if err := cmd.Wait(); err != nil {
		t.Errorf("at the end of the master: %v", err)
	}
}

// A user who has no runtime directory, and may not look at the fleets of root, is told of
// those in one line, and finds those that are the user's own.
func TestStatusOfAnotherUser(t *testing.T) {
	needRoot(t)
	r := startSeen(t, "[worker.w]\nexec = [\"sleep\", \"987686\"]\n")
	r.waitReady()
	r.open()
	as := func(args ...string) *exec.Cmd {
		cmd := exec.Command(r.path("prefork"), args...)
		cmd.Env = append(environment(t), "PREFORK_TEST_ROLE=prefork", "TMPDIR="+r.path("tmp"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return cmd
	}
	if err := errors.Join(os.Link(self(t), r.path("prefork")), os.Mkdir(r.path("tmp"), 0o700), os.Chown(r.path("tmp"), 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	r.write("own.toml", "[worker.w]\nexec = [\"sleep\", \"987687\"]\n")
	own := as("run", r.path("own.toml"))
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = own.Process.Signal(os.Interrupt)
		_ = own.Wait() // it was told to
	})
	eventually(t, "the fleet is found", func() bool { return as("is-active", r.path("own.toml")).Run() == nil })
	out, errs, code := outputOf(t, as("status"))
	if code != 0 || !strings.Contains(out, "\nown ") || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "sudo prefork status") {
		t.Errorf("exit status %d: %s%s", code, out, errs)
	}
}

// A master whose control socket somebody has removed is not said to be none.
func TestMasterWhoseSocketIsGone(t *testing.T) {
	r := startSeen(t, "[worker.w]\nexec = [\"sleep\", \"987688\"]\n")
	r.waitReady()
	all, err := rundir.ControlsOfFile(r.path("fleet.toml"))
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	if err := os.Remove(all[0].Socket); err != nil {
		t.Fatal(err)
	}
	says(t, 1, []string{"runs, and cannot be reached: somebody has removed " + all[0].Socket}, "status", r.path("fleet.toml"))
}

// A socket whose last slot has finished goes on to listen: that is said once, and seen.
func TestSocketThatNobodyServes(t *testing.T) {
	r := startSeen(t, `
ready_when = 1
[socket.http]
listen = "DIR/http.sock"
[worker.web]
exec = ["true"]
sockets = ["http"]
[worker.other]
exec = ["sleep", "987689"]
`)
	r.waitReady()
	const text = "socket http: no slot is left that serves it"
	r.eventually("STATUS= says so", func() bool { return strings.Contains(r.status(), text) })
	says(t, 0, []string{"sockets: no slot is left that serves http"}, "why", r.path("fleet.toml"))
	says(t, 0, []string{`"unserved_sockets": "http"`}, "status", "--json", r.path("fleet.toml"))
	says(t, 0, []string{"web.0: finished"}, "start", r.path("fleet.toml"), "web")
	r.eventually("the log says so", func() bool { return strings.Contains(r.logged(), text) })
}
