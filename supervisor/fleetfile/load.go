// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// Dir is where the fleet files of named fleets are.
	Dir = "/etc/prefork"

	suffix  = ".toml"
	maxFile = 1 << 20
)

// Resolve turns a FLEET argument into the path of a fleet file: a path is what
// contains a slash or ends in .toml, all else is the name of a fleet in [Dir].
func Resolve(arg string) (path string, err error) {
	switch {
	case strings.Contains(arg, "/"), strings.HasSuffix(arg, suffix):
		return arg, nil
	case isName(arg):
		return filepath.Join(Dir, arg+suffix), nil
	}
	return "", fmt.Errorf("fleet %q: a name %s; to name a file write ./FILE", arg, nameRule)
}

// Load reads and checks the fleet file. Its errors are of type [Errors]. It
// blocks while the file is read.
func Load(path string) (*Fleet, error) {
	data, err := read(path)
	if err != nil {
		return nil, Errors{err}
	}
	return Parse(strings.TrimSuffix(filepath.Base(path), suffix), path, data)
}

// read returns the file, or the rule that it breaks.
func read(path string) ([]byte, *Error) {
	// To open a device or a pipe may do something: look first.
	info, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, irregular(path, info)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		return nil, irregular(path, info)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	if len(data) > maxFile {
		return nil, &Error{File: path, Text: "a fleet file must be at most 1 MiB long; make several fleets"}
	}
	return data, nil
}

func irregular(path string, info fs.FileInfo) *Error {
	what := "a pipe, socket or device"
	if info.IsDir() {
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
