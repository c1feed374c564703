// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"bytes"
	_ "embed" // for the template
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/decnet/prefork/supervisor/policy"
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
	if f.Log != (Log{}) {
		printTable(&b, "log", &logTable, &f.Log)
	}
	if f.Metrics != nil {
		printTable(&b, "metrics", &metricsTable, &metricsDraft{Metrics: *f.Metrics})
	}
	for _, s := range f.Sockets {
		printTable(&b, join("socket", s.Name), &socketTable, &socketDraft{Socket: s})
	}
	for _, worker := range f.Workers {
		path := join("worker", worker.Name)
		printTable(&b, path, &workerTable, &draft{Worker: worker})
		for _, task := range worker.Tasks {
			printTable(&b, join(join(path, "tasks"), task.Name), &taskTable, &taskDraft{Task: task})
		}
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
			fmt.Fprintf(b, "%s = %s%s\n", f.Name, text, noteOf(t, f.Name))
		}
	}
}

// noteOf is a comment on a value that the file does not have as it is printed.
func noteOf(t any, key string) string {
	if d, ok := t.(*draft); ok && key == "count" && d.CountFrom != "" {
		return "  # " + d.CountFrom
	}
	return ""
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

// Config is what the file means for the state machine, without what is of the host. For a
// worker that names environment files, stamps tell apart what these hold: what has changed
// there has changed. passed are the names of sockets that are not bound for the file: what
// it says of them waits for the next start.
func (f *File) Config(stamps map[string]uint64, passed []string) policy.Config {
	c := policy.Config{
		Called:       f.called(),
		ReadyWhen:    f.ReadyWhen,
		TimeoutStart: f.TimeoutStart,
		StopDelay:    f.StopDelay,
		Keys:         append(sums(&topTable, &fleetDraft{File: f}), f.masterKeys()...),
	}
	if f.Floor != nil {
		c.Spares = f.Floor.Spares
		c.FloorKeys = append(sums(&floorTable, f.Floor), f.capabilityKeys()...)
	}
	for _, s := range f.Sockets {
		keys := sums(&socketTable, &socketDraft{Socket: s})
		for i := range keys {
			if slices.Contains(passed, s.Name) {
				keys[i].Class = policy.Start
			}
		}
		c.Sockets = append(c.Sockets, policy.Socket{Name: s.Name, Keys: keys})
	}
	for i := range f.Workers {
		w := &f.Workers[i]
		worker := policy.Worker{
			Name: w.Name, Count: w.Count, Entry: w.Forked(), OnDemand: w.OnDemand, Sockets: w.Sockets, After: w.After, Oneshot: w.Oneshot,
			Policy: w.Policy, Roll: w.Roll, Recycle: w.Recycle, Vital: w.Vital, Keys: sums(&workerTable, &draft{Worker: *w}), Tasks: w.TaskNames(),
			Needed: f.needs(w), Counted: w.counted,
		}
		if len(w.Tasks) > 0 {
			worker.Policy.Notify = true // when its tasks are ready; what the file says is of each of them
			worker.Keys = append(worker.Keys, tasksKey(w.Tasks))
		}
		for i, k := range worker.Keys {
			if k.Name == "environment_file" {
				worker.Keys[i].Sum ^= stamps[w.Name]
			}
		}
		c.Workers = append(c.Workers, worker)
	}
	return c
}

// called is what commands take for the fleet.
func (f *File) called() string {
	if slices.Contains(Dirs, filepath.Dir(f.Path)) {
		return f.Name
	}
	return f.Path
}

// capabilityKeys: a floor is born with what its workers may have.
func (f *File) capabilityKeys() (keys []policy.Key) {
	var all []string
	for i := range f.Workers {
		if w := &f.Workers[i]; w.Forked() {
			all = append(all, w.AmbientCapabilities...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	return []policy.Key{{Name: "ambient_capabilities", Class: policy.Birth, Sum: sum(showTexts(slices.Compact(all)))}}
}

// sums are those of the keys of a table, as they would be printed.
func sums[T any](schema *table[T], t *T) (keys []policy.Key) {
	for i := range schema.fields {
		f := &schema.fields[i]
		if f.show == nil {
			continue
		}
		if text := f.show(t); text != "" {
			keys = append(keys, policy.Key{Name: f.Name, Class: f.Class, Sum: sum(text)})
		}
	}
	return keys
}

func sum(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // never fails
	return h.Sum64()
}
