// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/decnet/prefork/"

// mayImport says what of ours each room may import; anything else fails. Arrows point
// down only: who is above can be rebuilt without a look at who is below.
var mayImport = map[string]string{
	"sdnotify":                     "",
	"supervisor/internal/linux":    "",
	"supervisor/internal/text":     "",
	"supervisor/internal/accept":   "",
	"supervisor/internal/envfile":  "internal/linux",
	"supervisor/internal/testutil": "",
	"supervisor/verb":              "",
	"supervisor/policy":            "",
	"supervisor/fleet":             "policy verb",
	"supervisor/cgroup":            "internal/linux",
	"supervisor/memory":            "internal/linux internal/text",
	"supervisor/stacks":            "internal/linux internal/text",
	"supervisor/gate":              "internal/linux internal/text",
	"supervisor/zygote":            "gate internal/linux internal/text",
	"supervisor/conformance":       "gate zygote internal/linux internal/text",
	"supervisor/internal/poll":     "internal/linux policy",
	"supervisor/internal/errands":  "internal/linux internal/poll policy",
	"supervisor/quantity":          "policy",
	"supervisor/fleetfile":         "internal/envfile internal/linux policy quantity",
	"supervisor/control":           "internal/accept internal/linux internal/text verb",
	"supervisor/metrics":           "control fleet internal/accept policy",
	"supervisor/rundir":            "control fleetfile internal/linux",
	"supervisor/output":            "sdnotify fleet internal/linux internal/poll internal/text policy",
	"supervisor/manager":           "sdnotify internal/linux output policy",
	"supervisor/procs":             "cgroup fleet internal/linux internal/poll output policy",
	"supervisor/sockets":           "sdnotify fleet fleetfile internal/linux internal/poll internal/text output policy",
	"supervisor/rights":            "cgroup fleetfile",
	"supervisor/revisions":         "fleet fleetfile internal/envfile internal/linux policy rights sockets",
	"supervisor/slots": "sdnotify fleet fleetfile gate internal/errands internal/linux internal/poll internal/text manager output policy " +
		"procs revisions sockets",
	"supervisor/launch": "cgroup fleet fleetfile gate internal/errands internal/envfile internal/linux internal/poll output policy " +
		"procs revisions rights slots zygote",
	"supervisor/examine": "fleetfile gate internal/envfile internal/linux internal/text launch memory policy zygote",
	"supervisor/bridge":  "cgroup control fleet fleetfile internal/linux internal/poll memory metrics output policy revisions verb",
	"supervisor": "sdnotify bridge cgroup control fleet fleetfile launch manager memory output policy procs revisions rights rundir " +
		"slots sockets stacks internal/errands internal/linux internal/poll",
	"units":                    "sdnotify fleetfile",
	"cmd/internal/display":     "control policy",
	"cmd/internal/gauge":       "cmd/internal/display cgroup control memory",
	"cmd/internal/lacks":       "fleetfile",
	"cmd/internal/floorreport": "cmd/internal/display examine",
	"cmd/internal/exit":        "supervisor",
	"cmd/internal/reach":       "cmd/internal/display cmd/internal/exit control fleetfile rights rundir",
	"cmd/prefork": "sdnotify units cmd/internal/display cmd/internal/exit cmd/internal/floorreport cmd/internal/gauge cmd/internal/lacks cmd/internal/reach " +
		"supervisor conformance control examine fleetfile gate memory output policy quantity stacks verb",
	"cmd/prefork-view": "cmd/internal/display control memory policy verb",
}

// bans are imports of others that only some rooms may have, or none.
var bans = []struct {
	path    string
	allowed string // rooms, or "" for none
	reason  string
}{
	{"os/exec", "cmd/prefork cmd/internal/lacks", "a child that is waited for elsewhere takes the loop its status: only the loop waits"},
	{"net", "supervisor/bridge supervisor/control supervisor/internal/accept supervisor/metrics supervisor/sockets", "a net.Listener changes O_NONBLOCK for everybody who holds the socket"},
	{"net/http", "", "its server keeps goroutines and memory for each idle connection, and megabytes of the binary"},
	{"unsafe", "supervisor/gate supervisor/internal/linux", "pointers to the kernel are made in one place"},
	{"plugin", "", "no user code runs in the master"},
}

// pure are the rooms of the core.
var pure = []string{"supervisor/fleet", "supervisor/policy"}

// pureMayImport is what the core needs of the standard library: no clock that can be read,
// no system call, no goroutine.
var pureMayImport = []string{"cmp", "fmt", "maps", "math", "slices", "strings", "time"}

