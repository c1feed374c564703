// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// what a good file must have around a key before the key is good itself.
var around = map[string]string{
	"defaults":                       "[worker.a]\nexec = [\"a\"]\n",
	"ready_when":                     "[worker.a]\nexec = [\"a\"]\n",
	"[floor]":                        "[floor]\n",
	"[floor].repack":                 "[floor]\nwarm = \"a:b\"\n",
	"[socket.NAME]":                  "[socket.s]\nlisten = \"/run/s.sock\"\n",
	"[socket.NAME].listen":           "[socket.s]\n",
	"[log]":                          "[log]\nformat = \"name\"\n",
	"[log].format":                   "[log]\n",
	"[metrics]":                      "[metrics]\nlisten = \"/run/m.sock\"\n",
	"[metrics].listen":               "[metrics]\n",
	"[metrics].ready":                "[worker.w]\nexec = [\"a\"]\n[metrics]\nlisten = \"/run/m.sock\"\n",
	"[worker.NAME]":                  "[worker.w]\nexec = [\"w\"]\n",
	"[worker.NAME].exec":             "[worker.w]\n",
	"[worker.NAME].entry":            "[floor]\n[worker.w]\n",
	"[worker.NAME].tasks":            "[floor]\n[worker.w]\n",
	"[worker.NAME].lifespan":         "[floor]\n[worker.w]\ntasks = { t = \"a:b\" }\n",
	"[worker.NAME.tasks.NAME]":       "[floor]\n[worker.w.tasks.t]\nentry = \"a:b\"\n",
	"[worker.NAME.tasks.NAME].entry": "[floor]\n[worker.w.tasks.t]\n",
	"[worker.NAME.tasks.NAME].start_limit_interval_sec": "[floor]\n[worker.w.tasks.t]\nentry = \"a:b\"\nstart_limit_burst = 5\n",
	"[worker.NAME].after":                               "[worker.migrate]\nexec = [\"m\"]\n[worker.w]\nexec = [\"w\"]\n",
	"[worker.NAME].args":                                "[floor]\n[worker.w]\nentry = \"a:b\"\n",
	"[worker.NAME].kwargs":                              "[floor]\n[worker.w]\nentry = \"a:b\"\n",
	"[socket.NAME].reuse_port":                          "[socket.s]\nlisten = \"8080\"\n",
	"[socket.NAME].free_bind":                           "[socket.s]\nlisten = \"8080\"\n",
	"[worker.NAME].on_demand":                           "[socket.http]\nlisten = \"8080\"\n[worker.w]\nexec = [\"w\"]\nsockets = [\"http\"]\n",
	"[worker.NAME].sockets":                             "[socket.http]\nlisten = \"8080\"\n[worker.w]\nexec = [\"w\"]\n",
	"[worker.NAME].start_limit_interval_sec":            "[worker.w]\nexec = [\"w\"]\nstart_limit_burst = 5\n",
}

// fileWith returns a file that is good but for the line, the number of that
// line, and the path of the table that it is in.
func fileWith(header, key, line string) (text string, n int, table string) {
	before, ok := around[strings.TrimPrefix(header+"."+key, ".")]
	if !ok {
		before = around[header]
	}
	if header == "" {
		return line + "\n" + before, 1, ""
	}
	path := strings.NewReplacer("[worker.NAME.tasks.NAME]", "worker.w.tasks.t.", "[socket.NAME]", "socket.s.", "[worker.NAME]", "worker.w.", "[floor]", "floor.", "[log]", "log.", "[metrics]", "metrics.").Replace(header)
	return before + line + "\n", strings.Count(before, "\n") + 1, path
}

func eachKey(t *testing.T, f func(t *testing.T, header string, k fleetfile.Key)) {
	for _, table := range fleetfile.Schema() {
		for _, k := range table.Keys {
			t.Run(table.Header+k.Name, func(t *testing.T) { f(t, table.Header, k) })
		}
	}
}

func parse(text string) (*fleetfile.File, error) {
	f, err := fleetfile.Parse("test", "/etc/prefork/test.toml", []byte(text), fleetfile.Host{})
	return fleetfile.Unplaced(f), err
}

