// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest

import (
	"bytes"
	"embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Suites are the Debian releases that machines can be made of, oldest first.
var Suites = []string{"bookworm", "trixie", "forky"}

// Bench is a machine of the newest suite that also has the peers that prefork is
// measured beside.
const Bench = "bench"

//go:embed rootfs.sh benchroot.sh vmimage.sh debian.sh
var scripts embed.FS

// require skips the test, or fails it where CI=true, if machines cannot be run
// here.
func require(t testing.TB) {
	t.Helper()
	if os.Getenv("TESTBED") == "0" {
		t.Skip("TESTBED=0: no container with systemd is booted")
	}
	if os.Geteuid() != 0 {
		missing(t, "booting a container needs root")
	}
	for _, tool := range []string{"apt-get", "dpkg", "unshare", "nsenter", "flock"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, "making a Debian root filesystem needs "+tool)
		}
	}
}

// missing ends the test: skipped on somebody's machine, failed in CI, where a
// test that silently does nothing would look like one that passes.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// cache returns the directory that holds the root filesystems.
func cache() string {
	if dir := os.Getenv("PREFORK_TESTBED"); dir != "" {
		return dir
	}
	return "/var/cache/prefork-testbed"
}

// checked has, for each suite, the outcome of running rootfs.sh once.
var checked sync.Map

// rootFilesystem returns the cached root filesystem of a suite, with a shared
// lock that keeps rootfs.sh from replacing it. It takes minutes if it has to be
// made.
func rootFilesystem(t testing.TB, suite string) (dir string, lock *os.File) {
	t.Helper()
	dir = filepath.Join(cache(), suite)
	once, _ := checked.LoadOrStore(suite, sync.OnceValue(func() error {
		return makeRootFilesystem(t, suite, dir)
	}))
	if err := once.(func() error)(); err != nil {
		t.Fatalf("root filesystem %s: %v", suite, err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_RDONLY|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH); err != nil {
		t.Fatalf("lock %s: %v", lock.Name(), err)
	}
	stamp, err := os.ReadFile(filepath.Join(dir, ".testbed"))
	if err != nil {
		t.Fatal(err)
	}
	_, made, _ := strings.Cut(string(stamp), "\nmade ")
	t.Logf("%s: packages as of %s", suite, strings.TrimSpace(made))
	return dir, lock
}

// makeRootFilesystem runs rootfs.sh or benchroot.sh, which do nothing if dir is as
// they would make it.
func makeRootFilesystem(t testing.TB, suite, dir string) error {
	t.Logf("%s: checking %s; making it, if need be, installs packages and takes minutes", suite, dir)
	if suite == Bench {
		base, lock := rootFilesystem(t, Suites[len(Suites)-1])
		defer lock.Close()
		return runScript(t, "benchroot.sh", base, dir)
	}
	return runScript(t, "rootfs.sh", suite, dir)
}

// runScript runs one of the scripts; what it says is logged.
func runScript(t testing.TB, name string, args ...string) error {
	dir, err := os.MkdirTemp("", "prefork-scripts-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, scripts); err != nil {
		return err
	}
	out, err := exec.Command("sh", append([]string{filepath.Join(dir, name)}, args...)...).CombinedOutput()
	if out = bytes.TrimSpace(out); len(out) > 0 {
		t.Logf("%s %s:\n%s", name, strings.Join(args, " "), out)
	}
	return err
}
