// SPDX-License-Identifier: AGPL-3.0-or-later

// Package testutil is what the tests of several rooms need.
package testutil

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Patience bounds every wait for a fact. One that never comes is what a test is for.
const Patience = 30 * time.Second

// Eventually waits for a fact.
func Eventually(t testing.TB, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !fact(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, Patience)
		}
	}
}

// OpenFDs lists the open descriptors of this process.
func OpenFDs() string {
	var open []int
	for fd := range 512 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			open = append(open, fd)
		}
	}
	return fmt.Sprint(open)
}

// WantNoLeak fails unless the test leaves the descriptors as they are now.
func WantNoLeak(t testing.TB) {
	t.Helper()
	before := OpenFDs()
	t.Cleanup(func() {
		if after := OpenFDs(); after != before {
			t.Errorf("open descriptors: got %s, want %s", after, before)
		}
	})
}

// NeedRoot skips a test that changes users, and fails it where everything must run.
func NeedRoot(t testing.TB) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") == "true":
		t.Fatal("only root may change users, and with CI=true nothing is skipped")
	default:
		t.Skip("only root may change users")
	}
}

const roleVariable = "PREFORK_TEST_ROLE"

// Main runs the tests, or in a process of [Child] the role instead of them. It is for
// TestMain.
func Main(m *testing.M, roles map[string]func()) {
	if role := os.Getenv(roleVariable); role != "" {
		roles[role]()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Child prepares the test binary to play a role, with nothing else in its environment.
func Child(t testing.TB, role string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = []string{roleVariable + "=" + role, "GORACE=atexit_sleep_ms=0"}
	return cmd
}