// wantError checks that the text is refused for one thing only, at that line
// and at that key or something in it, with a rule and a remedy.
func wantError(t *testing.T, text string, line int, key string) *fleetfile.Error {
	t.Helper()
	_, err := parse(text)
	var list fleetfile.Errors
	if !errors.As(err, &list) {
		t.Fatalf("got %v, want an error at line %d, %s, in\n%s", err, line, key, text)
	}
	for _, e := range list {
		rest, ok := strings.CutPrefix(e.Key, key)
		if e.Line != line || !ok || rest != "" && rest[0] != '.' && rest[0] != '[' {
			t.Errorf("got %v, want line %d, %s, in\n%s", e, line, key, text)
		}
		wantRemedy(t, e)
	}
	return list[0]
}

func wantRemedy(t *testing.T, e *fleetfile.Error) {
	t.Helper()
	rule, remedy, ok := strings.Cut(e.Text, "; ")
	if !ok || rule == "" || len(remedy) < len("remove it") || strings.HasSuffix(e.Text, ".") {
		t.Errorf("no rule and remedy: %v", e)
	}
}

func TestEveryKeyTakesItsExampleAndItsDefault(t *testing.T) {
	eachKey(t, func(t *testing.T, header string, k fleetfile.Key) {
		if k.Rule == "" {
			t.Errorf("no rule: %+v", k)
		}
		without, _, _ := fileWith(header, k.Name, "")
		with, _, _ := fileWith(header, k.Name, k.Name+" = "+k.Example)
		bare, _ := parse(without) // nil where the key is needed
		full, err := parse(with)
		if err != nil {
			t.Fatalf("example: %v", err)
		}
		if reflect.DeepEqual(bare, full) {
			t.Errorf("the example %s changes nothing", k.Example)
		}
		wantRoundTrip(t, full)
		if k.Default == "" {
			return
		}
		same, _, _ := fileWith(header, k.Name, k.Name+" = "+k.Default)
		if got, err := parse(same); err != nil || !reflect.DeepEqual(got, bare) {
			t.Errorf("the default %s is not what is without the key: %+v, %v", k.Default, got, err)
		}
	})
}

// wantRoundTrip checks that the resolved print is the same fleet.
func wantRoundTrip(t *testing.T, f *fleetfile.File) {
	t.Helper()
	defer func(of []fleetfile.Worker) { f.Workers = of }(f.Workers)
	f.Workers = slices.Clone(f.Workers)
	for i := range f.Workers {
		f.Workers[i].CountFrom = "" // what is printed is a number
	}
	var b strings.Builder
	if _, err := f.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	again, err := fleetfile.Parse(f.Name, f.Path, []byte(b.String()), fleetfile.Host{})
	if err != nil || !reflect.DeepEqual(fleetfile.Unplaced(f), fleetfile.Unplaced(again)) {
		t.Errorf("not the same when read again: %v\n%+v\n%+v\n%s", err, f, again, b.String())
	}
}

// One value of each type of TOML; none is good as text of any kind.
var samples = map[string]string{
	"string": `"\u0001%"`, "integer": `-7654321`, "float": `-1.5`, "bool": `true`,
	"date": `1979-05-27`, "list": `[[]]`, "table": `{ "" = 1 }`,
}

// The types that a kind can be written as. Samples of all others must be
// refused.
var accepts = map[fleetfile.Kind][]string{
	fleetfile.KindString: {}, fleetfile.KindStrings: {}, fleetfile.KindOneOrAll: {},
	fleetfile.KindInteger: {}, fleetfile.KindBool: {"bool"}, fleetfile.KindSpan: {},
	fleetfile.KindChoice: {}, fleetfile.KindMode: {}, fleetfile.KindID: {}, fleetfile.KindIDs: {},
	fleetfile.KindSignal: {}, fleetfile.KindExits: {}, fleetfile.KindLimit: {}, fleetfile.KindEnv: {},
	fleetfile.KindList: {"list"}, fleetfile.KindTable: {"table"}, fleetfile.KindNames: {},
	fleetfile.KindWorkers: {}, fleetfile.KindTasks: {}, fleetfile.KindReady: {}, fleetfile.KindSize: {}, fleetfile.KindPercent: {}, fleetfile.KindCount: {},
	fleetfile.KindSlots: {},
}

