// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ListLiteral writes values of a fleet file as JSON, none as "". It is a Python literal
// too, but for true and false: a Python worker evaluates it without importing a parser,
// which would cost each one a third of a megabyte.
func ListLiteral(values []any) string {
	if len(values) == 0 {
		return ""
	}
	return literal(values)
}

// DictLiteral writes a table of a fleet file in the same way, an empty one as "".
func DictLiteral(table map[string]any) string {
	if len(table) == 0 {
		return ""
	}
	return literal(table)
}

// literal writes one value. Package json would lose that 1.0 is no integer, and has
// escapes of its own for what Python reads otherwise.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return stringLiteral(v)
	case bool:
		return strconv.FormatBool(v)
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
		panic(fmt.Sprintf("zygote: %T cannot be written", v)) // fleetfile refuses it
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

// stringLiteral escapes no character but those that it must: beyond U+FFFF, JSON's
// escapes are not Python's.
func stringLiteral(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
