// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"bytes"
	_ "embed" // for the template
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// WriteTo writes the fleet as TOML with every default filled in and [defaults]
// merged into the workers. [Parse] reads the same fleet from it.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# fleet %s, resolved from %s\n", f.Name, quote(f.Path))
	printTable(&b, "", &topTable, &fleetDraft{File: f})
	if f.Floor != nil {
		printTable(&b, "floor", &floorTable, f.Floor)
	}
	if f.Metrics != nil {
		printTable(&b, "metrics", &metricsTable, &metricsDraft{Metrics: *f.Metrics})
	}
	for _, s := range f.Sockets {
		printTable(&b, join("socket", s.Name), &socketTable, &socketDraft{Socket: s})
	}
	for _, worker := range f.Workers {
		printTable(&b, join("worker", worker.Name), &workerTable, &draft{Worker: worker})
	}
	return b.WriteTo(w)
}

func printTable[T any](b *bytes.Buffer, header string, schema *table[T], t *T) {
	if header != "" {
		fmt.Fprintf(b, "\n[%s]\n", header)
	}
	for i := range schema.fields {
		f := &schema.fields[i]
		if f.show == nil {
			continue
		}
		if text := f.show(t); text != "" {
			fmt.Fprintf(b, "%s = %s\n", f.Name, text)
		}
	}
}

// tomlText writes an argument of an entry.
func tomlText(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return floatText(v)
	case bool:
		return strconv.FormatBool(v)
	case []any:
		list := make([]string, len(v))
		for i := range v {
			list[i] = tomlText(v[i])
		}
		return "[" + strings.Join(list, ", ") + "]"
	case map[string]any:
		if len(v) == 0 {
			return "{}"
		}
		var list []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			list = append(list, keyText(name)+" = "+tomlText(v[name]))
		}
		return "{ " + strings.Join(list, ", ") + " }"
	}
	panic(fmt.Sprintf("fleetfile: no TOML for %T", v)) // argument lets nothing else pass
}

//go:embed init.toml
var template string

// Template returns a fleet file to begin with: it works as it is, and names and
// explains every key that there is.
func Template() string { return template }
