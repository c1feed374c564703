// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"maps"
	"slices"
	"strings"
)

// early are the variables that are read once, when a process or a library starts:
// by the loader, by malloc, by the interpreter, by its locale, and by the thread
// pools of libraries that the floor has loaded. A worker that is forked is past
// that. TZ is not one of them: a worker calls tzset(3).
var (
	earlyVariables = []string{"LANG", "LANGUAGE", "LOCPATH", "GLIBC_TUNABLES"}
	earlyPrefixes  = []string{
		"LD_", "PYTHON", "LC_", "MALLOC_", "OPENBLAS_", "GOTO_", "OMP_", "GOMP_", "KMP_", "MKL_", "BLIS_", "NUMEXPR_", "VECLIB_",
	}
)

// Early reports whether a variable has an effect only if it is set before the
// interpreter starts, so that it belongs into floor.env.
func Early(name string) bool {
	return slices.Contains(earlyVariables, name) ||
		slices.ContainsFunc(earlyPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// checkEarly refuses what an entry's environment would accept without effect. In
// [defaults] it is right for programs, and not for an entry that inherits it.
func (d *draft) checkEarly(l *loader) {
	if d.from["entry"] == "" || d.bad["environment"] {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(d.Environment)) {
		if Early(name) {
			l.errorf(d.from["environment"], "%s has no effect in a worker that is forked: it is read before; write floor.env = { %s = … } instead, or use exec", name, name)
		}
	}
}
