// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/decnet/prefork/packaging/systemdtest"
)

// TestDebianPackage has the package live its life on a machine of each suite. The
// stories are those of debian/tests, which autopkgtest tells too; each goes on
// where the one before it has ended.
func TestDebianPackage(t *testing.T) {
	t.Parallel()
	debs := systemdtest.BuildDebs(t, "0.1.0~test1", "0.1.0~test2")
	for _, suite := range systemdtest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			m := machine{systemdtest.Boot(t, suite, func(t testing.TB, root string) {
				t.Helper()
				dir := filepath.Join(root, "root/deb")
				if err := os.CopyFS(dir, os.DirFS("../../debian/tests")); err != nil {
					t.Fatal(err)
				}
				for i, name := range []string{"old.deb", "new.deb"} {
					content, err := os.ReadFile(debs[i])
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			})}
			for _, story := range []string{"serve", "upgrade", "remove"} {
				t.Log(m.Run(t, "env", "OLD=/root/deb/old.deb", "NEW=/root/deb/new.deb", "sh", "-x", "/root/deb/"+story))
			}
		})
	}
}
