// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWorkerCannotSteerTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext":                            "plain\ttext",
		"grün ✓":                                 "grün ✓",
		"a\r":                                    "a",
		"\rprefork | forged":                     "␍prefork | forged",
		"\x1b[31mred\x1b[0m":                     "\x1b[31mred\x1b[0m\x1b[0m",
		"\x1b[38:2:1:2:3mopen":                   "\x1b[38:2:1:2:3mopen\x1b[0m",
		"\x1b[2K\x1b[1A":                         "␛[2K␛[1A",
		"\x1b]52;c;aGk=\a":                       "␛]52;c;aGk=␇",
		"\x1bPq\x1b\\":                           "␛Pq␛\\",
		"\x1b[31":                                "␛[31",
		"\x1b[?1049m":                            "␛[?1049m",
		"\u009b2J":                               "\ufffd2J",
		"\x9b2J":                                 "\ufffd2J",
		"a\bb\x7f\x00":                           "a␈b␡␀",
		"\u202eabc\u2066\u2028":                  "\ufffdabc\ufffd\ufffd",
		"\x1b[" + strings.Repeat("1;", 99) + "m": "␛[" + strings.Repeat("1;", 99) + "m",
	} {
		if got := string(harmless([]byte(in))); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzHarmless: whatever a worker writes, what comes out is valid, has no control
// character outside of a colour, and leaves no colour behind.
func FuzzHarmless(f *testing.F) {
	for _, seed := range []string{"a", "\x1b[31m", "\x1b]0;t\a", "\xff\x9b", "\u202e", "\x1b[\x1b[1mm"} {
		f.Add([]byte(seed))
	}
	colour := regexp.MustCompile("\x1b\\[[0-9;:]*m")
	f.Fuzz(func(t *testing.T, in []byte) {
		out := string(harmless(in))
		rest := colour.ReplaceAllString(out, "")
		if !utf8.ValidString(out) || strings.ContainsFunc(rest, func(r rune) bool { return r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) }) {
			t.Errorf("%q: got %q", in, out)
		}
		if rest != out && !strings.HasSuffix(out, "\x1b[0m") {
			t.Errorf("%q: the colour stays: %q", in, out)
		}
	})
}
