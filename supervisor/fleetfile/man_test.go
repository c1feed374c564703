// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile_test

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/decnet/prefork/packaging/man"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

var update = flag.Bool("update", false, "write prefork.toml.5 anew")

// prefork.toml(5) explains each key in the words of the file that prefork init
// writes, and says of its values what the schema does.
func TestManPage(t *testing.T) {
	explained := explanations(t)
	parts := map[string]string{"EXAMPLE": man.Display(readmeExample(t))}
	for _, table := range fleetfile.Schema() {
		parts[partName(table.Header)] = describe(t, table, explained)
	}
	parts["DEFAULTS"] = man.Text(explained.of("[defaults]"))
	man.Check(t, "../../packaging/man", "prefork.toml.5", parts, *update)
}

// partName is what stands for a table in the template.
func partName(header string) string {
	if strings.Contains(header, ".tasks.") {
		return "TASK"
	}
	name, _, _ := strings.Cut(strings.Trim(header, "[]"), ".")
	return strings.ToUpper(cmp.Or(name, "fleet"))
}

// group are keys that are explained together, or a table: it has no keys.
type group struct {
	header string // as in the schema
	text   string
	keys   []string
	remark map[string]string // what stands behind a key
}

type groups []group

// of is the text of a table.
func (gs groups) of(header string) string {
	for _, g := range gs {
		if g.header == header && g.keys == nil {
			return g.text
		}
	}
	return ""
}

// explanations reads the template: a comment explains the keys, or the table, in
// the lines below it. Keys below no comment are only examples.
func explanations(t *testing.T) (all groups) {
	t.Helper()
	header := ""
	g := group{remark: map[string]string{}}
	end := func() {
		if g.text != "" && g.keys != nil {
			all = append(all, g)
		}
		g = group{header: header, remark: map[string]string{}}
	}
	key := regexp.MustCompile(`^#?([a-z_]+) = .*?(?: {2,}# (.*))?$`)
	table := regexp.MustCompile(`^#?\[([a-z]+)(\.[a-z]+)?(\.tasks\.[a-z]+)?\]$`)
	more := regexp.MustCompile(`^ +# (.*)$`)
	for line := range strings.SplitSeq(fleetfile.Template(), "\n") {
		m, last := key.FindStringSubmatch(line), len(g.keys)-1
		switch {
		case line == "":
			end()
		case m != nil:
			g.keys = append(g.keys, m[1])
			g.remark[m[1]] = m[2]
		case table.MatchString(line):
			m := table.FindStringSubmatch(line)
			switch {
			case m[3] != "":
				header = "[" + m[1] + ".NAME.tasks.NAME]"
			case m[2] != "":
				header = "[" + m[1] + ".NAME]"
			default:
				header = "[" + m[1] + "]"
			}
			if g.text != "" {
				all = append(all, group{header: header, text: g.text})
			}
			g.text = ""
			end()
		case more.MatchString(line) && last >= 0:
			g.remark[g.keys[last]] += " " + more.FindStringSubmatch(line)[1]
		case line == "#" || strings.HasPrefix(line, "# ") && last < 0:
			g.text = strings.TrimSpace(g.text + " " + strings.TrimPrefix(line, "#"))
		default:
			t.Fatalf("init.toml: what is this? %s", line)
		}
	}
	end()
	return all
}

// describe writes the keys of a table, each of which is explained once.
func describe(t *testing.T, table fleetfile.Table, explained groups) string {
	t.Helper()
	keys := map[string]fleetfile.Key{}
	for _, k := range table.Keys {
		keys[k.Name] = k
	}
	var b strings.Builder
	b.WriteString(man.Text(explained.of(table.Header)))
	for _, g := range explained {
		if g.header != table.Header || g.keys == nil {
			continue
		}
		remarks := g.remark[g.keys[0]] != ""
		b.WriteString(".Pp\n")
		if remarks {
			b.WriteString(man.Text(g.text) + ".Pp\n.Bl -tag -width limit_sigpending -offset 2n -compact\n")
		} else {
			b.WriteString(".Bl -tag -width Ds -compact\n")
		}
		for _, name := range g.keys {
			k, ok := keys[name]
			if !ok {
				t.Errorf("init.toml explains the key %s of %q twice, or there is none", name, table.Header)
			}
			delete(keys, name)
			if remarks {
				fmt.Fprintf(&b, ".It Ic %s\n%s", man.Arg(name), man.Text(sentence(g.remark[name])))
			} else {
				fmt.Fprintf(&b, ".It Ic %s Pq %s\n", man.Arg(name), man.Arg(values(k)))
			}
		}
		if !remarks {
			b.WriteString(man.Text(g.text))
		}
		b.WriteString(".El\n")
	}
	for name, k := range keys {
		header := "[" + name + "]"
		if k.Kind == fleetfile.KindTable && (explained.of(header) != "" || explained.of("["+name+".NAME]") != "") {
			continue
		}
		t.Errorf("init.toml does not explain the key %s of %q", name, table.Header)
	}
	return b.String()
}

// values says what a key can have.
func values(k fleetfile.Key) string {
	text := k.Rule
	if k.Default != "" {
		text += "; default " + k.Default
	}
	if k.Only != "" {
		text += "; " + k.Only
	}
	return text
}

func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }

// readmeExample is the fleet file of the README, which must be a good one.
func readmeExample(t *testing.T) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "\n```toml\n")
	example, _, ok := strings.Cut(rest, "\n```\n")
	if _, err := parse(example); err != nil || !ok {
		t.Fatalf("the example of the README: %v", err)
	}
	return example
}
