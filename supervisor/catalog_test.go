// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/revisions"
	"github.com/decnet/prefork/supervisor/slots"
	"github.com/decnet/prefork/supervisor/slots/slotstest"
	"github.com/decnet/prefork/supervisor/sockets"
)

// kinds lists the constants of type fleet.Kind.
func kinds(t *testing.T) map[fleet.Kind]bool {
	t.Helper()
	file, err := parser.ParseFile(gotoken.NewFileSet(), "fleet/action.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[fleet.Kind]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "Kind" {
			found[fleet.Kind(strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`))] = true
		}
		return true
	})
	return found
}

// setFields are the fields that an entry about a slot can have.
func setFields() map[string]bool {
	file := &fleetfile.File{Name: "f", Workers: []fleetfile.Worker{{Name: "w", Count: 1}}}
	m := &master{revisions: revisions.New(file, &sockets.Sockets{}), slots: slots.New(slotstest.Revision(file), slotstest.Infos(file), nil, nil, nil, poll.Source{}, poll.Source{})}
	m.slots.Named("w.0").Assign(&procs.Process{Invocation: "1"})
	set := map[string]bool{}
	for _, f := range m.entryOf(fleet.Report{
		Kind: fleet.KindSlotRestarts, Slot: "w.0", Task: "t", PID: 1, Generation: 1, Code: fleet.Code{File: "a.py", Line: 1, Func: "f"},
		End: fleet.End{Result: policy.ExitCode, Exit: policy.Exit{Code: 1}, Failures: 1, Delay: time.Second, Usage: fleet.Usage{MemoryPeak: 1, CPU: 1}},
	}) {
		set[f.Name] = true
	}
	return set
}

// The catalog explains each kind of event, and names only fields that there are.
func TestCatalog(t *testing.T) {
	text, err := os.ReadFile("../packaging/prefork.catalog")
	if err != nil {
		t.Fatal(err)
	}
	known, fields := kinds(t), setFields()
	if len(known) != len(messageIDs) || len(known) < 15 {
		t.Errorf("%d kinds and %d ids", len(known), len(messageIDs))
	}
	byID := map[string]fleet.Kind{}
	for kind, id := range messageIDs {
		if !known[kind] || byID[id] != "" || !regexp.MustCompile("^[0-9a-f]{32}$").MatchString(id) {
			t.Errorf("%s has id %s", kind, id)
		}
		byID[id] = kind
	}
	_, rest, _ := strings.Cut(string(text), "\n-- ")
	for _, entry := range strings.Split(rest, "\n-- ") {
		id, body, _ := strings.Cut(entry, "\n")
		kind := byID[id]
		delete(byID, id)
		head, paragraphs, _ := strings.Cut(body, "\n\n")
		if kind == "" || !strings.Contains(head, "Subject: ") || !strings.Contains(head, "Defined-By: prefork") ||
			len(strings.Split(strings.TrimSpace(paragraphs), "\n\n")) != 3 {
			t.Errorf("the entry of %q (%s) is not complete", kind, id)
		}
		for _, name := range regexp.MustCompile(`@([A-Z_]+)@`).FindAllStringSubmatch(entry, -1) {
			if !fields[name[1]] {
				t.Errorf("%s names the field %s, which no entry has", kind, name[1])
			}
		}
		for line := range strings.Lines(entry) {
			if len(line) > 80 {
				t.Errorf("%s has a long line: %s", kind, line)
			}
		}
	}
	if len(byID) > 0 {
		t.Errorf("the catalog has no entry for %v", byID)
	}
}

// prefork@.service(8) names each field, each kind of event and each exit status of
// a worker that could not start.
func TestServicePage(t *testing.T) {
	text, err := os.ReadFile("../packaging/man/prefork@.service.8")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(text), `\-`, "-")
	var names []string
	for name := range setFields() {
		names = append(names, name)
	}
	for kind := range kinds(t) {
		names = append(names, "It "+string(kind))
	}
	orders, err := os.ReadFile("gate/orders.go")
	if err != nil {
		t.Fatal(err)
	}
	statuses := regexp.MustCompile(`(?m)^\tExit\w+ += (\d+)$`).FindAllStringSubmatch(string(orders), -1)
	if len(statuses) < 10 {
		t.Errorf("the statuses are %q", statuses)
	}
	for _, status := range statuses {
		names = append(names, "It "+status[1])
	}
	for _, name := range names {
		if !regexp.MustCompile(name + `\b`).MatchString(page) {
			t.Errorf("the page does not have %s", name)
		}
	}
}
