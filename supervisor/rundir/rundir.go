// SPDX-License-Identifier: AGPL-3.0-or-later

// Package rundir has the directories of fleets and the control sockets in them: systemd's
// RuntimeDirectory= of a unit, else one that is named after the file.
package rundir

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// Dir is the directory of sockets of one fleet. The lock on it keeps a second master of
// the same file away.
type Dir struct {
	Path   string // made by this process, unless systemd did
	Notify string // of the notify sockets of slots; everybody may reach what is in there
	lock   int    // an open descriptor of Path, locked
	made   bool   // by this process, which removes it
	alias  string // a link to it, under the name of a path that leads to the file for now
}

// Open makes the directory, unless RUNTIME_DIRECTORY names it (systemd.exec(5)), and
// locks it for as long as this process lives. Its owner closes it.
func Open(file *fleetfile.File) (*Dir, error) {
	d := &Dir{lock: -1}
	if err := d.open(file); err != nil {
		d.Close()
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	return d, nil
}

// Control is the path of the fleet's control socket.
func (d *Dir) Control() string { return filepath.Join(d.Path, socketName) }

func (d *Dir) open(file *fleetfile.File) (err error) {
	path, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	if path == "" {
		if path, err = makeDir(file); err != nil {
			return err
		}
		d.made = true
	}
	if d.lock, err = take(path, file); err != nil {
		d.made = false // it is another's
		return err
	}
	d.Path = path
	if d.made {
		if err := d.makeAlias(path, file); err != nil {
			return err
		}
	}
	d.Notify = filepath.Join(path, "notify")
	if err := os.Mkdir(d.Notify, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Chmod(d.Notify, 0o755) // workers of other users must reach their sockets
}

// take locks the directory, for as long as the descriptor is open, which is the caller's.
func take(path string, file *fleetfile.File) (lock int, err error) {
	if lock, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	err = unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%s runs already: another master has %s", file.Path, path)
	} else {
		err = os.NewSyscallError("flock", err)
	}
	if err != nil {
		linux.CloseFD(&lock)
	}
	return lock, err
}

// makeAlias has the fleet found by the path with which it was started when a link in that
// path leads elsewhere: to another release, or to a newer ConfigMap.
func (d *Dir) makeAlias(path string, file *fleetfile.File) error {
	alias, err := aliasOf(file.Path)
	if err != nil || alias == "" || alias == path || filepath.Dir(alias) != filepath.Dir(path) {
		return err
	}
	if old := target(alias); old != "" {
		lock, err := take(old, file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err // the fleet runs, of where the link led before
		}
		linux.CloseFD(&lock)
		if err := os.Remove(alias); err != nil {
			return err
		}
	}
	if err := os.Symlink(filepath.Base(path), alias); err != nil {
		return err
	}
	d.alias = alias
	return nil
}

// target is the directory of an alias, "" if it is none.
func target(alias string) string {
	name, err := os.Readlink(alias)
	if err != nil || name != filepath.Base(name) {
		return ""
	}
	return filepath.Join(filepath.Dir(alias), name)
}

// makeDir makes the directory of a fleet that systemd did not start.
func makeDir(file *fleetfile.File) (string, error) {
	path, err := pathOf(file.Path)
	if err != nil {
		return "", err
	}
	if path != "" {
		if err := os.MkdirAll(path, 0o755); err == nil {
			return path, nil
		}
	}
	return os.MkdirTemp("", tempPrefix+file.Name+"-")
}

// tempPrefix begins the name of a directory that is made where there is no place for it.
const tempPrefix = "prefork-"

// tempDirs are those that this user has made, for fleets of a name, or of all with "*".
func tempDirs(name string) (dirs []string) {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), tempPrefix+name+"-*"))
	if err != nil {
		return nil
	}
	for _, dir := range found {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Uid == uint32(os.Geteuid()) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// inTemp is the control socket in such a directory.
func inTemp(dir, fleet string, serves func(name, file string) bool) control.Address {
	return control.Address{Socket: filepath.Join(dir, socketName), Fleet: fleet, Serves: serves}
}

// Served reports whether a process of this network namespace serves a socket, also if its
// file has been removed.
func Served(socket string) bool {
	content, err := os.ReadFile("/proc/self/net/unix")
	return err == nil && strings.Contains(string(content), " "+socket+"\n")
}

// socketName is that of the control socket in a directory.
const socketName = "control"

// unitBase is where systemd makes the directory of a unit's fleet, by its name, and
// root those of fleets that are run from a file.
const unitBase = "/run/prefork"

// ownBase has the directories of fleets that this user runs from a file; "" if
// there is no place for them.
func ownBase() string {
	if os.Geteuid() == 0 {
		return unitBase
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "prefork")
	}
	return ""
}

// pathOf is the directory of a fleet that this user runs from a file; "" if
// there is no place for it.
func pathOf(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, linkErr := filepath.EvalSymlinks(abs); linkErr == nil {
		abs = real // by whatever path and name it is reached, it is the same fleet
	}
	return named(abs)
}

