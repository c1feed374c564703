// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/quantity"
)

// The functions below make the value of a field: how a cell is checked and
// stored, and how it is printed. dst says where in a T it is kept.

func text[T any](dst func(*T) *string, valid func(string) bool) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			if s, ok := c.text(valid); ok {
				*dst(t) = s
			}
		},
		show: func(t *T) string { return showText(*dst(t)) },
	}
}

// file is text that names a file; a relative path starts at the fleet file.
// A plain name stays as it is if bare allows it: it is looked for in PATH.
func file[T any](dst func(*T) *string, bare bool) value[T] {
	v := text(dst, isFile)
	set := v.set
	v.set = func(c *cell, t *T) {
		set(c, t)
		if p := dst(t); !c.bad && (!bare || strings.Contains(*p, "/")) {
			*p = c.abs(*p)
		}
	}
	return v
}

func texts[T any](dst func(*T) *[]string, valid func(string) bool) value[T] {
	return value[T]{
		set:  func(c *cell, t *T) { *dst(t) = c.texts(false, valid) },
		show: func(t *T) string { return showTexts(*dst(t)) },
	}
}

func choice[T any, S ~string](dst func(*T) *S, words ...S) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			if s, ok := c.text(func(s string) bool { return slices.Contains(words, S(s)) }); ok {
				*dst(t) = S(s)
			}
		},
		show: func(t *T) string { return quote(string(*dst(t))) },
	}
}

func whole[T any](dst func(*T) *int, lo, hi int64) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			if n, ok := c.integer(lo, hi); ok {
				*dst(t) = int(n)
			}
		},
		show: func(t *T) string { return strconv.Itoa(*dst(t)) },
	}
}

func truth[T any](dst func(*T) *bool) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			b, ok := c.v.(bool)
			if !ok {
				c.refuse()
				return
			}
			*dst(t) = b
		},
		show: func(t *T) string { return strconv.FormatBool(*dst(t)) },
	}
}

// span is a time span. Only if endless is true may it be infinity.
func span[T any](dst func(*T) *time.Duration, endless bool) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			s, ok := seconds(c.v)
			if !ok {
				c.refuse()
				return
			}
			d, err := quantity.ParseTimeSpan(s)
			switch {
			case errors.Is(err, quantity.ErrNotSpan):
				c.refuse()
			case err != nil:
				c.errorf(c.path, "%v", err)
			case d == policy.Forever && !endless:
				c.fail(c.path, "must be finite", `write a time span such as "30s"`)
			default:
				*dst(t) = d
			}
		},
		show: func(t *T) string {
			if *dst(t) < 0 {
				return ""
			}
			return quote(quantity.FormatTimeSpan(*dst(t)))
		},
	}
}

// timeout is a span of which 0 means no end, as in systemd.
func timeout[T any](dst func(*T) *time.Duration) value[T] {
	v := span(dst, true)
	set := v.set
	v.set = func(c *cell, t *T) {
		if set(c, t); *dst(t) == 0 {
			*dst(t) = policy.Forever
		}
	}
	return v
}

// killMode says why two of systemd's words are not among those of the key.
func killMode() value[draft] {
	v := choice(func(d *draft) *policy.KillMode { return &d.Policy.KillMode }, policy.KillMixed, policy.KillControlGroup)
	set := v.set
	v.set = func(c *cell, d *draft) {
		if c.v == "process" || c.v == "none" {
			c.fail(c.path, fmt.Sprintf("must be %s: with %q, what a process leaves behind would outlive it, unknown and beside its successor", c.key.Rule, c.v),
				`write kill_mode = "mixed", and start what is to live longer as a worker of its own`)
			return
		}
		set(c, d)
	}
	return v
}

// identity is a user or a group, by name or number.
func identity[T any](dst func(*T) *string) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			if s, ok := identityText(c.v); ok {
				*dst(t) = s
				return
			}
			c.refuse()
		},
		show: func(t *T) string { return showText(*dst(t)) },
	}
}

func identityText(v any) (string, bool) {
	s, ok := number(v)
	return s, ok && isIdentity(s)
}

// mode is an octal number. A TOML integer must be written as 0o660: with 660
// something else is meant than what it is.
func mode(c *cell) (uint32, bool) {
	s, ok := c.v.(string)
	if n, isInt := c.v.(int64); isInt {
		if n > 0 && !strings.HasPrefix(c.src[c.index.value(c.path):], "0o") {
			c.fail(c.path, "must be octal, not the decimal "+strconv.FormatInt(n, 10),
				fmt.Sprintf("write %s = %s", c.key.Name, c.key.Example))
			return 0, false
		}
		s, ok = strconv.FormatInt(n, 8), true
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if !ok || err != nil || n > 0o777 {
		c.refuse()
		return 0, false
	}
	return uint32(n), true
}

func showMode(n uint32) string { return fmt.Sprintf(`"%04o"`, n) }

// exits is a set of exit statuses and signals.
func exits[T any](dst func(*T) *policy.ExitSet) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			e := exitSet{map[int]bool{}, map[policy.Signal]bool{}}
			for _, it := range c.items(true) {
				s, ok := number(it.v)
				for _, word := range strings.Fields(s) {
					ok = e.add(word) && ok
				}
				if !ok || strings.TrimSpace(s) == "" {
					c.refuseItem(it.path, it.v)
				}
			}
			*dst(t) = e.set()
		},
		show: func(t *T) string {
			var list []string
			for _, n := range dst(t).Codes {
				list = append(list, strconv.Itoa(n))
			}
			for _, s := range dst(t).Signals {
				list = append(list, quote(signalName(s)))
			}
			return showList(list)
		},
	}
}

func signal[T any](dst func(*T) *policy.Signal) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			s, ok := number(c.v)
			sig, known := ParseSignal(s)
			if !ok || !known {
				c.refuse()
				return
			}
			*dst(t) = sig
		},
		show: func(t *T) string { return quote(signalName(*dst(t))) },
	}
}

// abs makes a path absolute; a relative one starts at the fleet file.
func (l *loader) abs(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(l.dir, path)
}

func showText(s string) string {
	if s == "" {
		return ""
	}
	return quote(s)
}

func showTexts(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quote(s)
	}
	return showList(quoted)
}

func showList(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return "[" + strings.Join(list, ", ") + "]"
}

func isLine(s string) bool { return !strings.ContainsFunc(s, unicode.IsControl) }

func isFile(s string) bool { return s != "" && !strings.ContainsRune(s, 0) }

func isAbs(s string) bool { return isFile(s) && filepath.IsAbs(s) }

// isName is the rule for fleets, workers and sockets.
func isName(s string) bool {
	return s != "" && len(s) <= maxName && s[0] != '-' && strings.Trim(s, bareKey) == ""
}

const (
	maxName  = 64
	nameRule = "must begin with a letter, a digit or _, have only these and -, and be at most 64 bytes long"
)

// isModule accepts dotted Python names.
func isModule(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		for i, r := range part {
			if r != '_' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsDigit(r) && !unicode.IsMark(r)) {
				return false
			}
		}
		if part == "" {
			return false
		}
	}
	return true
}

// isCallable accepts module:callable.
func isCallable(s string) bool {
	module, name, ok := strings.Cut(s, ":")
	return ok && isModule(module) && isModule(name)
}

// isIdentity accepts what systemd does: a name, or a number that is neither of
// the two that mean "none".
func isIdentity(s string) bool {
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return n < math.MaxUint32 && n != math.MaxUint16
	}
	return s != "" && len(s) <= 255 && strings.Trim(s, bareKey+".$") == "" && strings.IndexByte("-.$0123456789", s[0]) < 0
}