// room is one package without its tests.
type room struct {
	files   []string
	imports map[string]string // path: the file that has it
}

// rooms reads what is imported by whom, below the folder of the module.
func rooms(t *testing.T) map[string]*room {
	t.Helper()
	all := map[string]*room{}
	for _, top := range []string{"supervisor", "sdnotify", "units", "cmd"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			dir := strings.TrimPrefix(filepath.Dir(path), "../")
			if all[dir] == nil {
				all[dir] = &room{imports: map[string]string{}}
			}
			all[dir].files = append(all[dir].files, path)
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, spec := range file.Imports {
				name, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				all[dir].imports[name] = path
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// forTests reports whether a room is imported by tests alone.
func forTests(dir string) bool {
	return strings.HasSuffix(dir, "test") || strings.HasSuffix(dir, "/testutil")
}

// faults are what is wrong with the arrows of a house.
func faults(house map[string]*room) (found []string) {
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for dir, r := range house {
		if forTests(dir) {
			continue
		}
		allowed, known := mayImport[dir]
		if !known {
			add("%s: a room that mayImport does not know: say what it may import", dir)
		}
		for path, file := range r.imports {
			if name, ours := strings.CutPrefix(path, modulePath); ours {
				short := strings.TrimPrefix(name, "supervisor/")
				if forTests(name) || !slices.Contains(strings.Fields(allowed), short) {
					add("%s: %s is not to be imported by %s: arrows point down only", file, name, dir)
				}
				continue
			}
			for _, ban := range bans {
				if path == ban.path && !slices.Contains(strings.Fields(ban.allowed), dir) {
					add("%s: %s: %s", file, path, ban.reason)
				}
			}
			if slices.Contains(pure, dir) && !slices.Contains(pureMayImport, path) {
				add("%s: %s: the core decides without the world, so that a test can play it", file, path)
			}
		}
	}
	return found
}

func TestArrowsPointDown(t *testing.T) {
	house := rooms(t)
	for _, fault := range faults(house) {
		t.Error(fault)
	}
	for dir := range mayImport {
		if house[dir] == nil {
			t.Errorf("%s is no room any more: take it out of mayImport", dir)
		}
	}
}

// What the rules are for is found by them.
func TestArrowsThatPointUpAreFound(t *testing.T) {
	plant := func(dir, path string) map[string]*room {
		return map[string]*room{dir: {imports: map[string]string{path: dir + "/planted.go"}}}
	}
	for want, house := range map[string]map[string]*room{
		"arrows point down only":           plant("supervisor/output", modulePath+"supervisor"),
		"imported by supervisor/fleet":     plant("supervisor/fleet", modulePath+"supervisor/internal/linux"),
		"fleet/planted.go: os: the core":   plant("supervisor/fleet", "os"),
		"policy/planted.go: os: the core":  plant("supervisor/policy", "os"),
		"imported by supervisor/policy":    plant("supervisor/policy", modulePath+"supervisor/fleet"),
		"only the loop waits":              plant("supervisor", "os/exec"),
		"O_NONBLOCK":                       plant("supervisor/output", "net"),
		"a room that mayImport does not":   plant("supervisor/heap", "fmt"),
		"supervisor/internal/testutil is":  plant("supervisor/output", modulePath+"supervisor/internal/testutil"),
		"supervisor/output/outputtest is ": plant("supervisor", modulePath+"supervisor/output/outputtest"),
	} {
		if found := strings.Join(faults(house), "\n"); !strings.Contains(found, want) {
			t.Errorf("got %q, want %q", found, want)
		}
	}
}

// CONTRIBUTING.md names each room, and no other.
func TestTheMapIsTheHouse(t *testing.T) {
	text, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```\n")
	drawing, _, _ := strings.Cut(rest, "```")
	var drawn []string
	for line := range strings.Lines(drawing) {
		name, indented := strings.CutPrefix(line, "   ├─ ")
		if !indented {
			name, indented = strings.CutPrefix(line, "   └─ ")
		}
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		switch {
		case name == "" || name == "│" || name == "packaging":
			continue
		case indented && !strings.HasPrefix(name, "cmd/"):
			name = "supervisor/" + name
		}
		drawn = append(drawn, name)
	}
	var built []string
	for dir := range rooms(t) {
		if !forTests(dir) {
			built = append(built, dir)
		}
	}
	slices.Sort(drawn)
	slices.Sort(built)
	if !slices.Equal(drawn, built) {
		t.Errorf("the map has\n%s\nthe house has\n%s", strings.Join(drawn, "\n"), strings.Join(built, "\n"))
	}
}
