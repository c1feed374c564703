// SPDX-License-Identifier: AGPL-3.0-or-later

package examine

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// The test binary is the shim, too.
func TestMain(m *testing.M) {
	if os.Args[0] == gate.ShimName {
		gate.RunShim()
	}
	os.Exit(m.Run())
}

// pythons are the interpreters to test with: that of PATH, and of others the versions that
// differ in what they tell.
func pythons(t *testing.T) (found []string) {
	t.Helper()
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	switch {
	case err == nil:
		found = append(found, strings.TrimSpace(string(out)))
	case os.Getenv("CI") == "true":
		t.Fatal("no python3 in PATH")
	default:
		t.Skip("no python3 in PATH")
	}
	others := filepath.SplitList(os.Getenv("PREFORK_TEST_PYTHONS"))
	if home, err := os.UserHomeDir(); err == nil {
		others = append(others, filepath.Join(home, ".pyenv/versions/3.13.0/bin/python3"))
	}
	for _, python := range others {
		if _, err := os.Stat(python); err == nil {
			found = append(found, python)
		}
	}
	return found
}

// onPythons runs a test with each interpreter, on a thread that lasts as long.
func onPythons(t *testing.T, test func(t *testing.T, python string)) {
	t.Helper()
	for _, python := range pythons(t) {
		t.Run(filepath.Base(filepath.Dir(filepath.Dir(python))), func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			testutil.WantNoLeak(t)
			test(t, python)
		})
	}
}

// floor is a floor of modules in a folder of its own.
type floor struct {
	dir     string
	printed strings.Builder
}

// examine examines a fleet file with these modules; DIR stands for their folder.
func examine(t *testing.T, python, file string, modules map[string]string) (*Report, *floor) {
	t.Helper()
	f := &floor{dir: t.TempDir()}
	_ = os.Chmod(f.dir, 0o755)
	_ = os.Chmod(filepath.Dir(f.dir), 0o755)
	for name, text := range modules {
		path := filepath.Join(f.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", f.dir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(f.dir, "fleet.toml")
	file = strings.NewReplacer("DIR", f.dir, "[floor]", "[floor]\npython = "+strconv.Quote(python)+"\npath = [\".\"]").Replace(file)
	parsed, err := fleetfile.Parse("fleet", path, []byte(file), fleetfile.Host{})
	if err != nil {
		t.Fatal(err)
	}
	report, err := Run(parsed, Options{Output: &f.printed, Progress: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := json.MarshalIndent(report, "", " ")
			t.Logf("report: %s\nprinted:\n%s", text, f.printed.String())
		}
	})
	if pids, _ := os.ReadDir("/proc/self/task/" + strconv.Itoa(unix.Gettid()) + "/children"); len(pids) > 0 {
		t.Errorf("processes are left: %v", pids)
	}
	return report, f
}

// named is the module of that name, at any depth.
func named(all []Module, name string) *Module {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
		if found := named(all[i].Modules, name); found != nil {
			return found
		}
	}
	return nil
}

func changed(r *Report, what string) Change {
	for _, c := range r.Changes {
		if c.What == what {
			return c
		}
	}
	return Change{}
}

func advised(r *Report, key string) Advice {
	for _, a := range r.Advice {
		if a.Key == key {
			return a
		}
	}
	return Advice{}
}
