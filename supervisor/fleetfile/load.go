// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/decnet/prefork/supervisor/internal/linux"
)

const maxFile = 1 << 20

// Load reads and checks the fleet file. Its errors are of type [Errors]. It
// blocks while the file is read.
func Load(path string) (*File, error) {
	data, err := read(path)
	if err != nil {
		return nil, Errors{err}
	}
	return Parse(NameOf(path), path, data)
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
