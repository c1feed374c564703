// SPDX-License-Identifier: AGPL-3.0-or-later

package reach

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/decnet/prefork/cmd/internal/display"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

// maxLooked bounds how many files are looked at: nobody waits for a status that long.
const maxLooked = 20000

// NewerCode tells of code below floor.path that is newer than the floor that has been
// loaded, "" if there is none that can be seen. The fleet is named as in the command line.
func NewerCode(f *control.Status, fleet string) string {
	if f.FloorTimestamp == 0 {
		return ""
	}
	file, err := fleetfile.Load(f.File, fleetfile.Host{}) // of it, only floor.path is looked at
	if err != nil || file.Floor == nil {
		return ""
	}
	loaded, looked := display.Time(f.FloorTimestamp), 0
	for _, path := range file.Floor.Path {
		if newer := newerIn(path, loaded, &looked); newer != "" {
			return fmt.Sprintf("%s is newer than the floor: prefork restart %s loads it", newer, fleet)
		}
	}
	return ""
}

// newerIn is code in a folder that is newer than some time. The folder may be a link to
// a release, and what is newer may be the link.
func newerIn(dir string, than time.Time, looked *int) (found string) {
	if info, err := os.Lstat(dir); err == nil && info.Mode()&fs.ModeSymlink != 0 && info.ModTime().After(than) {
		return dir
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return ""
	}
	_ = filepath.WalkDir(real, func(path string, d fs.DirEntry, err error) error { // what cannot be read is not known
		if *looked++; *looked > maxLooked || found != "" {
			return fs.SkipAll
		}
		if err != nil || d.IsDir() {
			return nil
		}
		if ext := filepath.Ext(path); ext != ".py" && ext != ".rb" && ext != ".so" {
			return nil
		}
		if info, err := d.Info(); err == nil && info.ModTime().After(than) {
			found = path
		}
		return nil
	})
	return found
}