// aliasOf is the directory as the path alone, whose links may come to lead elsewhere,
// names it.
func aliasOf(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return named(abs)
}

// placesOf are the directories in which a fleet can be that this user runs from a file:
// that of the path with which it was started, and that of the file.
func placesOf(path string) (dirs []string, err error) {
	alias, err := aliasOf(path)
	if err != nil {
		return nil, err
	}
	own, err := pathOf(path)
	for _, dir := range []string{target(alias), own} {
		if dir != "" && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs, err
}

// named is the directory that is named after a path; "" if there is no place for it.
func named(abs string) (string, error) {
	base, name := ownBase(), fleetfile.NameOf(abs)
	if base == "" {
		return "", nil
	}
	dir := filepath.Join(base, fmt.Sprintf("%s-%x", name, sha256.Sum256([]byte(abs)))[:len(name)+9])
	if len(dir) > maxPath {
		return "", nil // as if there were no place
	}
	return dir, nil
}

// maxPath leaves room for the shortest path of a notify socket in an address
// (unix(7)).
const maxPath = 107 - len("/notify/s2147483647")

// ControlOfUnit is the control socket of the fleet that systemd runs by this name.
func ControlOfUnit(name string) control.Address {
	return control.Address{
		Socket: filepath.Join(unitBase, name, socketName), Fleet: "fleet " + name,
		Serves: func(served, _ string) bool { return served == name },
	}
}

// ControlsOfFile are the control sockets, of which one can be served, of a fleet that this
// user runs from a file; none if it has none that could be found.
func ControlsOfFile(path string) (all []control.Address, err error) {
	dirs, err := placesOf(path)
	for _, dir := range dirs {
		all = append(all, control.Address{Socket: filepath.Join(dir, socketName), Fleet: path, Serves: ownerOf(dir)})
	}
	for _, dir := range tempDirs(fleetfile.NameOf(path)) {
		all = append(all, inTemp(dir, path, func(_, file string) bool { return sameFile(file, path) }))
	}
	return all, err
}

// sameFile reports whether two paths lead to one file.
func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	other, otherErr := os.Stat(b)
	return err == nil && otherErr == nil && os.SameFile(one, other)
}

// ownerOf returns a function that reports of which fleet, run from a file by this user, a directory is.
func ownerOf(dir string) func(name, file string) bool {
	return func(_, file string) bool {
		dirs, err := placesOf(file)
		return err == nil && slices.Contains(dirs, dir)
	}
}

// Controls are the control sockets that there are, of units and of this user's
// fleets. Who serves one must be whom its directory is named after.
func Controls() []control.Address {
	var all []control.Address
	for _, parent := range slices.Compact([]string{unitBase, ownBase()}) {
		found, err := filepath.Glob(filepath.Join(parent, "*", socketName))
		if parent == "" || err != nil {
			continue
		}
		for _, socket := range found {
			dir := filepath.Dir(socket)
			if target(dir) != "" {
				continue // it is found by its own name, too
			}
			all = append(all, control.Address{
				Socket: socket, Fleet: "fleet " + filepath.Base(dir),
				Serves: func(name, file string) bool {
					return parent == unitBase && name == filepath.Base(dir) || ownerOf(dir)(name, file)
				},
			})
		}
	}
	for _, dir := range tempDirs("*") {
		if _, err := os.Lstat(filepath.Join(dir, socketName)); err == nil {
			name, _ := NameOf(control.Address{Socket: filepath.Join(dir, socketName)})
			all = append(all, inTemp(dir, "fleet "+name, func(served, _ string) bool { return served == name }))
		}
	}
	return all
}

// ControlsOfName are those of [Controls] that a fleet of this name may have which this user
// runs from a file.
func ControlsOfName(name string) (all []control.Address) {
	for _, at := range Controls() {
		if from, ok := NameOf(at); ok && from == name {
			all = append(all, at)
		}
	}
	return all
}

// NameOf is the name of the fleet that a directory of a control socket is for, and whether
// it is one that is run from a file.
func NameOf(at control.Address) (name string, fromFile bool) {
	name = filepath.Base(filepath.Dir(at.Socket))
	if temp, ok := strings.CutPrefix(name, tempPrefix); ok && filepath.Dir(filepath.Dir(at.Socket)) == os.TempDir() {
		return temp[:max(0, strings.LastIndexByte(temp, '-'))], true
	}
	if cut := len(name) - len("-01234567"); cut > 0 && name[cut] == '-' && strings.Trim(name[cut+1:], "0123456789abcdef") == "" {
		return name[:cut], true
	}
	return name, false
}

// Close removes what was made here. The sockets have gone with their slots.
func (d *Dir) Close() {
	if d.Notify != "" {
		_ = os.Remove(d.Notify) // what stands there is not ours
	}
	if d.alias != "" && target(d.alias) == d.Path {
		_ = os.Remove(d.alias) // who starts next makes its own
	}
	if d.made {
		_ = os.Remove(d.Path)
	}
	linux.CloseFD(&d.lock)
}
