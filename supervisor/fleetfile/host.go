// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/quantity"
)

// Host is what a fleet file can depend on beside its text. Who reads one says what it is.
type Host struct {
	Affinity int               // processors on which the master may run; 0 is 1
	Quota    float64           // processors that its control group may use together; 0: all
	Runtime  string            // %t: a directory for sockets and the like; "" is /run
	Counts   map[string]string // variables of the master that begin with [CountPrefix]
}

// Processors is the least of affinity and quota, rounded up.
func (h Host) Processors() int {
	n := h.Affinity
	if h.Quota > 0 && h.Quota < float64(n) {
		n = int(math.Ceil(h.Quota))
	}
	return max(1, n)
}

// processors says how many there are, and why.
func (h Host) processors() string {
	n, why := h.Processors(), ""
	if h.Quota > 0 {
		why = fmt.Sprintf(" (%d by affinity, %s by cpu.max)", h.Affinity, strconv.FormatFloat(math.Round(h.Quota*100)/100, 'f', -1, 64))
	}
	if n == 1 {
		return "1 processor" + why
	}
	return strconv.Itoa(n) + " processors" + why
}

func (h Host) runtime() string { return cmp.Or(h.Runtime, "/run") }

// Specifiers stand in a value for what is not known when it is written, as in
// systemd.unit(5). What the file and the host know is filled in when the file is read.
// What only a slot knows stays in the value, escaped as it was written, until one of its
// processes is started: see [Worker.Of].
const (
	slotSpecifiers = "iwc" // in values of workers
	fileSpecifiers = "pt"  // in these, and in those of the fleet and its sockets
)

var specifierNames = map[byte]string{
	'i': "%i (index)", 'w': "%w (worker)", 'c': "%c (count)", 'p': "%p (fleet)", 't': "%t (runtime directory)",
}

// expand replaces each specifier for which there is a value, "%" standing for a percent
// sign. The others stay as they are.
func expand(s string, values map[byte]string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if v, ok := values[s[i]]; ok {
			b.WriteString(v)
			continue
		}
		b.WriteString(s[i-1 : i+1])
	}
	return b.String()
}

// escape makes a text what expand makes it of again.
func escape(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// specifiers reports what in a value begins with a percent sign and is none of those that
// are known there.
func (c *cell) specifiers(path, s, known string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		i++
		switch {
		case i == len(s):
			c.fail(path, "ends in a lone %", "write %% for a percent sign")
			return false
		case s[i] == '%' || strings.IndexByte(known, s[i]) >= 0:
			continue
		}
		next := []rune(s[i:])[0]
		what := "there is no specifier " + quote("%"+string(next))
		if strings.ContainsRune(slotSpecifiers, next) {
			what = "only a slot has " + specifierNames[s[i]]
		}
		var names []string
		for _, letter := range []byte(known) {
			names = append(names, specifierNames[letter])
		}
		c.errorf(path, "%s: known here are %s; write %s for a percent sign", what, strings.Join(names, ", ")+" and %%", quote("%%"+string(next)))
		return false
	}
	return true
}

// fill fills in what the file and the host know, for a value that has no slot.
func (l *loader) fill(s string) string {
	return expand(s, map[byte]string{'%': "%", 'p': l.name, 't': l.host.runtime()})
}

// specified is text with the specifiers of the file. It is printed as it has to be written.
func specified[T any](dst func(*T) *string, valid func(string) bool) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			s, ok := c.text(valid)
			if !ok || !c.specifiers(c.path, s, fileSpecifiers) {
				return
			}
			*dst(t) = c.fill(s)
		},
		show: func(t *T) string { return showText(escape(*dst(t))) },
	}
}

// directory is the absolute path of a worker's directory.
func directory() value[draft] {
	return value[draft]{
		set: func(c *cell, d *draft) {
			s, ok := c.text(func(s string) bool { return isAbs(s) || isFile(s) && strings.HasPrefix(s, "%t") })
			if ok && c.specifiers(c.path, s, slotSpecifiers+fileSpecifiers) {
				d.WorkingDirectory = s
			}
		},
		show: func(d *draft) string { return showText(d.WorkingDirectory) },
	}
}

// specify fills in what the file and the host know, in all values of the worker, and makes
// the path of its program absolute: what they are is known when [defaults] are merged.
func (d *draft) specify(l *loader) {
	values := map[byte]string{'w': d.Name, 'p': l.name, 't': escape(l.host.runtime())}
	d.replace(func(s string) string {
		s = expand(s, values)
		d.percent = d.percent || strings.Contains(s, "%")
		d.counted = d.counted || expand(s, map[byte]string{'c': ""}) != s
		return s
	})
	if len(d.Exec) > 0 && strings.Contains(d.Exec[0], "/") && !filepath.IsAbs(d.Exec[0]) {
		d.Exec[0] = filepath.Join(escape(l.dir), d.Exec[0])
		d.percent = d.percent || strings.Contains(d.Exec[0], "%")
	}
}

