// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// pythonArgs and pythonKwargs write values of a fleet file as Python literals:
// a worker evaluates them without importing a parser, which would cost each one
// a third of a megabyte.
func pythonArgs(args []any) string {
	if len(args) == 0 {
		return ""
	}
	return pythonLiteral(args)
}

func pythonKwargs(kwargs map[string]any) string {
	if len(kwargs) == 0 {
		return ""
	}
	return pythonLiteral(kwargs)
}

// pythonLiteral writes one value. Every character of a string that is not
// plain ASCII is escaped, so that no value can be anything but a literal.
func pythonLiteral(v any) string {
	switch v := v.(type) {
	case string:
		return pythonString(v)
	case bool:
		if v {
			return "True"
		}
		return "False"
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return pythonFloat(v)
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, pythonLiteral(item))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case map[string]any:
		var items []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			items = append(items, pythonString(key)+": "+pythonLiteral(v[key]))
		}
		return "{" + strings.Join(items, ", ") + "}"
	default:
		panic(fmt.Sprintf("supervisor: %T has no Python literal", v)) // fleetfile refuses it
	}
}

// pythonFloat writes a finite number: fleetfile refuses any other.
func pythonFloat(f float64) string {
	text := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	return text
}

func pythonString(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		switch {
		case r == '\'' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r >= ' ' && r <= '~':
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteByte('\'')
	return b.String()
}
