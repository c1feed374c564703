// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// harmless makes a line of a worker, without its end, fit for the operator's
// terminal. Colours pass, and end with the line. Everything else that a terminal
// would act on is shown instead: control characters as their pictures, what is no
// UTF-8, or turns the direction of text, as U+FFFD. So no worker can move the cursor,
// set the title or the clipboard, or write over the name in front of its line.
func harmless(line []byte) []byte {
	line = bytes.TrimSuffix(line, []byte{'\r'}) // of CR LF
	if plain(line) {
		return line
	}
	var b strings.Builder
	coloured := false
	for len(line) > 0 {
		if n := colourSequence(line); n > 0 {
			b.Write(line[:n])
			line, coloured = line[n:], true
			continue
		}
		r, n := utf8.DecodeRune(line)
		b.WriteRune(shown(r))
		line = line[n:]
	}
	if coloured {
		b.WriteString("\x1b[0m")
	}
	return []byte(b.String())
}

func plain(line []byte) bool {
	for _, c := range line {
		if c < ' ' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}

// shown is what a character is shown as.
func shown(r rune) rune {
	const pictures, delete = '\u2400', '\u2421'
	switch {
	case r == '\t':
		return r
	case r < ' ':
		return pictures + r
	case r == 0x7f:
		return delete
	case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029': // C1, directions, ends of lines
		return utf8.RuneError
	default:
		return r
	}
}

// rows cuts a harmless line into pieces that each take at most so many columns of a
// terminal; 0 is no limit. A colour ends with its row.
func rows(line []byte, columns int) [][]byte {
	var found [][]byte
	taken, begin, coloured := 0, 0, false
	for at := 0; at < len(line); {
		if n := colourSequence(line[at:]); n > 0 {
			at, coloured = at+n, true
			continue
		}
		r, n := utf8.DecodeRune(line[at:])
		if taken += cells(r); columns > 0 && taken > columns && at > begin {
			row := line[begin:at:at]
			if coloured {
				row = append(row, "\x1b[0m"...)
			}
			found = append(found, row)
			taken, begin, coloured = cells(r), at, false
		}
		at += n
	}
	return append(found, line[begin:])
}

// cells is how many columns a character takes at most. How wide what is no letter is,
// and what is written in the east of Asia, terminals do not agree upon.
func cells(r rune) int {
	const eastern = 0x1100
	switch {
	case r == '\t':
		return 8
	case r < utf8.RuneSelf, r < eastern && unicode.IsLetter(r):
		return 1
	default:
		return 2
	}
}

// colourSequence is the length of the sequence that a line begins with, if it sets
// colours and the like (SGR of ECMA-48: "ESC [", numbers, "m"), else 0.
func colourSequence(line []byte) int {
	const most = 64
	if !bytes.HasPrefix(line, []byte("\x1b[")) {
		return 0
	}
	for i := 2; i < len(line) && i < most; i++ {
		switch c := line[i]; {
		case c == 'm':
			return i + 1
		case (c < '0' || c > '9') && c != ';' && c != ':':
			return 0
		}
	}
	return 0
}
