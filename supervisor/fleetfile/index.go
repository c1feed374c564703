// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep tables, arrays and dotted keys may be nested. The
// decoder is recursive: without a limit a file of brackets would end the
// process by stack overflow.
const maxDepth = 64

// index says where the keys of a TOML text stand. A key is named by its path,
// as errors print it: worker.web.args[2].
type index struct {
	entries []entry        // in the order of the text
	first   map[string]int // path to its first entry
	deep    int            // line of a nesting beyond maxDepth; 0: none
}

type entry struct {
	path  string
	line  int // from 1
	value int // offset of the value; 0: a table header or a part of a dotted key
}

// line returns the line of the key, or of the nearest table or list that it is
// in, or 0.
func (x *index) line(path string) int {
	for path != "" {
		if i, ok := x.first[path]; ok {
			return x.entries[i].line
		}
		// A cut inside a quoted name finds nothing and is cut again.
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return 0
}

// order returns the place of the key in the text, for sorting.
func (x *index) order(path string) int { return x.first[path] }

// join appends a key to a path.
func join(path, name string) string {
	if path == "" {
		return keyText(name)
	}
	return path + "." + keyText(name)
}

// elem appends the position in a list to a path.
func elem(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// keyText is a key as TOML wants it: bare if possible, else quoted.
func keyText(name string) string {
	if name != "" && strings.Trim(name, bareKey) == "" {
		return name
	}
	return quote(name)
}

const bareKey = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

// place is a path in two spellings: with the positions in lists, and without,
// as the decoder lists keys.
type place struct{ full, plain string }

func (p place) join(name string) place { return place{join(p.full, name), join(p.plain, name)} }
func (p place) elem(i int) place       { return place{elem(p.full, i), p.plain} }

// scanner walks over TOML text without judging it. It is in step with the
// decoder up to the first syntax error, and ends on any input.
type scanner struct {
	src    string
	pos    int
	at     int // offset up to which line has been counted
	line   int
	lists  map[string]int // arrays of tables: number of elements
	x      *index
	nested int
}

// scan makes the index of src.
func scan(src string) *index {
	s := &scanner{src: src, line: 1, lists: map[string]int{}, x: &index{first: map[string]int{}}}
	var table place
	for s.blank(); s.pos < len(s.src) && s.x.deep == 0; s.blank() {
		if s.src[s.pos] == '[' {
			table = s.header()
		} else {
			s.pair(table)
		}
		s.restOfLine()
	}
	return s.x
}

// lineAt counts lines up to an offset; offsets never go back.
func (s *scanner) lineAt(offset int) int {
	s.line += strings.Count(s.src[s.at:offset], "\n")
	s.at = offset
	return s.line
}

func (s *scanner) add(p place, line, value int) {
	for _, path := range []string{p.full, p.plain} {
		if _, ok := s.x.first[path]; !ok {
			s.x.first[path] = len(s.x.entries)
		}
	}
	s.x.entries = append(s.x.entries, entry{p.full, line, value})
}

// enter counts a nesting and reports whether it is still allowed.
func (s *scanner) enter(levels int) bool {
	s.nested += levels
	if s.nested > maxDepth && s.x.deep == 0 {
		s.x.deep = s.lineAt(s.pos)
	}
	return s.x.deep == 0
}

// header reads [a.b] or [[a.b]] and returns the table it opens.
func (s *scanner) header() place {
	line := s.lineAt(s.pos)
	s.pos++
	list := s.accept('[')
	parts := s.key()
	var p place
	for i, part := range parts {
		p = p.join(part)
		last := i == len(parts)-1
		if n, ok := s.lists[p.full]; ok && !last {
			p = p.elem(n - 1)
		} else if !last && s.unknown(p) {
			s.add(p, line, 0)
		}
	}
	if len(parts) == 0 {
		return p
	}
	s.add(p, line, 0)
	if list {
		s.lists[p.full]++
		p = p.elem(s.lists[p.full] - 1)
		s.add(p, line, 0)
	}
	if s.accept(']') && list {
		s.accept(']')
	}
	return p
}

func (s *scanner) unknown(p place) bool {
	_, ok := s.x.first[p.full]
	return !ok
}

// pair reads key = value in a table.
func (s *scanner) pair(p place) {
	line := s.lineAt(s.pos)
	parts := s.key()
	if len(parts) == 0 || !s.accept('=') {
		return
	}
	for i, part := range parts {
		p = p.join(part)
		if i < len(parts)-1 && s.unknown(p) {
			s.add(p, line, 0)
		}
	}
	s.space()
	s.add(p, line, s.pos)
	if s.enter(len(parts)) {
		s.value(p)
	}
	s.nested -= len(parts)
}

// key reads the parts of a dotted key. It stops where the key ends or is wrong.
func (s *scanner) key() (parts []string) {
	for len(parts) <= maxDepth {
		s.space()
		start := s.pos
		switch s.peek() {
		case '"', '\'':
			parts = append(parts, s.quoted())
		default:
			for strings.IndexByte(bareKey, s.peek()) >= 0 {
				s.pos++
			}
			if s.pos == start {
				return parts
			}
			parts = append(parts, s.src[start:s.pos])
		}
		s.space()
		if !s.accept('.') {
			return parts
		}
	}
	s.enter(len(parts))
	return parts
}

func (s *scanner) value(p place) {
	switch s.peek() {
	case '"', '\'':
		s.skipString()
	case '[':
		s.items(p, ']')
	case '{':
		s.items(p, '}')
	default:
		n := strings.IndexAny(s.src[s.pos:], ",]}#\n")
		if n < 0 {
			n = len(s.src) - s.pos
		}
		s.pos += n
	}
}

// items reads an array or an inline table up to its closing bracket.
func (s *scanner) items(p place, closing byte) {
	if !s.enter(1) {
		return
	}
	s.pos++
	for i := 0; ; i++ {
		s.blank()
		if s.pos == len(s.src) || s.accept(closing) || s.x.deep > 0 {
			break
		}
		start := s.pos
		if closing == '}' {
			s.pair(p)
		} else {
			s.add(p.elem(i), s.lineAt(s.pos), s.pos)
			s.value(p.elem(i))
		}
		s.blank()
		if !s.accept(',') && s.pos == start {
			s.pos++ // not TOML: the decoder reports it
		}
	}
	s.nested--
}

// quoted reads a key in quotes and returns what it spells.
func (s *scanner) quoted() string {
	start := s.pos
	s.skipString()
	text := s.src[start:s.pos]
	if len(text) < 2 {
		return ""
	}
	text, raw := text[1:len(text)-1], text[0] == '\''
	if raw {
		return text
	}
	return unescape(text)
}

// skipString moves behind a string of any of the four kinds.
func (s *scanner) skipString() {
	q := s.src[s.pos : s.pos+1]
	long := strings.HasPrefix(s.src[s.pos:], q+q+q)
	s.pos++
	if long {
		s.pos += 2
	}
	for s.pos < len(s.src) {
		switch c := s.src[s.pos]; {
		case c == '\\' && q == `"`:
			s.pos = min(s.pos+2, len(s.src))
		case c == '\n' && !long:
			return
		case c == q[0]:
			run := len(s.src[s.pos:]) - len(strings.TrimLeft(s.src[s.pos:], q))
			if !long {
				s.pos++
				return
			}
			// A long string may end in up to two quotes of its own, so the
			// last three of the run close it.
			s.pos += run
			if run >= 3 {
				return
			}
		default:
			s.pos++
		}
	}
}

func (s *scanner) peek() byte {
	if s.pos == len(s.src) {
		return '\n'
	}
	return s.src[s.pos]
}

func (s *scanner) accept(c byte) bool {
	if s.pos == len(s.src) || s.src[s.pos] != c {
		return false
	}
	s.pos++
	return true
}

func (s *scanner) space() {
	for s.peek() == ' ' || s.peek() == '\t' {
		s.pos++
	}
}

// blank skips space, line ends and comments.
func (s *scanner) blank() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		case '#':
			s.restOfLine()
		default:
			return
		}
	}
}

func (s *scanner) restOfLine() {
	n := strings.IndexByte(s.src[s.pos:], '\n')
	if n < 0 {
		n = len(s.src) - s.pos
	}
	s.pos += n
}

// unescape resolves the escapes of a basic string. A wrong one stays as it is:
// the decoder refuses it.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		b.WriteString(before)
		if !found || after == "" {
			return b.String()
		}
		if i := strings.IndexByte("btnfre\"\\", after[0]); i >= 0 {
			b.WriteByte("\b\t\n\f\r\x1b\"\\"[i])
			s = after[1:]
			continue
		}
		s = after
		if n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[after[0]]; n > 0 && len(after) > n {
			if r, err := strconv.ParseUint(after[1:1+n], 16, 31); err == nil && utf8.ValidRune(rune(r)) {
				b.WriteRune(rune(r))
				s = after[1+n:]
			}
		}
	}
}

// value returns the offset of the key's value in the text.
func (x *index) value(path string) int {
	if i, ok := x.first[path]; ok {
		return x.entries[i].value
	}
	return 0
}
