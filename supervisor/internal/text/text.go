// SPDX-License-Identifier: AGPL-3.0-or-later

// Package text makes text that somebody else wrote fit to be shown: in a log, in a
// status line, in a terminal.
package text

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable replaces each character that is not printable by a space, and what is not
// UTF-8 by U+FFFD.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, string(utf8.RuneError)))
}

// OneLine returns printable text without spaces at its ends or twice in a row, cut to
// at most that many bytes.
func OneLine(text string, max int) string {
	text = strings.Join(strings.Fields(Printable(text)), " ")
	return strings.TrimSpace(Cut(text, max))
}

// Cut shortens valid UTF-8 to at most that many bytes, but not within a character.
func Cut(text string, max int) string {
	if len(text) <= max {
		return text
	}
	for max > 0 && !utf8.RuneStart(text[max]) {
		max--
	}
	return text[:max]
}

// PrintableLines is Printable for a text of several lines, which it keeps.
func PrintableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = Printable(lines[i])
	}
	return strings.Join(lines, "\n")
}
