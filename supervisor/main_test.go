// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"os"
	"os/exec"
	"testing"
)

// roles are what a child process of the tests does instead of the tests.
var roles = map[string]func(){
	"sockets": socketsChild,
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
