// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile_test

import (
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

var positionSeeds = []string{
	"a = 1\nb.c = 2\n[d]\n[e.\"f g\".'h']\ni = { j = 1, k.l = [\n1, # ]\n{ m = 2 }] }\n",
	"a = \"\"\"\n[x]\n\\\"\"\"\"\"\nb = '''\n'''''\nc = 1",
	"[[a]]\nb = 1\n[[a.c]]\nd = 2\n[a.e]\nf = 3\n[[a]]\nb = 1",
	"\"\\u0041\\x42\\e\" = 1\n'' = 2\r\nx = 2020-01-01 10:00:00 # y\nz = \"\\\\\"\n",
	"a = [[[{}], {b = []}]]\nc = { # d\n e = 1,\n f = 2, }\n",
	"\ufeffa = inf\n\tb = \"#\" # \"\n",
	"a = \"\"\"\"\"\"\nb = [\"\"\"\"x\"\"\"\"\"]\n",
	"a.b = 1\na.c.d = 2\n[a.c]\n",
	"a = {}}\n[b", "a = [", "\"", "a.", "[[", "a = {b", "a = \"\\", "= 1\n]]\n,,", "a = [1}]",
}

// Every key that the decoder knows has a line, and the key's name is there.
func FuzzPositions(f *testing.F) {
	for _, s := range positionSeeds {
		f.Add(s)
	}
	f.Add(fleetfile.Template())
	f.Fuzz(func(t *testing.T, src string) {
		src = strings.TrimPrefix(src, "\ufeff") // as Parse does
		line, deep := fleetfile.ScanLine(src)
		if deep > 0 || strings.HasPrefix(src, "\ufeff") { // Parse refuses both
			return
		}
		var root map[string]any
		meta, err := toml.Decode(src, &root)
		if err != nil {
			return
		}
		lines := strings.Split(src, "\n")
		for _, key := range meta.Keys() {
			n := line(key...)
			if n < 1 || n > len(lines) {
				t.Fatalf("%q: line %d of %d", key, n, len(lines))
			}
			last := key[len(key)-1]
			if text := lines[n-1]; !strings.Contains(text, last) && !strings.ContainsRune(text, '\\') {
				t.Errorf("%q: line %d has no such key: %q", key, n, text)
			}
		}
	})
}

func TestPositionOfEachKindOfKey(t *testing.T) {
	src := "a = 1\nb.c = 2\n\n[d]\n[e.\"f g\".'h']\ni = { j = 1, k.l = [\n1, # ]\n{ m = 2 }] }\n" +
		"n = \"\"\"\n[x]\nn = 1\n\\\"\"\"\"\"\n\"\\u0041\" = 1\n[[q]]\nr = 1\n[[q]]\ns = 1\n"
	line, deep := fleetfile.ScanLine(src)
	for _, row := range []struct {
		line int
		key  []string
	}{
		{1, []string{"a"}},
		{2, []string{"b"}},
		{2, []string{"b", "c"}},
		{4, []string{"d"}},
		{5, []string{"e", "f g", "h"}},
		{6, []string{"e", "f g", "h", "i", "k", "l"}},
		{8, []string{"e", "f g", "h", "i", "k", "l", "m"}},
		{9, []string{"e", "f g", "h", "n"}},
		{13, []string{"e", "f g", "h", "A"}},
		{14, []string{"q"}},
		{15, []string{"q", "r"}},
		{17, []string{"q", "s"}},
		{0, []string{"x"}},
	} {
		if got := line(row.key...); got != row.line {
			t.Errorf("%q: got line %d, want %d", row.key, got, row.line)
		}
	}
	if deep != 0 {
		t.Errorf("nested too deep in line %d", deep)
	}
}

// A deep nesting would overflow the stack of the decoder.
func TestDeepNestingIsRefused(t *testing.T) {
	for _, src := range []string{
		"\na = " + strings.Repeat("[", 1<<19),
		"\n" + strings.Repeat("a.", 1<<19) + "a = 1",
		"\n[" + strings.Repeat("a.", 1<<19) + "a]",
		"\na = " + strings.Repeat("{a=", 1<<18),
		"\na = " + strings.Repeat("[{a.a.a=", 1<<17),
	} {
		_, err := fleetfile.Parse("x", "x.toml", []byte(src), fleetfile.Host{})
		want := "x.toml:2: tables, lists and dotted keys can be nested at most 64 deep; write it flatter"
		if err == nil || err.Error() != want {
			t.Errorf("%.20q: got %v, want %s", src, err, want)
		}
	}
}
