// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"math"
	"strconv"
	"time"
)

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
