// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BuildDebs builds the Debian package once for each version and returns the files.
// It skips or fails the test where no machine can be run, or no package be built.
func BuildDebs(t testing.TB, versions ...string) []string {
	t.Helper()
	require(t)
	for _, tool := range []string{"make", "dpkg-buildpackage", "dh"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, "building a Debian package needs "+tool)
		}
	}
	module, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var debs []string
	for _, version := range versions {
		if err := run(module, "env", "QUICK=1", "DEST="+dir, "DEB_VERSION="+version, "packaging/deb"); err != nil {
			t.Fatal(err)
		}
		found, err := filepath.Glob(filepath.Join(dir, "prefork_"+version+"_*.deb"))
		if err != nil || len(found) != 1 {
			t.Fatalf("packages of version %s: %q, %v", version, found, err)
		}
		info, err := os.Stat(found[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes", filepath.Base(found[0]), info.Size())
		debs = append(debs, found[0])
	}
	return debs
}
