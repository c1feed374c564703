// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
)

// roles are what a child process of the tests does instead of the tests.
var roles = map[string]func(){
	"log":   logChild,
	"flood": floodChild,
}

const roleVariable = "PREFORK_SUPERVISOR_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		roles[role]()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child prepares the test binary to play a role.
func child(t *testing.T, role string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = []string{roleVariable + "=" + role, "GORACE=atexit_sleep_ms=0"}
	return cmd
}

// lines collects what a Log writes.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) write(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, string(line))
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.text)
}

// newTestLog returns a log that is kept, without a terminal.
func newTestLog() (*Log, *lines) {
	l := &lines{}
	return LogTo(l.write), l
}
