// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrTooLong is for a file that is longer than what is to be read.
var ErrTooLong = errors.New("the file is too long")

// Irregular is a file that is no regular one.
type Irregular struct{ Mode fs.FileMode }

func (*Irregular) Error() string { return "must be a regular file" }

// ReadRegular reads a regular file of at most max bytes. It does not open what may do
// something when it is opened, a device or a pipe, unless its owner puts that there
// meanwhile, and does not block on it even then. An error is [ErrTooLong], an
// [Irregular], or one of package os.
func ReadRegular(path string, max int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &Irregular{info.Mode()}
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // read only
	if info, err = file.Stat(); err == nil && !info.Mode().IsRegular() {
		return nil, &Irregular{info.Mode()}
	}
	data, err := io.ReadAll(io.LimitReader(file, max+1))
	if err == nil && int64(len(data)) > max {
		return nil, ErrTooLong
	}
	return data, err
}
