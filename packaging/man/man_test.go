// SPDX-License-Identifier: AGPL-3.0-or-later

package man

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// pages are those of the manual.
func pages(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("*.[1-8]")
	if err != nil || len(found) == 0 {
		t.Fatalf("the pages are %q, %v", found, err)
	}
	return found
}

// mandoc(1) has nothing to say about any page. It also wants the pages that are
// referred to, which this machine need not have.
func TestPagesAreClean(t *testing.T) {
	if _, err := exec.LookPath("mandoc"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("mandoc reads the pages, and with CI=true nothing is skipped")
		}
		t.Skip("mandoc reads the pages, and is not installed")
	}
	for _, page := range pages(t) {
		// The exit status is that of the worst finding; what counts is that there is none.
		out, _ := exec.Command("mandoc", "-Tlint", "-Wstyle", page).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, "referenced manual not found") && !strings.Contains(line, "outdated mandoc.db lacks") {
				t.Error(line)
			}
		}
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"A line\nthat goes on. The next (yes.) Last", "A line that goes on.\nThe next (yes.)\nLast\n"},
		{"One [A]... two.\n\nThree.", "One [A]... two.\n.Pp\nThree.\n"},
		{"See sd_notify(3), or a(b). As in systemd.unit(5).", "See\n.Xr sd_notify 3 ,\nor a(b).\nAs in\n.Xr systemd.unit 5 .\n"},
		{"As stop() does: call f().", "As\n.Fn stop\ndoes: call\n.Fn f .\n"},
		{".Dd is --no macro, 'nor is \\e …", "\\&.Dd is \\-\\-no macro, 'nor is \\ee \\[u2026]\n"},
		{"Such as:\n\n    a 'b'\n      -c", "Such as:\n.Bd -literal -offset 2n\na \\(aqb\\(aq\n  \\-c\n.Ed\n"},
	} {
		if got := Text(c.text); got != c.want {
			t.Errorf("%q: got\n%s\nwant\n%s", c.text, got, c.want)
		}
	}
}

func TestArg(t *testing.T) {
	for text, want := range map[string]string{
		"FLEET": "FLEET", "No": `\&No`, ".": `\&.`, `a "b"`: `"a \(dqb\(dq"`, "--x": `\-\-x`,
	} {
		if got := Arg(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}
