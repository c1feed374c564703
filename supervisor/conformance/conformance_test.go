// SPDX-License-Identifier: AGPL-3.0-or-later

package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// The test binary is also the shim.
func TestMain(m *testing.M) {
	if os.Args[0] == gate.ShimName {
		gate.RunShim()
	}
	os.Exit(m.Run())
}

const entries = "../../packaging/zygotes/conformance"

// python is the interpreter that python3 in PATH stands for, which may be a script.
var python = sync.OnceValue(func() string {
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
})

// need skips a test without its program; where everything must run it fails.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if program == "python3" && err == nil {
		path = python()
	}
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%v, and with CI=true nothing is skipped", err)
	default:
		t.Skip(err)
	}
	return path
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// options are those of a zygote whose test entry is in Python.
func options(t *testing.T, zygote ...string) Options {
	t.Helper()
	return Options{
		Zygote: zygote, Python: need(t, "python3"), Path: []string{absolute(t, entries)}, Preload: []string{"conformance"},
		Entry: "conformance:entry", Thread: "conformance:thread", Socket: "conformance:socket_left_open", Patience: testutil.Patience,
	}
}

// run returns the names of the checks that have failed, and tells of them, if they are not
// wanted.
func run(t *testing.T, o Options, want ...string) (failed []string) {
	t.Helper()
	_, err := Run(o, nil, func(r Result) {
		if r.Outcome != Failed {
			return
		}
		failed = append(failed, r.Check)
		if !slices.Contains(want, r.Check) {
			t.Errorf("%s (%s): %s\n%s", r.Check, r.Duty, r.Why, r.Output)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return failed
}

func TestPreforksOwnZygoteConforms(t *testing.T) {
	run(t, options(t))
}

func TestRubysZygoteConforms(t *testing.T) {
	run(t, Options{
		Zygote: []string{need(t, "ruby"), absolute(t, "../../packaging/zygotes/zygote.rb")},
		Path:   []string{absolute(t, entries)}, Preload: []string{"conformance"},
		Entry: "Conformance.entry", Thread: "Conformance.thread", Socket: "Conformance.socket_left_open", Patience: testutil.Patience,
	})
}

// breaches are duties that testdata/broken.py can break, and the checks that fail then, and
// no others. Those that stand together are about nothing in common.
var breaches = map[string]string{
	"":                              "",
	"loaded":                        "load",
	"fields":                        "load",
	"parent":                        "fork",
	"many":                          "many",
	"reap":                          "middle cgroup-refused hundred",
	"group,version,dir":             "cgroup cgroup-refused version dir order",
	"broken,gate-close":             "broken left-open thread state",
	"broken-status,status,leak":     "broken left-open version order missing-descriptor hundred",
	"command,failed-exit,end":       "gate-only descriptors entry order missing-descriptor command-end",
	"outlive,exit,inheritable":      "command-end killed exit raise descriptors",
	"output,term,variables":         "output flush error-output signals term environment",
	"reserve,flush,traceback,stale": "descriptors flush error-output environment",
	"threads,fds,id,progress,session,gate-end,descriptor,unknown,random,mask,umask,nice,limit,no-new-privileges,death-signal,user,memfd": "" +
		"thread left-open id progress session gate-end no-descriptor unknown-message random signals umask nice limits no-new-privileges death-signal user memfd",
}

// Each duty that is broken is told of, by the checks that are about it and by no others.
func TestWhoBreaksADutyIsToldOfIt(t *testing.T) {
	covered := map[string]bool{}
	for duty, checks := range breaches {
		want := strings.Fields(checks)
		for _, name := range want {
			covered[name] = true
		}
		t.Run(duty, func(t *testing.T) {
			if os.Geteuid() != 0 {
				want = slices.DeleteFunc(want, func(name string) bool { return name == "user" }) // it is not run
			}
			o := options(t, need(t, "python3"), absolute(t, "testdata/broken.py"), duty)
			o.Patience /= 6 // what a broken zygote does not say never comes
			got := run(t, o, want...)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("failed %q, want %q", got, want)
			}
		})
	}
	for _, c := range Checks() {
		if !covered[c[0]] && !slices.Contains([]string{"thread-allowed", "go", "return"}, c[0]) {
			t.Errorf("no broken zygote fails the check %s", c[0])
		}
	}
}
