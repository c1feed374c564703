// SPDX-License-Identifier: AGPL-3.0-or-later

package revisions

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/envfile"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/rights"
)

// Draft is a fleet file that has been read, and may be used here.
type Draft struct {
	File        *fleetfile.File
	stamps      map[string]Stamp // of the environment files of workers
	credentials Stamp
}

// Stamp tells environments apart, without keeping them: they may be secret.
type Stamp uint64

// StampOf is that of an environment.
func StampOf(env []string) Stamp {
	h := fnv.New64a()
	for _, variable := range env {
		_, _ = h.Write([]byte(variable + "\x00")) // never fails
	}
	return Stamp(h.Sum64())
}

// Credentials is the stamp of those that systemd has passed to this process
// ($CREDENTIALS_DIRECTORY, systemd.exec(5)). From version 260 on it can renew them when the
// service reloads (RefreshOnReload=).
func Credentials() Stamp {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return 0
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0 // a worker cannot read them either
	}
	var all []string
	for _, e := range entries {
		if text, err := linux.ReadRegular(filepath.Join(dir, e.Name()), maxCredential); err == nil {
			all = append(all, e.Name(), string(text))
		}
	}
	return StampOf(all)
}

// maxCredential is systemd's bound of one, in bytes (systemd.exec(5)).
const maxCredential = 1 << 20

// Read reads the file of a fleet that runs once more, and the environment files that it
// names, and checks what this master may do; managed says that systemd started it. It
// blocks for as long as the file systems do, and is for any goroutine. An error names the
// file, the key and the remedy.
func Read(running *fleetfile.File, managed bool) (*Draft, error) {
	file, err := fleetfile.Load(running.Path, rights.Host())
	if err != nil {
		return nil, err
	}
	if err := rights.Recheck(running, file, managed); err != nil {
		return nil, err
	}
	d := &Draft{File: file, stamps: map[string]Stamp{}, credentials: Credentials()}
	for i := range file.Workers {
		w := &file.Workers[i]
		if len(w.EnvironmentFiles) == 0 {
			continue
		}
		env, _, err := envfile.Read(w.EnvironmentFiles)
		if err != nil {
			return nil, fmt.Errorf("%s: worker.%s.%w", file.Path, w.Name, err)
		}
		d.stamps[w.Name] = StampOf(env)
	}
	return d, nil
}
