// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile_test

import (
	"strings"
	"testing"
)

// What would be accepted without effect is refused, with the key that has one.
func TestEarlyVariablesAreRefusedInAnEntry(t *testing.T) {
	const entry, exec = "[floor]\n[worker.a]\nentry = \"m:f\"\n", "[worker.a]\nexec = [\"/bin/true\"]\n"
	for _, c := range []struct {
		file string
		want string // "" if the file is right
	}{
		{entry + `environment = { PYTHONPATH = "x" }`, "PYTHONPATH"},
		{entry + `environment = { LD_PRELOAD = "x" }`, "LD_PRELOAD"},
		{entry + `environment = { LC_ALL = "C" }`, "LC_ALL"},
		{entry + `environment = { LANG = "C" }`, "LANG"},
		{entry + `environment = { OPENBLAS_NUM_THREADS = "1" }`, "OPENBLAS_NUM_THREADS"},
		{"[defaults]\nenvironment = { MALLOC_ARENA_MAX = \"1\" }\n" + entry, "MALLOC_ARENA_MAX"},
		{entry + `environment = { TZ = "Asia/Tokyo", APP_PYTHON = "x", LDAP = "x" }`, ""},
		{exec + `environment = { PYTHONPATH = "x", LANG = "C" }`, ""},
		{"[defaults]\nenvironment = { LANG = \"C\" }\n" + exec, ""},
	} {
		_, err := parse(c.file)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s\n%v", c.file, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "floor.env")):
			t.Errorf("%s\ngot %v, want %s and floor.env", c.file, err, c.want)
		}
	}
}
