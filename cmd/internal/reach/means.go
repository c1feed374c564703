// SPDX-License-Identifier: AGPL-3.0-or-later

package reach

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/rundir"
)

// Means is the FLEET that a command is about. A path is what it is. A name is that of a unit
// that runs; else it is the path of its file among those of [fleetfile.Dirs], if this user
// runs that; without such a file, the path of the one file of that name from which this user
// runs a fleet. Else it stays the name. The error of a name that several have lists their
// paths.
func Means(fleet string) (string, error) {
	if fleetfile.IsPath(fleet) {
		return fleet, nil
	}
	if _, err := lookAt(rundir.ControlOfUnit(fleet)); err == nil || !isAbsent(err) {
		return fleet, nil
	}
	if path, err := fleetfile.Resolve(fleet); err == nil {
		own, _ := rundir.ControlsOfFile(path) // without a place there is none
		for _, at := range own {
			if _, err := lookAt(at); err == nil || !isAbsent(err) {
				return path, nil
			}
		}
		return fleet, nil
	}
	m, err := named(fleet)
	if m == nil || err != nil {
		return fleet, err
	}
	m.Close()
	return m.Status.File, nil
}

// TheOne is the FLEET of the only one that runs, as far as this user may look at them.
func TheOne(command string) (string, error) {
	var runs []string
	for _, at := range rundir.Controls() {
		if f, err := lookAt(at); err == nil {
			name := f.Name
			if _, fromFile := rundir.NameOf(at); fromFile {
				name = f.File
			}
			runs = append(runs, name)
		}
	}
	switch len(runs) {
	case 0:
		return "", exit.Failed("no fleet runs; prefork status lists those that there are")
	case 1:
		return runs[0], nil
	}
	return "", exit.Misused("%s takes one FLEET where several run: %s", command, strings.Join(runs, ", "))
}

// FromFile reports whether the master was started with a file, and not by systemd as a unit.
func (m *Master) FromFile() bool {
	return m.Address.Socket != rundir.ControlOfUnit(m.Status.Name).Socket
}

// named finds the one fleet of a name that this user runs from a file; nil if there is none.
// What keeps the only one from being looked at is an error.
func named(fleet string) (*Master, error) {
	var found []*Master
	var stuck error
	for _, at := range rundir.ControlsOfName(fleet) {
		c, f, err := dial(at)
		switch {
		case err == nil:
			found = append(found, &Master{c, fleet, at, f})
		case !isAbsent(err):
			stuck = Explain(fleet, err)
		}
	}
	switch len(found) {
	case 0:
		return nil, stuck
	case 1:
		return found[0], nil
	}
	var paths []string
	for _, m := range found {
		paths = append(paths, m.Status.File)
		m.Close()
	}
	return nil, exit.Failed("%d fleets run by the name %s: name the file of one: %s", len(paths), fleet, strings.Join(paths, ", "))
}

// connectByName connects to a fleet that has no file by its name, but may run from one.
func connectByName(fleet string, missing error) (*Master, error) {
	m, err := named(fleet)
	if m != nil || err != nil {
		return m, err
	}
	text := missing.Error()
	if near := fleetfile.Nearest(fleet, running()); near != "" && !strings.Contains(text, "did you mean") {
		text = strings.Replace(text, "prefork init writes one to begin with", fmt.Sprintf("did you mean %s, which runs?", near), 1)
	}
	return nil, &notRunning{exit.Failed("no fleet runs by that name, and: %s", text), true}
}

// another tells of a fleet that runs from a file, by a name that means one that does not.
func another(fleet string) string {
	if fleetfile.IsPath(fleet) {
		return ""
	}
	m, err := named(fleet)
	if m == nil || err != nil {
		return ""
	}
	m.Close()
	return fmt.Sprintf("; another one runs by that name: prefork status %s", m.Status.File)
}

// running are the names of the fleets that have a control socket, served or not.
func running() (names []string) {
	for _, at := range rundir.Controls() {
		name, _ := rundir.NameOf(at)
		names = append(names, name)
	}
	return names
}

// typingPatience is how long a master may take to answer while somebody types.
const typingPatience = 500 * time.Millisecond

// Arguments are what FLEET can be: the names of fleets that have a file, and of those that
// this user runs from one; of those whose name is taken, the paths.
func Arguments() []string {
	all := Names()
	var mu sync.Mutex
	var asked sync.WaitGroup
	var files []*control.Status
	for _, at := range rundir.Controls() {
		asked.Go(func() {
			if c, f, err := dialWithin(typingPatience, at); err == nil {
				c.Close()
				if !isPlain(f.Name) || !isPlain(f.File) {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				files = append(files, f)
			}
		})
	}
	asked.Wait()
	count := map[string]int{}
	for _, f := range files {
		count[f.Name]++
	}
	for _, f := range files {
		switch {
		case !slices.Contains(all, f.Name) && count[f.Name] == 1:
			all = append(all, f.Name)
		case f.File != "" && !inDirs(f.File):
			all = append(all, f.File)
		}
	}
	return all
}

// isPlain reports whether a text means the same in a shell. A worker may have taken the place
// of its master, and what it says is to go into a command line.
func isPlain(text string) bool {
	return text != "" && strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-+@") == ""
}

// inDirs reports whether a file is that of a fleet with a name.
func inDirs(path string) bool {
	found, err := fleetfile.Resolve(fleetfile.NameOf(path))
	return err == nil && found == path
}
