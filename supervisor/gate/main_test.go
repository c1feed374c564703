// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/testutil"
)

func init() { runtime.LockOSThread() } // the shim and the death signal need the main thread

// The test binary is also the shim, and a program that the shim becomes.
func TestMain(m *testing.M) {
	if os.Args[0] == ShimName {
		RunShim()
	}
	if os.Getenv("PREFORK_TEST_ROLE") == "death-signal" {
		var sig int32
		err := unix.Prctl(unix.PR_GET_PDEATHSIG, addressOf(&sig), 0, 0, 0)
		fmt.Println(sig, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// shim is a process that waits at its gate.
type shim struct {
	t      *testing.T
	gate   int
	cmd    *exec.Cmd
	output bytes.Buffer // its standard output and error, when it has ended
}

// startShim starts a shim as the master does: a child in a session of its own
// with an empty environment. Here it also has descriptors that it must not keep.
// Options change the command.
func startShim(t *testing.T, options ...func(*exec.Cmd)) *shim {
	t.Helper()
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		t.Fatal(err)
	}
	gate := os.NewFile(uintptr(theirs), "gate")
	defer gate.Close()
	stray, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer stray.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &shim{t: t, gate: ours}
	s.cmd = &exec.Cmd{
		Path: exe, Args: []string{ShimName}, Env: []string{"GORACE=atexit_sleep_ms=0"},
		ExtraFiles:  []*os.File{gate, stray, stray, stray},
		Stdout:      &s.output,
		Stderr:      &s.output,
		SysProcAttr: &unix.SysProcAttr{Setsid: true},
	}
	for _, option := range options {
		option(s.cmd)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it has ended, unless the test failed
		_ = s.cmd.Wait()
		_ = unix.Close(ours)
	})
	return s
}

func (s *shim) tell(o *Orders, fds ...int) {
	s.t.Helper()
	if err := Send(s.gate, o, fds...); err != nil {
		s.t.Fatal(err)
	}
}

// wait waits for its end and returns what it wrote and its exit status.
func (s *shim) wait() (output string, status int) {
	s.t.Helper()
	timer := time.AfterFunc(testutil.Patience, func() { _ = s.cmd.Process.Kill() })
	defer timer.Stop()
	_ = s.cmd.Wait() // the status says it
	return s.output.String(), s.cmd.ProcessState.ExitCode()
}

// left reads what it said at its gate, which it must have left.
func (s *shim) left() (said []Message) {
	s.t.Helper()
	for {
		msg, err := Receive(s.gate)
		switch {
		case errors.Is(err, io.EOF):
			return said
		case err != nil:
			s.t.Fatalf("at the gate: %v", err)
		}
		said = append(said, msg)
	}
}

// become lets a shim become a program, which must succeed, and returns what it
// wrote.
func become(t *testing.T, o *Orders, fds ...int) string {
	t.Helper()
	s := startShim(t)
	s.tell(o, fds...)
	output, status := s.wait()
	if said := s.left(); len(said) > 0 || status != 0 {
		t.Fatalf("exit status %d, said %v, output:\n%s", status, said, output)
	}
	return output
}

// wantRefusal lets a shim fail, and checks what it tells whom.
func wantRefusal(t *testing.T, o *Orders, status int, fds ...int) string {
	t.Helper()
	s := startShim(t)
	s.tell(o, fds...)
	output, got := s.wait()
	if got != status {
		t.Errorf("exit status: got %d, want %d", got, status)
	}
	said := s.left()
	if len(said) != 1 {
		t.Fatalf("it said %v, want why it failed; output:\n%s", said, output)
	}
	failed, ok := said[0].(Failed)
	if !ok || failed.Text == "" {
		t.Fatalf("got %#v, want a cause", said[0])
	}
	name := o.Slot
	if name == "" {
		name = "shim"
	}
	if want := "prefork: " + name + ": " + failed.Text + "\n"; !o.Stderr && output != want {
		t.Errorf("on standard error: got %q, want %q", output, want)
	}
	return failed.Text
}

// pipe returns a pipe, which the test closes.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}
