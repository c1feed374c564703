// SPDX-License-Identifier: AGPL-3.0-or-later

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotDelegated says that this process may make no control groups.
var ErrNotDelegated = errors.New("no delegated control group")

// leaf is the name of the master's group: that of DelegateSubgroup= in the unit,
// which systemd knows since version 254.
const leaf = "supervisor"

// Tree is the control group of a unit.
type Tree struct {
	fd       int
	path     string // in the file system
	cgroup   string // as /proc/PID/cgroup names it
	leftover []*Group
}

// Open takes the unit's control group and puts this process, which must be alone
// in it, into a leaf. Groups of an earlier master that are empty are removed. The
// error wraps [ErrNotDelegated] if there is nothing to take. The caller owns the
// tree.
func Open() (*Tree, error) {
	own, err := ownGroup("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrNotDelegated, err)
	}
	path, ok := locate(string(mounts), own)
	if !ok {
		return nil, fmt.Errorf("%w: cgroup v2 is not mounted", ErrNotDelegated)
	}
	return openAt(path, own, os.Getpid())
}

// ownGroup reads the entry of the v2 hierarchy (cgroups(7)).
func ownGroup(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrNotDelegated, err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: this machine has cgroup v1 only", ErrNotDelegated)
}

// Of is the control group of any process, by its name in /proc/PID/cgroup, "" if it has
// none that this process can see.
func Of(pid int) string {
	name, err := ownGroup("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil || strings.HasPrefix(name, "/../") { // outside of this one's namespace
		return ""
	}
	return name
}

// Charged is the memory, in bytes, that a group is charged for by that name: of all of its
// processes, and what the kernel keeps for them. An error means that it is not known, as
// where the memory controller is not on.
func Charged(group string) (uint64, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0, err
	}
	path, ok := locate(string(mounts), group)
	if !ok {
		return 0, fmt.Errorf("%w: cgroup v2 is not mounted", ErrNotDelegated)
	}
	text, err := os.ReadFile(filepath.Join(path, "memory.current"))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

// locate finds a group in the mounted file systems (proc_pid_mountinfo(5)).
func locate(mountinfo, group string) (path string, ok bool) {
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		dash := slices.Index(fields, "-")
		if dash < 6 || dash+1 >= len(fields) || fields[dash+1] != "cgroup2" {
			continue
		}
		root, point := unescape(fields[3]), unescape(fields[4])
		if rest, ok := strings.CutPrefix(group, strings.TrimSuffix(root, "/")); ok && (rest == "" || rest[0] == '/') {
			return filepath.Join(point, rest), true
		}
	}
	return "", false
}

// unescape undoes what the kernel does to blanks in paths.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// openAt takes the group at path, or the one above it if systemd has put this
// process into the leaf already.
func openAt(path, group string, pid int) (*Tree, error) {
	inLeaf := filepath.Base(path) == leaf && delegated(filepath.Dir(path))
	if inLeaf {
		path, group = filepath.Dir(path), filepath.Dir(group)
	}
	if !inLeaf && !delegated(path) {
		return nil, fmt.Errorf("%w: the unit has no Delegate=", ErrNotDelegated)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrNotDelegated, &os.PathError{Op: "open", Path: path, Err: err})
	}
	t := &Tree{fd: fd, path: path, cgroup: group}
	if err := t.take(inLeaf, pid); err != nil {
		t.Close()
		return nil, fmt.Errorf("%w: %v", ErrNotDelegated, err)
	}
	return t, nil
}

// delegated reads what systemd (since version 251) marks a delegated group with.
func delegated(path string) bool {
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		var value [2]byte
		if n, err := unix.Getxattr(path, name, value[:]); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

func (t *Tree) take(inLeaf bool, pid int) error {
	if !inLeaf {
		if err := unix.Mkdirat(t.fd, leaf, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "mkdir", Path: filepath.Join(t.path, leaf), Err: err}
		}
		if err := writeAt(t.fd, leaf+"/cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return t.clear()
}

// clear removes what an earlier master has left.
func (t *Tree) clear() error {
	names, err := namesIn(t.fd, maxEntries)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "p-") && !strings.HasPrefix(name, "floor-") {
			continue
		}
		if unix.Unlinkat(t.fd, name, unix.AT_REMOVEDIR) == nil {
			continue
		}
		if g, err := t.open(name); err == nil {
			t.leftover = append(t.leftover, g)
		}
	}
	return nil
}

// Leftover are the groups of an earlier master that something is left in. They
// are the caller's, once.
func (t *Tree) Leftover() []*Group {
	left := t.leftover
	t.leftover = nil
	return left
}

// Close gives the tree back. This process stays in its leaf.
func (t *Tree) Close() {
	for _, g := range t.leftover {
		g.close()
	}
	t.leftover = nil
	if t.fd >= 0 {
		_ = unix.Close(t.fd) // a directory
		t.fd = -1
	}
}

// Available are the controllers that groups in here can have.
func (t *Tree) Available() []string {
	text, err := readAt(t.fd, "cgroup.controllers")
	if err != nil {
		return nil
	}
	return strings.Fields(text)
}

// Enable turns controllers on for all groups in here. One that is on stays so.
func (t *Tree) Enable(names ...string) error {
	text, err := readAt(t.fd, "cgroup.subtree_control")
	if err != nil {
		return err
	}
	on := strings.Fields(text)
	for _, name := range names {
		if slices.Contains(on, name) {
			continue
		}
		if err := writeAt(t.fd, "cgroup.subtree_control", "+"+name); err != nil {
			return fmt.Errorf("the %s controller: %w", name, err)
		}
	}
	return nil
}

// Make makes an empty group, which is the caller's.
func (t *Tree) Make(name string) (*Group, error) {
	if name == "" || strings.ContainsAny(name, "/\n") || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "cgroup.") {
		return nil, fmt.Errorf("%q cannot be the name of a control group", name)
	}
	if err := unix.Mkdirat(t.fd, name, 0o755); err != nil {
		return nil, &os.PathError{Op: "mkdir", Path: filepath.Join(t.path, name), Err: err}
	}
	g, err := t.open(name)
	if err != nil {
		_ = unix.Unlinkat(t.fd, name, unix.AT_REMOVEDIR) // the error that matters is err
		return nil, err
	}
	// What is killed for memory is killed as a whole.
	if err := writeAt(g.fd, "memory.oom.group", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		_ = g.Remove() // the same
		return nil, err
	}
	return g, nil
}
