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

	"github.com/BurntSushi/toml"

	"github.com/decnet/prefork/supervisor/internal/linux"
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
	return "", Errors{{cause: fs.ErrNotExist, Text: fmt.Sprintf("fleet %s: there is no %s in %s; %s",
		arg, arg+suffix, oneOf(Dirs), insteadOf(arg))}}
}

// insteadOf says what may have been meant by a name that no fleet has.
func insteadOf(name string) string {
	if info, err := os.Stat(name + suffix); err == nil && info.Mode().IsRegular() {
		return "did you mean ./" + name + suffix + "?"
	}
	found, _ := Find(Dirs) // what cannot be read has no names
	var names []string
	for _, f := range found {
		if f.Err == nil && !f.Masked {
			names = append(names, f.Name)
		}
	}
	if near := Nearest(name, names); near != "" {
		return "did you mean " + near + "?"
	}
	return "prefork init writes one to begin with"
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

const maxFile = 1 << 20

// Load reads and checks the fleet file, for a host. Its errors are of type [Errors]. It
// blocks while the file is read.
func Load(path string, host Host) (*File, error) {
	data, err := read(path)
	if err != nil {
		return nil, Errors{err}
	}
	return Parse(NameOf(path), path, data, host)
}

// NameOf is the name that a path gives its fleet, which may not be a valid one.
func NameOf(path string) string { return strings.TrimSuffix(filepath.Base(path), suffix) }

// StartOf returns what the fleet file has as start, even if other keys are wrong
// or if the TOML is broken further down: such a fleet is to fail when it is
// started, and that must be wired up. It is [StartManual] for a file that cannot
// be read or whose start is wrong. It blocks while the file is read.
func StartOf(path string) Start {
	data, err := read(path)
	if err != nil {
		return StartManual
	}
	return startOf(path, data)
}

func startOf(path string, data []byte) Start {
	l := newLoader(path, data)
	root, ok := l.decode()
	if !ok {
		root = l.above("start", l.errs[0].Line)
	}
	d := &fleetDraft{File: &File{Start: StartManual}}
	if v, ok := root["start"]; ok {
		f := topTable.field("start")
		f.set(&cell{loader: l, path: "start", key: &f.Key, v: v}, d)
	}
	return d.Start
}

// above decodes one key of the top level whose value stands in one line, above
// the line where the text is broken: up to there the index can be trusted. If
// the key stands in that line too, it is what is broken: it may be a repetition.
func (l *loader) above(name string, broken int) (root map[string]any) {
	found := ""
	for _, e := range scan(l.src).entries {
		switch {
		case e.path != name || e.line > broken:
			continue
		case e.line == broken || e.value == 0:
			return nil
		}
		value, _, _ := strings.Cut(l.src[e.value:], "\n")
		found = name + " = " + strings.TrimSuffix(value, "\r")
	}
	if _, err := toml.Decode(found, &root); err != nil {
		return nil
	}
	return root
}

// read returns the file, or the rule that it breaks.
func read(path string) ([]byte, *Error) {
	data, err := linux.ReadRegular(path, maxFile)
	other := (*linux.Irregular)(nil)
	switch {
	case errors.As(err, &other):
		return nil, irregular(path, other.Mode)
	case errors.Is(err, linux.ErrTooLong):
		return nil, &Error{File: path, Text: "a fleet file must be at most 1 MiB long; make several fleets"}
	case err != nil:
		return nil, unreadable(path, err)
	}
	return data, nil
}

// PlaceOf is FILE:LINE of a key in a fleet file that has been loaded, for an error that is
// found later: FILE alone if the file has changed so that it cannot be told. It blocks while
// the file is read.
func PlaceOf(path, key string) string {
	data, err := read(path)
	if err != nil {
		return path
	}
	if line := scan(strings.TrimPrefix(string(data), "\ufeff")).line(key); line > 0 {
		return fmt.Sprintf("%s:%d", path, line)
	}
	return path
}

func irregular(path string, mode fs.FileMode) *Error {
	what := "a pipe, socket or device"
	if mode.IsDir() {
		what = "a directory"
	}
	return &Error{File: path, Text: "must be a regular file, not " + what + "; name the fleet file"}
}

func unreadable(path string, err error) *Error {
	e := &Error{File: path, cause: err}
	cause := err
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		cause = pe.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Text = "there is no such file; prefork init writes one to begin with"
	case errors.Is(err, fs.ErrPermission):
		e.Text = fmt.Sprintf("cannot be read: %v; let the user that runs prefork read it", cause)
	default:
		e.Text = fmt.Sprintf("cannot be read: %v; check the path and the disk", cause)
	}
	return e
}
