// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// InstallPrefork is a setup for [Boot] that puts prefork into the machine as
// its package would. It is built once per test process.
func InstallPrefork(t testing.TB, root string) {
	t.Helper()
	built, err := stage()
	if err != nil {
		t.Fatal(err)
	}
	if err := run(built.root, "cp", "-a", ".", root); err != nil {
		t.Fatal(err)
	}
}

// staged is where prefork is installed for machines to copy. The guard removes it
// when the test process ends: no test can say that it is the last to need it.
type staged struct {
	root  string
	guard *guard
}

// stage builds prefork.
var stage = sync.OnceValues(func() (staged, error) {
	dir, err := os.MkdirTemp("", "prefork-stage-")
	if err != nil {
		return staged{}, err
	}
	guard, err := startGuard(nil, dir)
	if err != nil {
		return staged{}, err
	}
	root := filepath.Join(dir, "root")
	return staged{root, guard}, buildInto(root)
})

// buildInto installs prefork below root: with the Makefile, or with the same
// two files where there is none.
func buildInto(root string) error {
	module, err := moduleRoot()
	if err != nil {
		return err
	}
	_, err = os.Stat(filepath.Join(module, "Makefile"))
	switch {
	case err == nil:
		// Installing alone takes a binary that is there, however old it is.
		if err := run(module, "make", "build"); err != nil {
			return err
		}
		return run(module, "make", "install", "DESTDIR="+root, "PREFIX=/usr")
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	binary := filepath.Join(root, "usr/bin/prefork")
	if err := run(module, "go", "build", "-o", binary, "./cmd/prefork"); err != nil {
		return err
	}
	return run(module, "install", "-D", "-m0644", "-t", filepath.Join(root, "usr/lib/systemd/system"),
		"units/prefork@.service")
}

// run runs a command without cgo, as the shipped binary is built.
func run(dir string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// moduleRoot returns the directory with go.mod, at or above the working
// directory: that of the package whose tests run.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no go.mod at or above the working directory")
}
