// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/decnet/prefork/packaging/systemdtest"
)

// TestBench runs the program in a machine. PREFORK_BENCH is what it is run
// with: options, or nothing. PREFORK_BENCH_EARLIER is the path of an earlier prefork
// to measure beside this one.
func TestBench(t *testing.T) {
	args, ok := os.LookupEnv("PREFORK_BENCH")
	if !ok {
		t.Skip("PREFORK_BENCH is not set: make bench")
	}
	m := systemdtest.Boot(t, "forky", systemdtest.InstallPrefork, install)
	cmd := m.Command(append([]string{"/usr/bin/prefork-bench"}, strings.Fields(args)...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

// install puts the program into the machine, without cgo: its C library is
// another.
func install(t testing.TB, root string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", filepath.Join(root, "usr/bin/prefork-bench"), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if path := os.Getenv("PREFORK_BENCH_EARLIER"); path != "" {
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(root, earlierProgram), text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
