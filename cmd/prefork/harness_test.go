// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/gate"
)

// patience is how long a test waits for a fact. It is generous: machines are
// slow, and a fact that never comes is what a test is for.
const patience = 5 * time.Minute

// The test binary is also the program, and the shim, which is the program too.
func TestMain(m *testing.M) {
	if os.Args[0] == gate.ShimName {
		gate.RunShim()
	}
	switch os.Getenv("PREFORK_TEST_ROLE") {
	case "container":
		becomeContainer()
	case "prefork":
		_ = os.Unsetenv("PREFORK_TEST_ROLE") // workers shall not see it
		os.Exit(execute(os.Args[1:]))
	}
	code := m.Run()
	if builtDir != "" {
		_ = os.RemoveAll(builtDir)
	}
	os.Exit(code)
}

// rig is one master under test.
type rig struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	notify *net.UnixConn
	exited chan struct{}
	state  *os.ProcessState // set when exited is closed

	mu   sync.Mutex
	log  bytes.Buffer
	said []string // notifications, in order
}

// start runs a fleet file as `prefork run`. In the file, DIR stands for a
// folder of the test's own, in which app.py lies.
func start(t *testing.T, file string, args ...string) *rig {
	t.Helper()
	r := prepare(t, file)
	r.start(args...)
	return r
}

func prepare(t *testing.T, file string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), exited: make(chan struct{})}
	if err := os.Chmod(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	app, err := os.ReadFile("testdata/app.py")
	if err != nil {
		t.Fatal(err)
	}
	r.write("app.py", string(app))
	r.write("fleet.toml", strings.ReplaceAll(file, "DIR", r.dir))
	r.cmd = exec.Command(self(t), "run", r.path("fleet.toml"))
	r.cmd.Env = append(environment(t), "PREFORK_TEST_ROLE=prefork", "OUT="+r.path("out"))
	r.cmd.Dir = r.dir
	r.listenForNotifications()
	return r
}

// environment is small, so that a test can compare all of it. The interpreter is
// the one that python3 in PATH stands for, which may be a script that sets
// variables of its own.
func environment(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Fatalf("python3: %v", err)
	}
	return []string{
		"PATH=" + filepath.Dir(strings.TrimSpace(string(out))) + ":/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", "GORACE=atexit_sleep_ms=0",
	}
}

func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func (r *rig) start(args ...string) {
	r.t.Helper()
	r.cmd.Args = append(r.cmd.Args, args...)
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.watch(stderr)
}

// watch copies the log to the test's and takes the program's end.
func (r *rig) watch(stderr io.Reader) {
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			r.mu.Lock()
			fmt.Fprintln(&r.log, lines.Text())
			r.mu.Unlock()
		}
	}()
	go func() {
		// A worker may hold the pipe longer than its master lives.
		r.state, _ = r.cmd.Process.Wait()
		close(r.exited)
	}()
	r.t.Cleanup(func() {
		r.stop()
		// A master that was killed leaves its runtime directory behind.
		hash := sha256.Sum256([]byte(r.path("fleet.toml")))
		_ = os.RemoveAll(fmt.Sprintf("/run/prefork/fleet-%x", hash[:4]))
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.t.Failed() {
			r.t.Logf("log:\n%s", r.log.String())
		}
	})
}

// stop ends the master at the end of a test, whatever state it is in.
func (r *rig) stop() {
	select {
	case <-r.exited:
		return
	default:
	}
	_ = r.cmd.Process.Signal(unix.SIGCONT)
	_ = r.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-r.exited:
	case <-time.After(patience):
		r.t.Errorf("the master did not end within %s of SIGTERM", patience)
		_ = r.cmd.Process.Kill()
		<-r.exited
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path(name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// needRoot skips a test that changes users; where everything must run it fails.
func needRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") == "true":
		t.Fatal("only root may change users, and with CI=true nothing is skipped")
	default:
		t.Skip("only root may change users")
	}
}

// open lets other users come to the test's folder.
func (r *rig) open() {
	for dir := r.dir; dir != filepath.Dir(os.TempDir()) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
	}
}

func (r *rig) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

func (r *rig) pid() int { return r.cmd.Process.Pid }

func (r *rig) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// wait waits for the master's end and returns its exit status.
func (r *rig) wait() int {
	r.t.Helper()
	select {
	case <-r.exited:
	case <-time.After(patience):
		r.t.Fatalf("the master did not end within %s", patience)
	}
	return r.state.ExitCode()
}

func (r *rig) waitReady() {
	r.t.Helper()
	r.eventually("READY=1", func() bool {
		select {
		case <-r.exited:
			r.t.Fatal("the master ended before it was ready")
		default:
		}
		return slices.Contains(r.notifications(), "READY=1")
	})
}

// status is the last STATUS= line.
func (r *rig) status() string {
	last := ""
	for _, line := range r.notifications() {
		if text, ok := strings.CutPrefix(line, "STATUS="); ok {
			last = text
		}
	}
	return last
}

// eventually waits until a fact is true.
func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	eventually(r.t, what, is)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// get asks the fleet's Unix socket "http" and returns the pid that answers.
func (r *rig) get() (int, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.path("http.sock"))
		},
	}}
	resp, err := client.Get("http://fleet/")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(body)))
}

// seen is what workers wrote to the file OUT.
func (r *rig) seen() []note {
	text, err := os.ReadFile(r.path("out"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	var notes []note
	for line := range strings.Lines(string(text)) {
		var n note
		if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &n) == nil {
			notes = append(notes, n)
		}
	}
	return notes
}

func (r *rig) waitNotes(n int) []note {
	r.t.Helper()
	r.eventually(fmt.Sprintf("%d notes of workers", n), func() bool { return len(r.seen()) >= n })
	return r.seen()
}
