// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The bounds of what a stranger reads at one time.
const (
	maxFiles  = 20  // of a room, its tests apart
	maxLines  = 400 // of a file
	maxFields = 15  // of a struct with methods
)

// parsed is one file of Go.
type parsed struct {
	path  string
	lines int
	file  *ast.File
}

// parseAll reads every file of Go in the house.
func parseAll(t *testing.T) (all []parsed) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != "..":
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all = append(all, parsed{path, strings.Count(string(text), "\n"), file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// structs are the structs of a file with how many fields each has.
func structs(file *ast.File) map[string]int {
	found := map[string]int{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, field := range s.Fields.List {
				found[spec.Name.Name] += max(1, len(field.Names))
			}
		}
		return true
	})
	return found
}

// withMethods are the types that the functions of a file are methods of.
func withMethods(file *ast.File) (types []string) {
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Recv == nil {
			continue
		}
		receiver := f.Recv.List[0].Type
		if pointer, ok := receiver.(*ast.StarExpr); ok {
			receiver = pointer.X
		}
		if name, ok := receiver.(*ast.Ident); ok {
			types = append(types, name.Name)
		}
	}
	return types
}

// tooBig says what is larger than a stranger can read at one time.
func tooBig(all []parsed) (found []string) {
	files, fields, methods := map[string]int{}, map[string]int{}, map[string]bool{}
	for _, p := range all {
		if p.lines > maxLines {
			found = append(found, fmt.Sprintf("%s has %d lines, more than %d", p.path, p.lines, maxLines))
		}
		if strings.HasSuffix(p.path, "_test.go") {
			continue
		}
		dir := filepath.Dir(p.path)
		files[dir]++
		for name, n := range structs(p.file) {
			fields[dir+"."+name] = n
		}
		for _, name := range withMethods(p.file) {
			methods[dir+"."+name] = true
		}
	}
	for dir, n := range files {
		if n > maxFiles {
			found = append(found, fmt.Sprintf("%s has %d files, more than %d", dir, n, maxFiles))
		}
	}
	for name := range methods {
		if n := fields[name]; n > maxFields && !slices.Contains(records, name) {
			found = append(found, fmt.Sprintf("%s has %d fields, more than %d", name, n, maxFields))
		}
	}
	return found
}

// records have a field for each thing that is sent or written, of which there are more.
var records = []string{
	"../supervisor/fleetfile.Worker", // each key of a worker
	"../supervisor/gate.Orders",      // each key of orders
	"../sdnotify.Environment",        // each variable
	"../sdnotify.Message",            // each assignment
}

func TestNothingIsTooBig(t *testing.T) {
	all := parseAll(t)
	if len(all) < 200 {
		t.Fatalf("%d files only", len(all))
	}
	for _, found := range tooBig(all) {
		t.Error(found)
	}
}

// timersIn are the rooms in which something has a time of its own: their goroutines wait
// for others than the loop. Anywhere else a deadline is a field, which a test can move.
var timersIn = []string{
	"supervisor/bridge", "supervisor/control", "supervisor/metrics", "supervisor/output",
	"supervisor/internal/accept", // of those
	"supervisor/procs",           // a glance at /proc, which must not last
	"cmd/internal/reach",         // a command that waits for systemd tells how it goes
	"cmd/prefork", "cmd/prefork-view", "sdnotify", "packaging/bench", "packaging/bench/peer", "packaging/systemdtest",
}

// timers are what package time has that waits.
var timers = []string{"AfterFunc", "NewTimer", "NewTicker", "Sleep", "After", "Tick"}

func TestDeadlinesAreFields(t *testing.T) {
	for _, p := range parseAll(t) {
		dir := strings.TrimPrefix(filepath.Dir(p.path), "../")
		if strings.HasSuffix(p.path, "_test.go") || forTests(dir) || slices.Contains(timersIn, dir) {
			continue
		}
		for name := range uses(p.file, "time") {
			if slices.Contains(timers, name) {
				t.Errorf("%s uses time.%s: a deadline is a field that the loop knows, never a timer", p.path, name)
			}
		}
	}
}

// pureMayUse is what the core needs of package time: types and constants.
var pureMayUse = []string{"Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"}

func TestTheCoreReadsNoClock(t *testing.T) {
	for _, p := range parseAll(t) {
		if !slices.Contains(pure, strings.TrimPrefix(filepath.Dir(p.path), "../")) || strings.HasSuffix(p.path, "_test.go") {
			continue
		}
		for name := range uses(p.file, "time") {
			if !slices.Contains(pureMayUse, name) {
				t.Errorf("%s uses time.%s: the core is told the time, so that a transcript repeats", p.path, name)
			}
		}
	}
}

// uses are the names of a package that a file uses.
func uses(file *ast.File, pkg string) map[string]bool {
	found := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == pkg {
				found[s.Sel.Name] = true
			}
		}
		return true
	})
	return found
}

// What the bounds are for is found by them.
func TestWhatIsTooBigIsFound(t *testing.T) {
	parse := func(text string) parsed {
		file, err := parser.ParseFile(token.NewFileSet(), "x.go", text, 0)
		if err != nil {
			t.Fatal(err)
		}
		return parsed{"../x/x.go", strings.Count(text, "\n"), file}
	}
	fields := "type T struct {\n\ta, b, c, d, e, f, g, h int\n\tU\n\ti, j, k, l, m, n, o int\n}\n"
	for want, all := range map[string][]parsed{
		"has 403 lines": {parse("package x\n" + strings.Repeat("\n", 402))},
		"has 16 fields": {parse("package x\n" + fields + "func (t *T) x() {}\n")},
		"has 21 files":  slices.Repeat([]parsed{parse("package x\n")}, 21),
	} {
		if found := tooBig(all); len(found) != 1 || !strings.Contains(found[0], want) {
			t.Errorf("got %q, want %q", found, want)
		}
	}
	if found := tooBig([]parsed{parse("package x\n" + fields)}); found != nil {
		t.Errorf("a struct without methods: got %q", found)
	}
	if got := slices.Collect(maps.Keys(uses(parse("package x\nvar x = time.Now()\n").file, "time"))); !slices.Equal(got, []string{"Now"}) {
		t.Errorf("of package time: got %q", got)
	}
}
