// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// capabilities returns the effective, the inheritable and the ambient set of a
// program that a shim became.
func capabilities(t *testing.T, o Orders, options ...func(*exec.Cmd)) string {
	t.Helper()
	o.Argv = []string{"/bin/cat", "/proc/self/status"}
	s := startShim(t, options...)
	s.tell(&o)
	output, status := s.wait()
	if status != 0 {
		t.Fatalf("exit status %d, output:\n%s", status, output)
	}
	var effective, inheritable, ambient uint64
	for line := range strings.Lines(output) {
		_, _ = fmt.Sscanf(line, "CapEff: %x", &effective) // most lines are others
		_, _ = fmt.Sscanf(line, "CapInh: %x", &inheritable)
		_, _ = fmt.Sscanf(line, "CapAmb: %x", &ambient)
	}
	return fmt.Sprintf("effective %x inheritable %x ambient %x", effective, inheritable, ambient)
}

// withAmbient starts the shim as a master does whose unit has
// AmbientCapabilities=.
func withAmbient(numbers ...uintptr) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.SysProcAttr.AmbientCaps = numbers }
}

func TestShimRaisesAmbientCapabilities(t *testing.T) {
	testutil.NeedRoot(t)
	const bind, raw = unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW
	last := unix.CAP_CHECKPOINT_RESTORE // in the upper half of the set
	if self := capabilities(t, Orders{}); !strings.HasPrefix(self, "effective 1ff") {
		t.Skipf("root has only %s", self)
	}
	for _, c := range []struct {
		orders Orders
		want   uint64
	}{
		{Orders{User: "nobody", Ambient: []int{bind, raw, last}}, 1<<bind | 1<<raw | 1<<last},
		{Orders{User: "54321", Ambient: []int{raw}, NoNewPrivs: true}, 1 << raw},
		{Orders{User: "nobody", Ambient: []int{raw, raw}, DeathSignal: true, Master: os.Getpid()}, 1 << raw},
		{Orders{User: "nobody"}, 0},
	} {
		want := fmt.Sprintf("effective %x inheritable %[1]x ambient %[1]x", c.want)
		if got := capabilities(t, c.orders); got != want {
			t.Errorf("user %s, ambient %v: got %s, want %s", c.orders.User, c.orders.Ambient, got, want)
		}
	}
}

// A program has what its own orders say, and nothing that the unit has given to
// the master.
func TestShimClearsTheAmbientCapabilitiesOfTheMaster(t *testing.T) {
	testutil.NeedRoot(t)
	given := withAmbient(unix.CAP_NET_RAW, unix.CAP_CHOWN)
	if got := capabilities(t, Orders{}, given); !strings.HasSuffix(got, " inheritable 0 ambient 0") {
		t.Errorf("without orders: got %s", got)
	}
	want := fmt.Sprintf(" inheritable %x ambient %[1]x", 1<<unix.CAP_CHOWN)
	if got := capabilities(t, Orders{Ambient: []int{unix.CAP_CHOWN}}, given); !strings.HasSuffix(got, want) {
		t.Errorf("one of two: got %s, want%s", got, want)
	}
}

// The death signal is for good also where rights are gained.
func TestAmbientCapabilitiesKeepTheDeathSignal(t *testing.T) {
	testutil.NeedRoot(t)
	o := &Orders{
		User: "nobody", Ambient: []int{unix.CAP_NET_RAW}, DeathSignal: true, Master: os.Getpid(),
		Argv: []string{publicCopy(t)}, Base: []string{"PREFORK_TEST_ROLE=death-signal", "GORACE=atexit_sleep_ms=0"},
	}
	if got, want := become(t, o), "9 <nil>\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// publicCopy returns a copy of the test binary that every user may execute.
func publicCopy(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.CreateTemp("/tmp", "prefork-test-*") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(file.Name()) }) // a copy
	if _, err := file.Write(binary); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file.Name(), 0o755); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}
