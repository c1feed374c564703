// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"maps"
	"slices"
	"strings"
)

// Variables that the master sets, or must keep from workers: with any of them a
// worker would talk to the wrong socket or believe to be someone else.
var (
	ownVariables = []string{
		"NOTIFY_SOCKET", "FDSTORE", "JOURNAL_STREAM", "INVOCATION_ID", "SYSTEMD_EXEC_PID",
	}
	ownPrefixes = []string{"LISTEN_", "WATCHDOG_", "MAINPID", "PREFORK_"}
)

// environment is a table of variables. The entries are added to those that are
// there already.
func environment[T any](dst func(*T) *map[string]string) value[T] {
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
				if s, ok := c.variable(name, v); ok {
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
