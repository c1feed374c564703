// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const suffix = ".toml"

// Dirs are the directories of the fleets that have a name. As with unit files,
// see systemd.unit(5), the first that has NAME.toml wins, and an empty file or a
// link to /dev/null masks those in the directories after it.
var Dirs = []string{"/etc/prefork", "/run/prefork", "/usr/lib/prefork"}

// Resolve turns a FLEET argument into the path of a fleet file: a path is what
// contains a slash or ends in .toml, all else is the name of a fleet in [Dirs].
// If there is no such fleet, or if it is masked, the error is of type [Errors],
// as those of [Load]; any other is about the argument.
func Resolve(arg string) (path string, err error) {
	switch {
	case IsPath(arg):
		return arg, nil
	case !isName(arg):
		return "", fmt.Errorf("fleet %q: a name %s; to name a file write ./FILE", arg, nameRule)
	}
	for _, dir := range Dirs {
		path = filepath.Join(dir, arg+suffix)
		switch exists, masked := look(path); {
		case masked:
			return "", Errors{{Text: fmt.Sprintf("fleet %s is masked by %s; write a fleet into that file, or remove it", arg, path)}}
		case exists:
			return path, nil
		}
	}
	return "", Errors{{cause: fs.ErrNotExist, Text: fmt.Sprintf("fleet %s: there is no %s in %s; prefork init writes one to begin with",
		arg, arg+suffix, oneOf(Dirs))}}
}

// IsPath reports whether a FLEET argument is the path of a fleet file.
func IsPath(arg string) bool {
	return strings.Contains(arg, "/") || strings.HasSuffix(arg, suffix)
}

// Found is a file in a directory of fleets, with the name that it gives one.
type Found struct {
	Name   string
	Path   string
	Masked bool  // it says that there is no such fleet
	Err    error // the name cannot be that of a fleet
}

// Find lists the NAME.toml of all directories, sorted by name. Of those with the
// same name only that of the first directory is listed. A directory that does
// not exist is like an empty one; if another cannot be read, the list is that of
// the rest. It blocks while it reads the directories.
func Find(dirs []string) ([]Found, error) {
	var list []Found
	var errs []error
	seen := map[string]bool{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			name, ok := strings.CutSuffix(e.Name(), suffix)
			// Hidden files are those of editors.
			if !ok || seen[name] || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			seen[name] = true
			f := Found{Name: name, Path: filepath.Join(dir, e.Name())}
			_, f.Masked = look(f.Path)
			if !isName(name) {
				f.Err = misnamed(f.Path, name)
			}
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b Found) int { return cmp.Compare(a.Name, b.Name) })
	return list, errors.Join(errs...)
}

// look says whether there is such a file and whether it masks. What cannot be
// looked at is there: reading it will say what is wrong.
func look(path string) (exists, masked bool) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return false, false
	}
	info, err := os.Stat(path)
	if err != nil {
		return true, false
	}
	null, err := os.Stat(os.DevNull)
	return true, info.Mode().IsRegular() && info.Size() == 0 || err == nil && os.SameFile(info, null)
}

func misnamed(path, name string) *Error {
	return &Error{File: path, Text: fmt.Sprintf("the name of a fleet %s, not %s; rename the file", nameRule, quote(shorten(name)))}
}

// oneOf joins words as in "a, b or c".
func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
