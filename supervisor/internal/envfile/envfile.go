// SPDX-License-Identifier: AGPL-3.0-or-later

// Package envfile reads files of environment variables by the rules of systemd's
// EnvironmentFile= (systemd.exec(5)).
package envfile

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf8"

	"github.com/decnet/prefork/supervisor/internal/linux"
)

// File is one entry of environment_file=.
type File struct {
	Path     string
	Optional bool // written with a leading "-": a missing file is no error
}

// maxSize bounds what is read with the master's rights and kept in
// its memory.
const maxSize = 1 << 20

// Read returns the variables of the files as NAME=VALUE, in order, and which lines mean
// nothing ("PATH:LINE: why"); what they hold may be secret and is not told. It blocks for
// as long as the file systems do. An error names the file and its key.
func Read(files []File) (env, ignored []string, err error) {
	for _, file := range files {
		text, err := read(file.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && file.Optional:
			continue
		case err != nil:
			return nil, nil, fmt.Errorf("environment_file: %v", err)
		case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
			return nil, nil, fmt.Errorf("environment_file: %s: must be UTF-8 text without NUL bytes", file.Path)
		}
		vars, lines := parse(text)
		env = append(env, vars...)
		for _, line := range lines {
			ignored = append(ignored, fmt.Sprintf("%s:%d: not NAME=VALUE; ignored", file.Path, line))
		}
	}
	return env, ignored, nil
}

// read returns the text of one file.
func read(path string) (string, error) {
	text, err := linux.ReadRegular(path, maxSize)
	switch {
	case errors.Is(err, linux.ErrTooLong):
		return "", fmt.Errorf("%s: must have at most %d bytes", path, maxSize)
	case errors.As(err, new(*linux.Irregular)):
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return string(text), err
}

const (
	blank   = " \t"
	newline = "\n\r"
)

// parse reads NAME=VALUE lines; ignored are the numbers of the lines that systemd, too,
// ignores.
//
// A line that begins with "#" or ";" is a comment. A value may begin with quoted
// parts, which may have several lines; in double quotes a backslash keeps a
// special character and joins lines. What follows is plain up to the end of the
// line, without blanks at the end; in it a backslash keeps any character and
// joins lines.
func parse(text string) (env []string, ignored []int) {
	for rest := text; ; {
		if rest = strings.TrimLeft(rest, blank+newline); rest == "" {
			return env, ignored
		}
		line := 1 + strings.Count(text[:len(text)-len(rest)], "\n")
		if rest[0] == '#' || rest[0] == ';' {
			_, rest = cutAny(rest, newline)
			continue
		}
		end := strings.IndexAny(rest[1:], newline+"=") + 1 // a name has at least one character
		if end == 0 || rest[end] != '=' {
			_, rest = cutAny(rest, newline)
			ignored = append(ignored, line)
			continue
		}
		name, value := strings.TrimRight(rest[:end], blank), ""
		value, rest = cutValue(rest[end+1:])
		if isVariable(name) {
			env = append(env, name+"="+value)
		} else {
			ignored = append(ignored, line)
		}
	}
}

// cutAny cuts text around the first of these characters.
func cutAny(text, characters string) (before, after string) {
	if i := strings.IndexAny(text, characters); i >= 0 {
		return text[:i], text[i+1:]
	}
	return text, ""
}

// cutValue reads a value up to the end of its last line.
func cutValue(rest string) (value, after string) {
	var b strings.Builder
	for {
		rest = strings.TrimLeft(rest, blank)
		switch {
		case strings.HasPrefix(rest, "'"):
			quoted, more, _ := strings.Cut(rest[1:], "'")
			b.WriteString(quoted)
			rest = more
		case strings.HasPrefix(rest, `"`):
			rest = cutDoubleQuoted(&b, rest[1:])
		default:
			plain, more := cutPlain(rest)
			return b.String() + plain, more
		}
	}
}

// cutDoubleQuoted reads up to the closing quote.
func cutDoubleQuoted(b *strings.Builder, rest string) (after string) {
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i] == '"':
			return rest[i+1:]
		case rest[i] != '\\' || i+1 == len(rest):
			if rest[i] != '\\' {
				b.WriteByte(rest[i])
			}
		case strings.IndexByte("\"\\`$", rest[i+1]) >= 0:
			i++
			b.WriteByte(rest[i])
		case rest[i+1] == '\n':
			i++
		default:
			b.WriteByte('\\')
		}
	}
	return ""
}

// cutPlain reads up to the end of the line.
func cutPlain(rest string) (value, after string) {
	var b []byte
	end := 0 // of what is not blanks at the end
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		switch {
		case strings.IndexByte(newline, c) >= 0:
			return string(b[:end]), rest[i+1:]
		case c == '\\':
			if i++; i < len(rest) && strings.IndexByte(newline, rest[i]) < 0 {
				b = append(b, rest[i])
			}
			end = len(b)
		default:
			b = append(b, c)
			if strings.IndexByte(blank, c) < 0 {
				end = len(b)
			}
		}
	}
	return string(b[:end]), ""
}

// isVariable reports whether an environment can have a variable of that name.
func isVariable(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}
