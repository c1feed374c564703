// SPDX-License-Identifier: AGPL-3.0-or-later

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// What a worker makes in its group is followed this far.
const (
	maxDepth   = 16
	maxEntries = 4096 // groups in one group, and in all of it
	maxFile    = 1 << 20
)

var errTooMuch = fmt.Errorf("more than %d groups, or deeper than %d", maxEntries, maxDepth)

func writeAt(dir int, name, value string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // each write takes effect at once
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

// readAt reads a file of the kernel's; what is beyond maxFile is cut off.
func readAt(dir int, name string) (string, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // read only
	var text strings.Builder
	buf := make([]byte, 4096)
	for text.Len() < maxFile {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return "", &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			break
		}
		text.Write(buf[:n])
	}
	return text.String(), nil
}

// namesIn lists the groups in one, at most so many.
func namesIn(dir, most int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: ".", Err: err}
	}
	file := os.NewFile(uintptr(fd), "cgroup")
	defer func() { _ = file.Close() }() // read only
	var names []string
	for {
		entries, err := file.ReadDir(256)
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
		if len(names) > most {
			return names[:most], errTooMuch
		}
		if err != nil { // io.EOF, in the end
			return names, nil
		}
	}
}

// walk visits the group and all below it: before with each group's descriptor,
// after, bottom up, with those of all but the first and its parent's.
func (g *Group) walk(before func(dir int) error, after func(parent int, name string)) error {
	seen := 0
	var visit func(dir, depth int) error
	visit = func(dir, depth int) error {
		if before != nil {
			if err := before(dir); err != nil {
				return err
			}
		}
		names, err := namesIn(dir, maxEntries)
		if seen += len(names); err != nil || seen > maxEntries || depth >= maxDepth && len(names) > 0 {
			return errors.Join(err, errTooMuch)
		}
		for _, name := range names {
			fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
			if err != nil {
				continue // it was removed just now, or is closed to us
			}
			err = visit(fd, depth+1)
			_ = unix.Close(fd) // a directory
			if err != nil {
				return err
			}
			if after != nil {
				after(dir, name)
			}
		}
		return nil
	}
	return visit(g.fd, 0)
}
