// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadRegular(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadRegular(path, 4); err != nil || string(data) != "1234" {
		t.Errorf("got %q, %v", data, err)
	}
	if _, err := ReadRegular(path, 3); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: got %v", err)
	}
	if _, err := ReadRegular(filepath.Join(dir, "none"), 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
	pipe := filepath.Join(dir, "pipe") // to open it would block
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{pipe, dir, "/dev/null"} {
		if _, err := ReadRegular(other, 3); !errors.As(err, new(*Irregular)) {
			t.Errorf("%s: got %v", other, err)
		}
	}
}
