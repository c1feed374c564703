// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

// StartOfText is StartOf for a text.
func StartOfText(text string) Start { return startOf("x.toml", []byte(text)) }

// ScanLine returns what tells the line of a key, and the line that is nested
// too deep, or 0.
func ScanLine(src string) (line func(parts ...string) int, deep int) {
	x := scan(src)
	return func(parts ...string) int {
		path := ""
		for i, part := range parts {
			if path = join(path, part); i == 0 {
				path = keyText(part)
			}
		}
		if i, ok := x.first[path]; ok {
			return x.entries[i].line
		}
		return 0
	}, x.deep
}

// Foreign are the words of others.
var Foreign = foreign

// Unplaced is a file without the lines of its keys, so that it can be compared.
func Unplaced(f *File) *File {
	if f != nil {
		f.lines = nil
	}
	return f
}