func TestEveryKeyRefusesOtherTypes(t *testing.T) {
	eachKey(t, func(t *testing.T, header string, k fleetfile.Key) {
		ok, known := accepts[k.Kind]
		if !known {
			t.Fatalf("kind %s has no row", k.Kind)
		}
		for name, sample := range samples {
			// environment_file takes any text but NUL as a path.
			if slices.Contains(ok, name) || name == "string" && freeText[k.Name] {
				continue
			}
			text, line, table := fileWith(header, k.Name, k.Name+" = "+sample)
			wantError(t, text, line, table+k.Name)
		}
	})
}

var freeText = map[string]bool{"environment_file": true, "python": true}

func TestEveryKeyRefusesItsMisspelling(t *testing.T) {
	eachKey(t, func(t *testing.T, header string, k fleetfile.Key) {
		wrong := k.Name[:1] + k.Name + " = " + k.Example
		text, line, table := fileWith(header, "", wrong)
		e := wantError(t, text, line, table+k.Name[:1]+k.Name)
		if !strings.HasSuffix(e.Text, "did you mean "+k.Name+"?") {
			t.Errorf("got %v, want a suggestion of %s", e, k.Name)
		}
	})
}

func TestEveryKeyIsRefusedInAnotherTable(t *testing.T) {
	tables := fleetfile.Schema()
	has := func(t fleetfile.Table, name string) bool {
		return slices.ContainsFunc(t.Keys, func(k fleetfile.Key) bool { return k.Name == name })
	}
	eachKey(t, func(t *testing.T, header string, k fleetfile.Key) {
		for _, other := range tables {
			if has(other, k.Name) {
				continue
			}
			text, line, table := fileWith(other.Header, "", k.Name+" = "+k.Example)
			if e := wantError(t, text, line, table+k.Name); !strings.Contains(e.Text, "did you mean") && header != "" &&
				!strings.Contains(e.Text, header) {
				t.Errorf("got %v, want it to name %s", e, header)
			}
		}
	})
}

// [defaults] takes every key of a worker but its own, and what is wrong there
// is reported once, whatever the number of workers.
func TestDefaultsTakeTheKeysOfWorkers(t *testing.T) {
	all := fleetfile.Schema()
	worker := all[slices.IndexFunc(all, func(t fleetfile.Table) bool { return t.Header == "[worker.NAME]" })]
	for _, k := range worker.Keys {
		rest, _, _ := fileWith(worker.Header, k.Name, "")
		if k.Own {
			wantError(t, "[defaults]\n"+k.Name+" = "+k.Example, 2, "defaults."+k.Name)
			continue
		}
		both := rest + strings.Replace(rest[strings.Index(rest, "[worker.w]"):], "worker.w", "worker.v", 1)
		if f, err := parse("[defaults]\n" + k.Name + " = " + k.Example + "\n" + both); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		} else {
			wantRoundTrip(t, f)
		}
		_, err := parse("[defaults]\n" + k.Name + " = -1.5\n" + both)
		var list fleetfile.Errors
		if !errors.As(err, &list) || len(list) != 1 || list[0].Line != 2 || list[0].Key != "defaults."+k.Name {
			t.Errorf("%s: got %v, want one error in line 2", k.Name, err)
		}
	}
}

// All keys of all tables wrong at once: all of them are reported, in the order
// of the lines.
func TestAllErrorsAreReportedTogether(t *testing.T) {
	var b strings.Builder
	want := 0
	for _, table := range fleetfile.Schema() {
		fmt.Fprintln(&b, strings.ReplaceAll(table.Header, "NAME", "x"))
		for _, k := range table.Keys {
			if k.Kind != fleetfile.KindTable && k.Kind != fleetfile.KindTasks {
				fmt.Fprintln(&b, k.Name, "= 1979-05-27")
				want++
			}
		}
		fmt.Fprintln(&b, "kwarks = 1")
		want++
	}
	_, err := parse(b.String())
	var list fleetfile.Errors
	// One more for entry beside exec.
	if !errors.As(err, &list) || len(list) != want+1 {
		t.Fatalf("got %d errors, want %d:\n%v", len(list), want+1, err)
	}
	if !slices.IsSortedFunc(list, func(a, b *fleetfile.Error) int { return a.Line - b.Line }) {
		t.Errorf("not sorted by line:\n%v", err)
	}
}