// replace changes each text of the worker that can have specifiers. Lists and tables that
// others may share are made anew.
func (w *Worker) replace(change func(string) string) {
	w.WorkingDirectory = change(w.WorkingDirectory)
	if w.Exec != nil {
		w.Exec = append([]string(nil), w.Exec...)
	}
	for i := range w.Exec {
		w.Exec[i] = change(w.Exec[i])
	}
	if w.Environment != nil {
		env := make(map[string]string, len(w.Environment))
		for name, s := range w.Environment {
			env[name] = change(s)
		}
		w.Environment = env
	}
	arguments := func(args []any, kwargs map[string]any) ([]any, map[string]any) {
		if args != nil {
			args, _ = inArgument(args, change).([]any)
		}
		if kwargs != nil {
			kwargs, _ = inArgument(kwargs, change).(map[string]any)
		}
		return args, kwargs
	}
	w.Args, w.Kwargs = arguments(w.Args, w.Kwargs)
	w.Tasks = append([]Task(nil), w.Tasks...)
	for i := range w.Tasks {
		t := &w.Tasks[i]
		t.Args, t.Kwargs = arguments(t.Args, t.Kwargs)
	}
}

// inArgument changes the texts in an argument, however deep, but not the names of tables.
func inArgument(v any, change func(string) string) any {
	switch v := v.(type) {
	case string:
		return change(v)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = inArgument(v[i], change)
		}
		return list
	case map[string]any:
		table := make(map[string]any, len(v))
		for name := range v {
			table[name] = inArgument(v[name], change)
		}
		return table
	}
	return v
}

// Of is the worker as one of its slots has it, of so many: no specifiers are left in its
// values. It may be the worker itself.
func (w *Worker) Of(index, count int) *Worker {
	if !w.percent {
		return w
	}
	values := map[byte]string{'%': "%", 'i': strconv.Itoa(index), 'c': strconv.Itoa(count)}
	own := *w
	own.replace(func(s string) string { return expand(s, values) })
	return &own
}

// CountPrefix begins the names of variables of the master that override counts. Workers do
// not get them: one may be the master of another fleet.
const CountPrefix = "PREFORK_COUNT_"

// countVariable is the variable that overrides the count of a worker: its name in capitals,
// with _ for each -.
func countVariable(worker string) string {
	return CountPrefix + strings.ToUpper(strings.ReplaceAll(worker, "-", "_"))
}

// CountVariables are those that would override the counts of the workers, as a text.
func (f *File) CountVariables() string {
	var names []string
	for i := range f.Workers {
		names = append(names, countVariable(f.Workers[i].Name))
	}
	return cmp.Or(strings.Join(names, ", "), "no worker")
}

const countRule = `a whole number from 0 to 10000, "cpu" or "2*cpu+1"`

// count reads a number of slots, which may depend on the processors. from says why it is
// what it is, "" for a plain number.
func (l *loader) count(text string) (n int, from string, err error) {
	c, err := quantity.ParseCount(text)
	if err != nil {
		return 0, "", fmt.Errorf("must be %s, not %s", countRule, quote(shorten(text)))
	}
	if c.PerCPU > 0 {
		from = c.String() + " with " + l.host.processors()
	}
	if n = c.Of(l.host.Processors()); n > policy.MaxSlots {
		return 0, "", fmt.Errorf("must be at most %d, not %d", policy.MaxSlots, n)
	}
	return n, from, nil
}

func setCount(c *cell, d *draft) {
	d.CountFrom = ""
	text, ok := c.v.(string)
	if !ok {
		if n, ok := c.integer(0, policy.MaxSlots); ok {
			d.Count = int(n)
		}
		return
	}
	n, from, err := c.count(text)
	switch {
	case err != nil:
		c.errorf(c.path, "%v; write %s = %s, for example", err, c.key.Name, c.key.Example)
	case from == "":
		c.refuse() // a number is written as one
	default:
		d.Count, d.CountFrom = n, from
	}
}

// overrideCount lets the environment say how many slots the worker has. An empty variable
// says nothing.
func (d *draft) overrideCount(l *loader, path string) {
	name := countVariable(d.Name)
	text := l.host.Counts[name]
	if text == "" {
		return
	}
	at := cmp.Or(d.from["count"], path)
	if other := l.overridden[name]; other != "" {
		l.errorf(path, "the variable %s of the environment would be for the workers %s and %s; rename one of them, or unset it", name, other, d.Name)
		return
	}
	l.overridden[name] = d.Name
	n, from, err := l.count(text)
	if err != nil {
		d.bad["count"] = true
		l.errorf(at, "the variable %s of the environment, which overrides count, %v; set it to 4, for example, or unset it", name, err)
		return
	}
	d.Count, d.CountFrom = n, name+"="+cmp.Or(from, strconv.Itoa(n))
}
