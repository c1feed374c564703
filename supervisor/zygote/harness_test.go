// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// TestMain makes the test process a child subreaper, as the master is: the
// workers become its children.
func TestMain(m *testing.M) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "prctl:", err)
		os.Exit(1)
	}
	// What the test process was started with must not be in the workers' tables.
	if err := unix.CloseRange(3, 1<<30, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, "close_range:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// pythons returns the interpreters to test with: that of PATH, those that pyenv
// has installed, and those that PREFORK_TEST_PYTHONS lists.
var pythons = sync.OnceValue(func() []string {
	var found []string
	if out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output(); err == nil {
		found = append(found, strings.TrimSpace(string(out)))
	}
	for _, version := range []string{"3.11.7", "3.12.1", "3.13.0"} {
		found = append(found, pyenv(version)...)
	}
	found = append(found, filepath.SplitList(os.Getenv("PREFORK_TEST_PYTHONS"))...)
	var unique []string
	for _, python := range found {
		if !strings.Contains("\n"+strings.Join(unique, "\n")+"\n", "\n"+python+"\n") {
			unique = append(unique, python)
		}
	}
	return unique
})

// pyenv returns the interpreter of a version if it is installed.
func pyenv(version string) []string {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	python := filepath.Join(home, ".pyenv", "versions", version, "bin", "python3")
	if _, err := os.Stat(python); err != nil {
		return nil
	}
	return []string{python}
}

// forEachPython runs a test under every interpreter that there is.
func forEachPython(t *testing.T, test func(t *testing.T, python string)) {
	t.Helper()
	if len(pythons()) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("no python3 in PATH")
		}
		t.Skip("no python3 in PATH")
	}
	t.Logf("interpreters: %s", strings.Join(pythons(), " "))
	for _, python := range pythons() {
		version, err := exec.Command(python, "-c", "import platform; print(platform.python_version())").Output()
		if err != nil {
			t.Errorf("%s: %v", python, err)
			continue
		}
		t.Run(strings.TrimSpace(string(version)), func(t *testing.T) { test(t, python) })
	}
}

// playedZygote is a zygote whose master is the test.
type playedZygote struct {
	t       *testing.T
	cmd     *exec.Cmd
	command int    // our end of the command socket
	stderr  string // a file with its output, and that of workers without their own
	next    uint64
	done    bool // it has been waited for
}

// start starts a zygote and sends it nothing. Options change the command.
func start(t *testing.T, python string, options ...func(*exec.Cmd)) *playedZygote {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("socketpair", err))
	}
	limitWaiting(t, pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "command")
	defer theirs.Close()
	source := memfd(t, string(Source()))
	defer source.Close()
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	cmd := exec.Command(python)
	cmd.Stdout, cmd.Stderr = stderr, stderr
	cmd.ExtraFiles = []*os.File{theirs, source}
	reserve(4)(cmd)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = append(os.Environ(), "PYTHONUNBUFFERED=") // buffers are what some tests are about
	for _, option := range options {
		option(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	z := &playedZygote{t: t, cmd: cmd, command: pair[0], stderr: stderr.Name()}
	t.Cleanup(z.close)
	return z
}

// reserve holds numbers for that many sockets, as the shim does.
func reserve(n int) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		last := len(cmd.ExtraFiles) - 2 // the command socket and the program
		cmd.Args = Argv(cmd.Path, n)
		cmd.ExtraFiles = slices.Concat(make([]*os.File, n), cmd.ExtraFiles[last:])
		for i := range n {
			cmd.ExtraFiles[i] = devNull()
		}
	}
}

var devNull = sync.OnceValue(func() *os.File {
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	return f
})

func limitWaiting(t *testing.T, fd int) {
	t.Helper()
	limit := unix.NsecToTimeval(int64(testutil.Patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(os.NewSyscallError("setsockopt", err))
	}
}

func memfd(t *testing.T, text string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(os.NewSyscallError("memfd_create", err))
	}
	f := os.NewFile(uintptr(fd), "memfd")
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f
}

// load starts a zygote that loads testdata/probe.py, or what change makes of
// that, and waits until it has.
func load(t *testing.T, python string, change func(*LoadRequest), options ...func(*exec.Cmd)) *playedZygote {
	t.Helper()
	z := start(t, python, options...)
	z.send(floor(t, change).Encode())
	for {
		switch m := z.read(); m.Kind {
		case Progress:
		case Loaded:
			return z
		default:
			t.Fatalf("while loading: %+v\n%s", m, z.output())
		}
	}
}

// loadBroken is load for a floor that must not load. It returns the cause.
func loadBroken(t *testing.T, python string, change func(*LoadRequest), options ...func(*exec.Cmd)) (cause, output string) {
	t.Helper()
	z := start(t, python, options...)
	z.send(floor(t, change).Encode())
	for {
		switch m := z.read(); m.Kind {
		case Progress:
		case Broken:
			if code := z.wait(); code != 1 {
				t.Errorf("the zygote of a broken floor exits %d, want 1", code)
			}
			return m.Text, z.output()
		default:
			t.Fatalf("while loading: %+v\n%s", m, z.output())
		}
	}
}

func floor(t *testing.T, change func(*LoadRequest)) LoadRequest {
	t.Helper()
	data, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	f := LoadRequest{
		Fleet: "test", Generation: 2, Title: "prefork: floor [test] gen 2",
		Path: []string{data}, Preload: []string{"probe"}, Python: &Python{GCFreeze: true},
	}
	if change != nil {
		change(&f)
	}
	return f
}

// module writes a Python module into a new directory, and returns a change of
// the floor that loads it alone.
func module(t *testing.T, name, text string) func(*LoadRequest) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name+".py"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return func(f *LoadRequest) {
		f.Path = append([]string{dir}, f.Path...)
		f.Preload = []string{name}
	}
}

func (z *playedZygote) send(b []byte, fds ...int) {
	z.t.Helper()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(z.command, b, rights, nil, unix.MSG_NOSIGNAL); err != nil {
		z.t.Fatal(os.NewSyscallError("sendmsg", err))
	}
}

// read waits for one message of the zygote.
func (z *playedZygote) read() Message {
	z.t.Helper()
	text := read(z.t, z.command)
	m, err := Decode([]byte(text))
	if err != nil {
		z.t.Fatalf("%q: %v\n%s", text, err, z.output())
	}
	return m
}

func (z *playedZygote) output() string {
	b, err := os.ReadFile(z.stderr)
	if err != nil {
		z.t.Error(err)
	}
	return string(b)
}

// wait waits for the zygote's exit, and returns its exit status.
func (z *playedZygote) wait() int {
	z.t.Helper()
	if z.done {
		return z.cmd.ProcessState.ExitCode()
	}
	z.done = true
	timer := time.AfterFunc(testutil.Patience, func() { _ = z.cmd.Process.Kill() }) // a test that hangs fails instead
	defer timer.Stop()
	if err := z.cmd.Wait(); err != nil && z.cmd.ProcessState == nil {
		z.t.Error(err)
	}
	return z.cmd.ProcessState.ExitCode()
}

// close ends the zygote as a master does that goes away.
func (z *playedZygote) close() {
	early := z.done
	_ = unix.Close(z.command) // nothing can be lost in it
	if code := z.wait(); !early && code != 0 {
		z.t.Errorf("at end of file the zygote exits %d, want 0\n%s", code, z.output())
	}
}
