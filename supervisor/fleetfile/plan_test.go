// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/policy"
)

// TestWhatAChangeOfEachKeyCosts changes one key of the file after the other, and compares
// what has to be done with testdata/plans.txt, which -update writes anew.
func TestWhatAChangeOfEachKeyCosts(t *testing.T) {
	const golden = "testdata/plans.txt"
	var b strings.Builder
	b.WriteString("# What is to be done when one key of a fleet file changes: make it anew with -update.\n")
	eachKey(t, func(t *testing.T, header string, k fleetfile.Key) {
		if k.Class == 0 && k.Kind != fleetfile.KindTable {
			t.Errorf("%s.%s: no class", header, k.Name)
		}
		without, _, _ := fileWith(header, k.Name, "")
		with, _, _ := fileWith(header, k.Name, k.Name+" = "+k.Example)
		entry := ""
		if header == "[floor]" {
			entry = "[worker.e]\nentry = \"a:b\"\n"
		}
		old, err := parse(without + entry)
		next, also := parse(with + entry)
		if err != nil || also != nil {
			return // the key is needed, or needs others
		}
		plan := policy.Difference(old.Config(nil, nil), next.Config(nil, nil))
		fmt.Fprintf(&b, "%-45s %s\n", strings.TrimPrefix(header+" "+k.Name, " "), planText(&plan))
		if plan.Empty() && k.Kind != fleetfile.KindTable {
			t.Errorf("%s.%s: a change of it is not seen", header, k.Name)
		}
		if same := policy.Difference(next.Config(nil, nil), next.Config(nil, nil)); !same.Empty() {
			t.Errorf("%s.%s: %s though nothing has changed", header, k.Name, planText(&same))
		}
	})
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != b.String() {
		t.Errorf("%v; got\n%s\nwant\n%s", err, b.String(), want)
	}
}

func planText(p *policy.Plan) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if len(p.Keys) > 0 {
		add("the fleet %v", p.Keys)
	}
	if len(p.Waits) > 0 {
		add("at the next start %v", p.Waits)
	}
	for _, part := range append([]policy.PartPlan{p.Floor}, p.Sockets...) {
		if part.Step != policy.Keep {
			add("%s %s %v", part.Step, part.Name, part.Keys)
		}
	}
	for _, w := range p.Workers {
		if w.Step != policy.Keep {
			add("%s %s %v", w.Step, w.Name, w.Keys)
		}
		if w.From != w.To {
			add("resize %s from %d to %d", w.Name, w.From, w.To)
		}
	}
	return strings.Join(parts, ", ")
}

// The content of an environment file is what is compared, not its name alone.
func TestContentOfFilesIsCompared(t *testing.T) {
	f := mustParse(t, "[worker.a]\nexec = [\"a\"]\nenvironment_file = \"/etc/a\"\n[worker.b]\nexec = [\"b\"]")
	was, is := f.Config(map[string]uint64{"a": 1}, nil), f.Config(map[string]uint64{"a": 2}, nil)
	plan := policy.Difference(was, is)
	if got, want := planText(&plan), "roll a [environment_file]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
