// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// prefork runs the program to its end.
func prefork(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(self(t), args...)
	cmd.Env = append(os.Environ(), "PREFORK_TEST_ROLE=prefork", "GORACE=atexit_sleep_ms=0")
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := (*exec.ExitError)(nil); cmd.Run() != nil && !errors.As(cmd.Err, &e) && cmd.ProcessState == nil {
		t.Fatal(cmd.Err)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.toml"), filepath.Join(dir, "bad.toml")
	if err := os.WriteFile(good, []byte("[worker.a]\nexec = [\"true\"]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte("[worker.a]\nexec = [\"true\"]\ncuont = 3\nnice = \"x\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"", 2, "", "a command is missing"},
		{"help", 0, "Available Commands", ""},
		{"--help", 0, "Available Commands", ""},
		{"run --help", 0, "--stop-after", ""},
		{"version", 0, "prefork ", ""},
		{"completion bash", 0, "__start_prefork", ""},
		{"completion zsh", 0, "#compdef prefork", ""},
		{"completion fish", 0, "complete -c prefork", ""},
		{"frobnicate", 2, "", "frobnicate"},
		{"run", 2, "", "takes one FLEET"},
		{"run a b", 2, "", "takes one FLEET"},
		{"run --nope x", 2, "", "--nope"},
		{"run --stop-after never " + good, 2, "", "--stop-after"},
		{"run ..name", 2, "", "..name"},
		{"run " + dir + "/missing.toml", 78, "", "missing.toml"},
		{"run " + bad, 78, "", "bad.toml:3"},
		{"check " + bad, 78, "", `count`},
		{"check " + bad, 78, "", "bad.toml:4"},
		{"check " + dir, 78, "", dir},
		{"check " + good, 0, "[worker.a]", ""},
		{"why " + good + " a.0", 1, "", "does not run"},
		{"restart", 2, "", "restart takes a FLEET"},
		{"stop --sockets fleet web", 2, "", "name no slots"},
		{"scale fleet", 2, "", "scale takes a FLEET and a WORKER=N"},
		{"scale fleet web", 2, "", "must be WORKER=N"},
		{"scale fleet web=-1", 2, "", "must be WORKER=N"},
		{"reload", 2, "", "reload takes one FLEET"},
		{"restart " + good, 2, "", "Ctrl-C"},
		{"restart " + good + " a", 1, "", "does not run"},
		{"start no-such-fleet", 1, "", "there is no no-such-fleet.toml"},
		{"stop ..name", 2, "", "..name"},
		{"kill " + good, 2, "", "kill takes a FLEET and a WORKER"},
		{"kill -s NOPE " + good + " a", 2, "", "must be a signal"},
		{"reset " + good, 1, "", "does not run"},
		{"logs", 2, "", "logs takes a FLEET"},
		{"logs " + good, 1, "", "does not run; start it"},
		{"logs -f " + good, 1, "", "does not run; start it"},
		{"logs ..name", 2, "", "..name"},
		{"status a b", 2, "", "status takes one FLEET at most"},
		{"status ..name", 2, "", "..name"},
		{"status " + good, 1, "", "does not run; start it: prefork run " + good},
		{"status " + dir + "/missing.toml", 1, "", "missing.toml: no such file"},
		{"status no-such-fleet", 1, "", "there is no no-such-fleet.toml in /etc/prefork"},
	} {
		t.Run(c.args, func(t *testing.T) {
			stdout, stderr, code := prefork(t, strings.Fields(c.args)...)
			if code != c.code {
				t.Errorf("exit status %d, want %d", code, c.code)
			}
			if !strings.Contains(stdout, c.stdout) || c.stdout == "" && stdout != "" {
				t.Errorf("stdout %q, want %q", stdout, c.stdout)
			}
			if !strings.Contains(stderr, c.stderr) || c.stderr == "" && stderr != "" {
				t.Errorf("stderr %q, want %q", stderr, c.stderr)
			}
		})
	}
}

func TestInitWritesWhatCheckAccepts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.toml")
	if _, stderr, code := prefork(t, "init", path); code != 0 {
		t.Fatalf("init: %d %s", code, stderr)
	}
	if _, stderr, code := prefork(t, "check", path); code != 0 {
		t.Errorf("check: %d %s", code, stderr)
	}
	before, _ := os.ReadFile(path)
	if _, stderr, code := prefork(t, "init", path); code != 1 || !strings.Contains(stderr, path) {
		t.Errorf("a second init: %d %s, want 1 and the file's name", code, stderr)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the file was changed")
	}
	if stdout, _, _ := prefork(t, "init"); stdout != string(before) {
		t.Error("init without a file prints something else")
	}
}

// A bad file says so to the service manager too.
func TestBadFileIsNotified(t *testing.T) {
	r := start(t, "[worker.a]\nexec = [\"true\"]\ncuont = 3\n")
	if code := r.wait(); code != 78 {
		t.Errorf("exit status %d, want 78", code)
	}
	if !strings.Contains(r.status(), "fleet.toml:3") {
		t.Errorf("STATUS is %q", r.status())
	}
	if !slices.Contains(r.notifications(), "EXIT_STATUS=78") {
		t.Errorf("EXIT_STATUS=78 was not sent: %v", r.notifications())
	}
}

// The master survives that nobody reads its log, and so do the workers.
func TestLogReaderGoes(t *testing.T) {
	r := prepare(t, webFleet)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = write
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	r.watch(strings.NewReader(""))
	r.waitReady()
	_ = read.Close()
	r.signal(unix.SIGPIPE)
	kill(t, r.child("prefork: web.0").pid, unix.SIGKILL) // makes it log
	r.eventually("all slots are back", func() bool { return len(r.children("prefork: web.")) == 4 })
	if _, err := r.get(); err != nil {
		t.Error(err)
	}
}

// Nobody reads the notifications: the loop goes on.
func TestNotifySocketIsFull(t *testing.T) {
	r := prepare(t, webFleet)
	path := r.path("deaf")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	r.cmd.Env = append(slices.DeleteFunc(r.cmd.Env, func(kv string) bool { return strings.HasPrefix(kv, "NOTIFY_SOCKET=") }),
		"NOTIFY_SOCKET="+path, "WATCHDOG_USEC=20000")
	r.start()
	r.eventually("all workers", func() bool { return len(r.children("prefork: web.")) == 4 })
	for range 3 {
		pid, err := r.get()
		if err != nil {
			t.Fatal(err)
		}
		kill(t, pid, unix.SIGKILL)
		r.eventually("all slots are back", func() bool {
			return !alive(pid) && len(r.children("prefork: web.")) == 4
		})
	}
}

func TestWatchdogIsFed(t *testing.T) {
	r := prepare(t, "[worker.w]\nexec = [\"sleep\", \"987690\"]\n")
	r.cmd.Env = append(r.cmd.Env, "WATCHDOG_USEC=100000")
	r.start()
	pings := func() (n int) {
		for _, line := range r.notifications() {
			if line == "WATCHDOG=1" {
				n++
			}
		}
		return n
	}
	r.eventually("twenty pings", func() bool { return pings() >= 20 })
	r.signal(unix.SIGSTOP)
	r.eventually("it is stopped", func() bool {
		return strings.Contains(fileText(fmt.Sprintf("/proc/%d/stat", r.pid())), ") T")
	})
	n := pings()
	time.Sleep(300 * time.Millisecond) // three intervals: what must not happen has had its time
	if pings() > n+1 {
		t.Error("a master that is stopped is still pinging")
	}
	r.signal(unix.SIGCONT)
}

func fileText(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}

// In a terminal each line of a worker carries its name, and Ctrl-C stops.
func TestTerminal(t *testing.T) {
	r := prepare(t, `
[floor]
path = ["DIR"]
preload = ["app"]
[worker.web]
entry = "app:say"
[worker.prog]
exec = ["sh", "-c", "echo from a program; sleep 987700"]
`)
	pty, tty := openPTY(t)
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = tty, tty, tty
	r.cmd.Env = append(r.cmd.Env, "NO_COLOR=1")
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = tty.Close()
	r.watch(pty)
	for _, want := range []string{"web.0   | to stdout", "web.0   | to stderr", "prog.0  | from a program", "prefork | "} {
		r.eventually(want, func() bool { return strings.Contains(r.logged(), want) })
	}
	if _, err := io.WriteString(pty, "\x03"); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
	r.eventually("the unfinished line", func() bool { return strings.Contains(r.logged(), "web.0   | unfinished") })
	r.eventually("the last line", func() bool { return strings.Contains(r.logged(), "fleet shut down") })
}

func openPTY(t *testing.T) (pty, tty *os.File) {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(pty.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(pty.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return pty, tty
}

// A master that is not root says at once what it cannot do.
func TestUnprivilegedMasterRefusesUsers(t *testing.T) {
	needRoot(t)
	r := prepare(t, "[worker.w]\nexec = [\"true\"]\nuser = \"root\"\n")
	r.open()
	exe := r.path("prefork-test")
	data, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, data, 0o755); err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(r.path("notify"), 0o777)
	r.cmd.Path = exe
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	r.start()
	if code := r.wait(); code != 78 {
		t.Errorf("exit status %d, want 78", code)
	}
	if !strings.Contains(r.logged(), "worker.w.user") {
		t.Error("the log does not name the key")
	}
}
