// SPDX-License-Identifier: AGPL-3.0-or-later

package envfile

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// The values are what systemd 252 makes of these lines.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		text    string
		want    []string
		ignored []int
	}{
		{"", nil, nil},
		{"A=b", []string{"A=b"}, nil},
		{"A=b\nC=d\r\nE=f\rG=h\n", []string{"A=b", "C=d", "E=f", "G=h"}, nil},
		{" \t A \t= \tb c \t\n", []string{"A=b c"}, nil},
		{"A=\nB= \nC=''\nD=\"\"", []string{"A=", "B=", "C=", "D="}, nil},
		{"# A=b\n;C=d\n \t#E=f\nG=h # no comment", []string{"G=h # no comment"}, nil},
		{"#one\\\nA=b", []string{"A=b"}, nil},
		{"A=b=c==", []string{"A=b=c=="}, nil},
		{"A=one \\\n two\nB=x\\\ny", []string{"A=one  two", "B=xy"}, nil},
		{`A=a\ \b\\c\"d\` + "\\", []string{`A=a b\c"d\`}, nil},
		{"A=b\\ \n", []string{"A=b "}, nil},
		{"A=b \\", []string{"A=b "}, nil},
		{`A='single "quoted" \n $x'`, []string{`A=single "quoted" \n $x`}, nil},
		{"A='two\nlines'\nB=c", []string{"A=two\nlines", "B=c"}, nil},
		{`A="double 'quoted' \" \\ \$ \` + "`" + ` \n \x"`, []string{`A=double 'quoted' " \ $ ` + "`" + ` \n \x`}, nil},
		{"A=\"joined \\\nline\nnext\"", []string{"A=joined line\nnext"}, nil},
		{`A="x  y" z `, []string{"A=x  yz"}, nil},
		{`A='a' "b" 'c'` + "\nB=d", []string{"A=abc", "B=d"}, nil},
		{`A=a'b'"c"`, []string{`A=a'b'"c"`}, nil},
		{`A="a"b'c'`, []string{`A=ab'c'`}, nil},
		{"A='open\nB=c", []string{"A=open\nB=c"}, nil},
		{"A=\"open\nB=c", []string{"A=open\nB=c"}, nil},
		{"A=\"open\\", []string{"A=open"}, nil},
		{"A=$HOME %h ~", []string{"A=$HOME %h ~"}, nil},
		{"A=1\nA=2", []string{"A=1", "A=2"}, nil},
		{"A=ä😀", []string{"A=ä😀"}, nil},
		{"_a1=b", []string{"_a1=b"}, nil},
		{"export A=b\n1A=b\nA-B=c\n=d\n'A'=b\nÄ=b\nC=d", []string{"C=d"}, []int{1, 2, 3, 4, 5, 6}},
		{"\nnothing\n\nA=b\nB", []string{"A=b"}, []int{2, 5}},
		{"='x\nA=b", []string{"A=b"}, []int{1}},
		{"A B='x\ny'\nC", nil, []int{1, 3}},
	} {
		env, ignored := parse(c.text)
		if !slices.Equal(env, c.want) || !slices.Equal(ignored, c.ignored) {
			t.Errorf("%q: got %q and ignored lines %v, want %q and %v", c.text, env, ignored, c.want, c.ignored)
		}
	}
}

// FuzzParse: every variable is one that an environment can hold, and
// any value comes back from between quotes.
func FuzzParse(f *testing.F) {
	f.Add("A=b\n# c\nB='x' \"y\" z\\\n w\r\nexport C=d")
	f.Add("A=\"\\\\\\\n\\x\"\\")
	f.Fuzz(func(t *testing.T, text string) {
		env, ignored := parse(text)
		for _, kv := range env {
			if name, _, ok := strings.Cut(kv, "="); !ok || !isVariable(name) {
				t.Errorf("%q: %q is no variable", text, kv)
			}
		}
		if !slices.IsSorted(ignored) || len(ignored) > 0 && (ignored[0] < 1 || ignored[len(ignored)-1] > 1+strings.Count(text, "\n")) {
			t.Errorf("%q: ignored lines %v", text, ignored)
		}
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text)
		env, ignored = parse("B=1\nA=\"" + quoted + "\"\nC=2")
		if want := []string{"B=1", "A=" + text, "C=2"}; !slices.Equal(env, want) || ignored != nil {
			t.Errorf("%q in quotes: got %q and ignored lines %v", text, env, ignored)
		}
	})
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, two := write("one", "A=1\nB=1\n"), write("two", "SECRET value\nB=2\n")
	before := testutil.OpenFDs()
	env, ignored, err := Read([]File{
		{Path: one}, {Path: filepath.Join(dir, "none"), Optional: true}, {Path: two},
	})
	if want := []string{"A=1", "B=1", "B=2"}; !slices.Equal(env, want) || err != nil {
		t.Errorf("got %q and %v, want %q", env, err, want)
	}
	if want := []string{two + ":1: not NAME=VALUE; ignored"}; !slices.Equal(ignored, want) {
		t.Errorf("ignored: got %q, want %q", ignored, want)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"missing":   filepath.Join(dir, "none"),
		"a folder":  dir,
		"a FIFO":    fifo,
		"too large": write("large", strings.Repeat("#", maxSize+1)),
		"a NUL":     write("nul", "A=\x00"),
		"no UTF-8":  write("latin", "A=\xe9"),
	} {
		_, _, err := Read([]File{{Path: path, Optional: name != "missing"}})
		if err == nil || !strings.HasPrefix(err.Error(), "environment_file: ") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, _, err := Read([]File{{Path: write("full", strings.Repeat("#", maxSize))}}); err != nil {
		t.Errorf("as large as may be: %v", err)
	}
	if _, err := os.Stat(fifo); err != nil || before != testutil.OpenFDs() {
		t.Errorf("open descriptors: got %s, want %s (%v)", testutil.OpenFDs(), before, err)
	}
}
