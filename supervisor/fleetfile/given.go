// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Variables that the master sets, or must keep from workers: with any of them a
// worker would talk to the wrong socket or believe to be someone else.
var (
	ownVariables = []string{
		"NOTIFY_SOCKET", "FDSTORE", "JOURNAL_STREAM", "INVOCATION_ID", "SYSTEMD_EXEC_PID",
	}
	ownPrefixes = []string{"LISTEN_", "WATCHDOG_", "MAINPID", "PREFORK_"}
)

// environment is a table of variables, in which some specifiers are known, if any has a
// meaning there. The entries are added to those that are there already.
func environment[T any](dst func(*T) *map[string]string, known string) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			m, ok := c.v.(map[string]any)
			if !ok {
				c.refuse()
				return
			}
			// The map may be that of [defaults]: it is replaced, never changed.
			env := maps.Clone(*dst(t))
			if env == nil && len(m) > 0 {
				env = map[string]string{}
			}
			for name, v := range m {
				s, ok := c.variable(name, v)
				if ok && (known == "" || c.specifiers(join(c.path, name), s, known)) {
					env[name] = s
				}
			}
			*dst(t) = env
		},
		show: func(t *T) string {
			if len(*dst(t)) == 0 {
				return ""
			}
			m := map[string]any{}
			for name, s := range *dst(t) {
				m[name] = s
			}
			return tomlText(m)
		},
	}
}

func (c *cell) variable(name string, v any) (string, bool) {
	at := join(c.path, name)
	s, isText := v.(string)
	own := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	switch {
	case !isVariable(name):
		c.fail(at, "the name of a variable must have letters, digits and _ only, and not begin with a digit", "rename it")
	case slices.Contains(ownVariables, name), slices.ContainsFunc(ownPrefixes, own):
		c.fail(at, "cannot be set: each worker gets its own from prefork, or none", "remove it")
	case !isText:
		c.errorf(at, "must be a string, not %s; write it in quotes", describe(v))
	case strings.ContainsRune(s, 0):
		c.fail(at, "cannot hold a NUL byte", "remove it")
	default:
		return s, true
	}
	return "", false
}

func isVariable(name string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
	return name != "" && strings.Trim(name, letters+digits) == "" && !strings.Contains(digits, name[:1])
}

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
	if !d.forked() || d.bad["environment"] {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(d.Environment)) {
		if Early(name) {
			l.errorf(d.from["environment"], "%s has no effect in a worker that is forked: it is read before; write floor.env = { %s = … } instead, or use exec", name, name)
		}
	}
}

const maxArgument = 24 // deep; printed in one line it is nested twice as deep

// arguments are the values that a callable is given in their order.
func arguments[T any](dst func(*T) *[]any) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			if _, ok := asList(c.v); !ok {
				c.refuse()
				return
			}
			*dst(t) = nil
			for _, it := range c.items(false) {
				*dst(t) = append(*dst(t), c.argument(it.path, it.v, 1))
			}
		},
		show: func(t *T) string {
			if len(*dst(t)) == 0 {
				return ""
			}
			return tomlText(*dst(t))
		},
	}
}

// namedArguments are those that it is given by their names.
func namedArguments[T any](dst func(*T) *map[string]any) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			m, ok := c.v.(map[string]any)
			if !ok {
				c.refuse()
				return
			}
			*dst(t) = nil
			if len(m) > 0 {
				*dst(t), _ = c.argument(c.path, m, 1).(map[string]any)
			}
		},
		show: func(t *T) string {
			if len(*dst(t)) == 0 {
				return ""
			}
			return tomlText(*dst(t))
		},
	}
}

// argument returns a value that can travel to the entry: nothing but what TOML,
// JSON and Python have in common.
func (c *cell) argument(path string, v any, depth int) any {
	if depth > maxArgument {
		c.fail(path, "an argument can be nested at most "+strconv.Itoa(maxArgument)+" deep", "write it flatter")
		return nil
	}
	if list, ok := asList(v); ok {
		out := make([]any, len(list))
		for i := range list {
			out[i] = c.argument(elem(path, i), list[i], depth+1)
		}
		return out
	}
	switch v := v.(type) {
	case string:
		c.specifiers(path, v, slotSpecifiers+fileSpecifiers)
	case map[string]any:
		out := make(map[string]any, len(v))
		for name := range v {
			out[name] = c.argument(join(path, name), v[name], depth+1)
		}
		return out
	case time.Time:
		c.fail(path, "a date or time cannot be an argument", "write it as a string, in quotes")
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			c.fail(path, "an argument must be a finite number", "write it as a string, in quotes")
		}
	}
	return v
}
