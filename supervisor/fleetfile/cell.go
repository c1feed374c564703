// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

const digits = "0123456789"

// loader reads one fleet file and collects what is wrong with it.
type loader struct {
	name   string // of the fleet
	host   Host
	path   string
	src    string
	dir    string // absolute: where relative paths start
	index  *index
	errs   Errors
	schema []Table

	declared    map[string]bool   // sockets, sound or not; nil if they cannot be known
	addresses   map[string]int    // of each socket
	otherZygote bool              // than prefork's own: floor.zygote is there
	otherFloor  string            // the key for which a floor cannot give capabilities, "" if it can
	listed      map[string]string // what an address occupies: the path of its entry
	overridden  map[string]string // workers whose counts are those of variables, by these
}

func (l *loader) errorf(path, format string, args ...any) {
	l.errs = append(l.errs, &Error{File: l.path, Line: l.index.line(path), Key: path, Text: fmt.Sprintf(format, args...)})
}

// table returns v as a table, or reports that it is none.
func (l *loader) table(path string, v any) (map[string]any, bool) {
	switch v := v.(type) {
	case map[string]any:
		return v, true
	case []map[string]any:
		l.errorf(path, "must be one table, not a list of tables; write [%s] instead of [[%s]]", path, path)
	default:
		l.errorf(path, "must be a table, not %s; write [%s] and its keys below", describe(v), path)
	}
	return nil, false
}

// cell is one value of a fleet file on its way into a field.
type cell struct {
	*loader
	path string
	key  *Key
	v    any
	bad  bool // it was reported
}

// refuse reports the whole value: the rule of the key, what is there instead
// and how it is written.
func (c *cell) refuse() { c.refuseItem(c.path, c.v) }

// refuseItem is refuse for an entry of a list or a table.
func (c *cell) refuseItem(path string, v any) {
	c.errorf(path, "must be %s, not %s; write %s = %s, for example", c.key.Rule, describe(v), c.key.Name, c.key.Example)
}

// fail reports a rule of its own and the remedy.
func (c *cell) fail(path, rule, remedy string) { c.errorf(path, "%s; %s", rule, remedy) }

func (c *cell) errorf(path, format string, args ...any) {
	c.bad = true
	c.loader.errorf(path, format, args...)
}

// text returns the value if it is a string that valid accepts.
func (c *cell) text(valid func(string) bool) (string, bool) {
	s, ok := c.v.(string)
	if !ok || !valid(s) {
		c.refuse()
		return "", false
	}
	return s, true
}

// integer returns the value if it is an integer in lo..hi.
func (c *cell) integer(lo, hi int64) (int64, bool) {
	n, ok := c.v.(int64)
	if !ok || n < lo || n > hi {
		c.refuse()
		return 0, false
	}
	return n, true
}

// item is an entry of a list with its path.
type item struct {
	path string
	v    any
}

// items returns the entries of a list; a single value is a list of one if
// single allows it.
func (c *cell) items(single bool) []item {
	list, ok := asList(c.v)
	if !ok {
		if !single {
			c.refuse()
			return nil
		}
		return []item{{c.path, c.v}}
	}
	items := make([]item, len(list))
	for i, v := range list {
		items[i] = item{elem(c.path, i), v}
	}
	return items
}

// texts returns the entries of a list of strings that valid accepts.
func (c *cell) texts(single bool, valid func(string) bool) []string {
	var list []string
	for _, it := range c.items(single) {
		if s, ok := it.v.(string); ok && valid(s) {
			list = append(list, s)
			continue
		}
		c.refuseItem(it.path, it.v)
	}
	return list
}

// asList also takes an array of tables, which the decoder gives a type of its
// own.
func asList(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case []map[string]any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = v[i]
		}
		return list, true
	}
	return nil, false
}

// number returns an integer as its digits. Strings come back as they are.
// Everything else is not ok.
func number(v any) (string, bool) {
	if n, ok := v.(int64); ok {
		return strconv.FormatInt(n, 10), true
	}
	s, ok := v.(string)
	return s, ok
}

// seconds is number that also takes fractions: "1.5" for 1.5.
func seconds(v any) (string, bool) {
	if f, ok := v.(float64); ok && !math.IsNaN(f) && !math.IsInf(f, 0) {
		return strconv.FormatFloat(f, 'f', -1, 64), true
	}
	return number(v)
}

// describe says in an error what was found instead.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return quote(shorten(v))
	case bool, int64:
		return fmt.Sprint(v)
	case float64:
		return floatText(v)
	case time.Time:
		return "a date or time"
	case []any:
		if len(v) == 0 {
			return "an empty list"
		}
		return "a list"
	case []map[string]any:
		return "a list of tables"
	}
	return "a table"
}

// shorten keeps errors readable when a value is a page of text.
func shorten(s string) string {
	const most = 48
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// quote writes a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch i := slices.Index([]rune("\b\t\n\f\r\"\\"), r); {
		case i >= 0:
			b.WriteByte('\\')
			b.WriteByte("btnfr\"\\"[i])
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func floatText(f float64) string {
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if strings.Trim(s, digits+"-") == "" {
		s += ".0"
	}
	return s
}
