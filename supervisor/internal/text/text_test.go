// SPDX-License-Identifier: AGPL-3.0-or-later

package text

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestOneLine(t *testing.T) {
	for _, c := range []struct {
		text string
		max  int
		want string
	}{
		{"plain", 10, "plain"},
		{"  a \t\r\n b\x00", 10, "a b"},
		{"\x1b[31mred", 10, "[31mred"},
		{"a\u0085b\u2028c\u202ed", 10, "a b c d"},
		{"\xff\xfe", 10, "\ufffd"},
		{"äöü", 5, "äö"},
		{"äöü", 1, ""},
		{"ab cd", 3, "ab"},
		{strings.Repeat(" ", 100) + "x", 10, "x"},
	} {
		if got := OneLine(c.text, c.max); got != c.want {
			t.Errorf("%q in %d: got %q, want %q", c.text, c.max, got, c.want)
		}
	}
}

func TestPrintable(t *testing.T) {
	const given, want = "a\x1b]0;title\ab  \xffc\u202e", "a ]0;title b  \ufffdc "
	if got := Printable(given); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzOneLine(f *testing.F) {
	f.Add("\xffäö\x1b ", 3)
	f.Fuzz(func(t *testing.T, given string, max int) {
		max &= 0xff
		got := OneLine(given, max)
		if len(got) > max || !utf8.ValidString(got) || strings.TrimSpace(got) != got ||
			strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is not one line of at most %d bytes", got, max)
		}
	})
}
