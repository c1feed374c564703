// SPDX-License-Identifier: AGPL-3.0-or-later

package metrics

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/decnet/prefork/packaging/man"
)

// prefork-metrics(7) has each family: what it is, and the labels that its samples have.
func TestManPage(t *testing.T) {
	labels, values := labelsOf(t)
	var b strings.Builder
	for _, f := range families {
		if f.help == "" {
			t.Errorf("%s says nothing of itself", f.name)
		}
		name := f.name + f.kind.suffix()
		what := string(f.kind)
		if f.unit != "" {
			what += ", " + f.unit
		}
		if own, found := labels[f.name]; !found {
			t.Errorf("%s: the sample of this test has none", f.name)
		} else if len(own) > 0 {
			what += "; by " + strings.Join(own, ", ")
		}
		fmt.Fprintf(&b, ".It Li %s Pq %s\n%s", man.Arg(name), man.Arg(what), man.Text(f.help))
	}
	one := func(label string) string { return man.Text(strings.Join(values[label], ", ") + ".") }
	man.Check(t, "../../packaging/man", "prefork-metrics.7", map[string]string{
		"METRICS": b.String(), "STATE": one("state"), "RESULT": one("result"), "REASON": one("reason"),
	}, *update)

	page, err := os.ReadFile("../../packaging/man/prefork-metrics.7.in")
	if err != nil {
		t.Fatal(err)
	}
	_, described, _ := strings.Cut(string(page), ".Sh LABELS\n")
	for label := range values {
		if !regexp.MustCompile(`(?m)^\.It Li (.* )?` + label + `( ,.*)?$`).MatchString(described) {
			t.Errorf("prefork-metrics.7.in does not say what the label %s is", label)
		}
	}
	for _, name := range regexp.MustCompile(`prefork_\w+`).FindAllString(string(page), -1) {
		if !slices.ContainsFunc(families, func(f family) bool { return f.name+f.kind.suffix() == name }) {
			t.Errorf("prefork-metrics.7.in has an example with %s, which there is not", name)
		}
	}
}

// labelsOf are the labels of each family, and the values of each label, in their order.
func labelsOf(t *testing.T) (labels, values map[string][]string) {
	t.Helper()
	labels, values = map[string][]string{}, map[string][]string{}
	pair := regexp.MustCompile(`(\w+)="([^"]*)"`)
	for i := range families {
		var b bytes.Buffer
		p := newPrinter(&b, OpenMetrics)
		p.family(&families[i], sample())
		if err := p.Flush(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			own := labels[families[i].name]
			for _, m := range pair.FindAllStringSubmatch(line, -1) {
				if own = appendNew(own, m[1]); m[1] != "le" {
					values[m[1]] = appendNew(values[m[1]], m[2])
				} else {
					values["le"] = nil
				}
			}
			labels[families[i].name] = own
		}
	}
	return labels, values
}

func appendNew(all []string, one string) []string {
	if slices.Contains(all, one) {
		return all
	}
	return append(all, one)
}
