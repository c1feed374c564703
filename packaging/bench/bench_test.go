// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/decnet/prefork/packaging/bench/peer"
	"github.com/decnet/prefork/packaging/bench/report"
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
	o, err := parse(strings.Fields(args))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("../..") // files of the options are of the module's folder
	m := systemdtest.Boot(t, systemdtest.Bench, systemdtest.InstallPrefork, install)
	cmd := m.Command(append(append([]string{"/usr/bin/prefork-bench"}, strings.Fields(args)...), "-json", "-")...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	r, err := report.Read(&out)
	if err != nil {
		t.Fatal(err)
	}
	if err := finish(o, r); err != nil {
		t.Fatal(err)
	}
}

// install puts the program into the machine, without cgo: its C library is
// another.
func install(t testing.TB, root string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", filepath.Join(root, "usr/bin/prefork-bench"), "./packaging/bench")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if path := os.Getenv("PREFORK_BENCH_EARLIER"); path != "" {
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(root, peer.EarlierProgram), text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-only kill,memory -peers prefork,s6", ""},
		{"-only kill,nothing", "-only nothing: there are kill,"},
		{"-peers prefork,apache", "-peers: peers prefork,apache: there are prefork,"},
		{"kill", "kill: there are only options"},
	} {
		_, err := parse(strings.Fields(c.args))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) || (c.want == "") != (err == nil) {
			t.Errorf("%s: got %q, want %q", c.args, got, c.want)
		}
	}
}
