// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ListLiteral writes values of a fleet file as a Python list, none as "". A worker
// evaluates literals without importing a parser, which would cost each one a third of
// a megabyte.
func ListLiteral(values []any) string {
	if len(values) == 0 {
		return ""
	}
	return literal(values)
}

// DictLiteral writes a table of a fleet file as a Python dict, an empty one as "".
func DictLiteral(table map[string]any) string {
	if len(table) == 0 {
		return ""
	}
	return literal(table)
}

// literal writes one value. Every character of a string that is not
// plain ASCII is escaped, so that no value can be anything but a literal.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return stringLiteral(v)
	case bool:
		if v {
			return "True"
		}
		return "False"
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return floatLiteral(v)
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, literal(item))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case map[string]any:
		var items []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			items = append(items, stringLiteral(key)+": "+literal(v[key]))
		}
		return "{" + strings.Join(items, ", ") + "}"
	default:
		panic(fmt.Sprintf("zygote: %T has no Python literal", v)) // fleetfile refuses it
	}
}

// floatLiteral writes a finite number: fleetfile refuses any other.
func floatLiteral(f float64) string {
	text := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	return text
}

func stringLiteral(s string) string {
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
