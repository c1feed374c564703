// SPDX-License-Identifier: AGPL-3.0-or-later

package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
)

// Group is one control group and all below it.
type Group struct {
	name   string
	parent int // the tree's descriptor
	path   string
	cgroup string // as /proc/PID/cgroup names it

	fd, procs, events int
	limited           []string // files that have been written
}

func (t *Tree) open(name string) (*Group, error) {
	g := &Group{
		name: name, parent: t.fd, path: filepath.Join(t.path, name), cgroup: filepath.Join(t.cgroup, name),
		fd: -1, procs: -1, events: -1,
	}
	for _, f := range []struct {
		to    *int
		dir   *int
		name  string
		flags int
	}{
		{&g.fd, &g.parent, name, unix.O_RDONLY | unix.O_DIRECTORY},
		{&g.procs, &g.fd, "cgroup.procs", unix.O_WRONLY},
		{&g.events, &g.fd, "cgroup.events", unix.O_RDONLY},
	} {
		fd, err := unix.Openat(*f.dir, f.name, f.flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			g.close()
			return nil, &os.PathError{Op: "open", Path: filepath.Join(g.path, f.name), Err: err}
		}
		*f.to = fd
	}
	return g, nil
}

func (g *Group) close() {
	for _, fd := range []*int{&g.fd, &g.procs, &g.events} {
		if *fd >= 0 {
			_ = unix.Close(*fd) // nothing was written that could be lost
			*fd = -1
		}
	}
}

// Name is the name of the group in its tree.
func (g *Group) Name() string { return g.name }

// ControlGroup is how /proc/PID/cgroup of a process in the group names it.
func (g *Group) ControlGroup() string { return g.cgroup }

// Freeze keeps every process in the group and below it from running, or lets them
// run again (cgroup.freeze, since Linux 5.2). It does not wait until they have
// stopped. A frozen process still ends from SIGKILL.
func (g *Group) Freeze(frozen bool) error {
	value := "0"
	if frozen {
		value = "1"
	}
	return writeAt(g.fd, "cgroup.freeze", value)
}

// FD is for CLONE_INTO_CGROUP (clone(2)). It stays the group's.
func (g *Group) FD() int { return g.fd }

// Procs is cgroup.procs, open for writing: who writes "0" to it enters the group,
// with the rights of this process (cgroups(7)). It stays the group's.
func (g *Group) Procs() int { return g.procs }

// Watch is cgroup.events, for poll(2): POLLPRI tells that it has changed since
// it was read, which [Group.Populated] does. It stays the group's.
func (g *Group) Watch() int { return g.events }

// Limits are what a group may use. 0 is no limit of its own; of the first three
// all ones are no limit either.
type Limits struct {
	MemoryHigh, MemoryMax uint64 // bytes
	TasksMax              uint64
	CPUWeight, IOWeight   int           // 1 to 10000
	CPUQuota              time.Duration // processor time per second
}

// cpuPeriod is over how long a quota holds: the kernel's default.
const cpuPeriod = 100 * time.Millisecond

// setting is a file that a limit is written to, and what.
type setting struct{ file, value string }

func (l Limits) settings() (all []setting) {
	count := func(file string, n uint64) {
		switch n {
		case 0:
		case math.MaxUint64:
			all = append(all, setting{file, "max"})
		default:
			all = append(all, setting{file, strconv.FormatUint(n, 10)})
		}
	}
	count("memory.high", l.MemoryHigh)
	count("memory.max", l.MemoryMax)
	count("pids.max", l.TasksMax)
	count("cpu.weight", uint64(l.CPUWeight))
	count("io.weight", uint64(l.IOWeight))
	if l.CPUQuota > 0 {
		// The kernel refuses a quota below a millisecond per period.
		period := max(cpuPeriod, time.Duration(float64(time.Millisecond)*float64(time.Second)/float64(l.CPUQuota)))
		period = min(period, time.Second)
		quota := max(time.Duration(float64(l.CPUQuota)*period.Seconds()), time.Millisecond)
		all = append(all, setting{"cpu.max", fmt.Sprintf("%d %d", quota.Microseconds(), period.Microseconds())})
	}
	return all
}

// Controllers are those that the limits need.
func (l Limits) Controllers() []string {
	var names []string
	for _, s := range l.settings() {
		if name, _, _ := strings.Cut(s.file, "."); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// unlimited is what a file says where there is no limit (the kernel's cgroup-v2 document).
func unlimited(file string) string {
	if strings.HasSuffix(file, ".weight") {
		return "100"
	}
	return "max"
}

// Limit sets limits, and takes back those that it has set before and that are not among
// them. The error names the one that could not be set.
func (g *Group) Limit(l Limits) error {
	settings := l.settings()
	for _, file := range g.limited {
		if !slices.ContainsFunc(settings, func(s setting) bool { return s.file == file }) {
			settings = append(settings, setting{file, unlimited(file)})
		}
	}
	for _, s := range settings {
		err := writeAt(g.fd, s.file, s.value)
		if errors.Is(err, os.ErrNotExist) {
			controller, _, _ := strings.Cut(s.file, ".")
			return fmt.Errorf("cgroup: %s: the %s controller is not on", s.file, controller)
		}
		if err != nil {
			return fmt.Errorf("cgroup: %s to %s: %w", s.value, s.file, err)
		}
		if !slices.Contains(g.limited, s.file) {
			g.limited = append(g.limited, s.file)
		}
	}
	return nil
}

// Mark writes on the group whose it is, for those who look at the tree
// (getfattr -n user.prefork.slot).
func (g *Group) Mark(slot string) error {
	err := unix.Fsetxattr(g.fd, "user.prefork.slot", []byte(slot), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return os.NewSyscallError("setxattr", err)
}

// Populated reports whether a process lives in the group or below it.
func (g *Group) Populated() (bool, error) {
	var buf [256]byte
	n, err := unix.Pread(g.events, buf[:], 0)
	if err != nil {
		return false, os.NewSyscallError("read cgroup.events", err)
	}
	return strings.Contains(string(buf[:n]), "populated 1"), nil
}

// Processes are the pids in the group and below it, as far as there are not too
// many.
func (g *Group) Processes() ([]int, error) {
	var pids []int
	err := g.walk(func(dir int) error {
		text, err := readAt(dir, "cgroup.procs")
		for _, field := range strings.Fields(text) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return err
	}, nil)
	return pids, err
}

// Contains reports whether a process is in the group or below it.
func (g *Group) Contains(pid int) bool {
	path, err := ownGroup("/proc/" + strconv.Itoa(pid) + "/cgroup")
	return err == nil && (path == g.cgroup || strings.HasPrefix(path, g.cgroup+"/"))
}

// maxSignalled is how many processes of a group are signalled one by one: that
// takes some 30 us for each, and the caller waits.
const maxSignalled = 1024

// Signal sends a signal to every process in the group and below it, but not to one
// of them. If there are more than maxSignalled, or if more come meanwhile, the
// others get nothing; [Group.Kill] finds them all.
func (g *Group) Signal(sig unix.Signal, but int) error {
	pids, err := g.Processes()
	if errors.Is(err, errTooMuch) {
		err = nil // those that were found
	}
	for _, pid := range pids[:min(len(pids), maxSignalled)] {
		if pid != but {
			err = errors.Join(err, g.signalOne(pid, sig))
		}
	}
	return err
}

// signalOne makes sure that a pid is not another process's by now.
func (g *Group) signalOne(pid int, sig unix.Signal) error {
	pidfd, err := linux.PidfdOpen(pid)
	if errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(pidfd) }() // it was only to be signalled
	if !g.Contains(pid) {
		return nil
	}
	if err := linux.PidfdSendSignal(pidfd, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("pid %d: %w", pid, err)
	}
	return nil
}

// Kill sends SIGKILL to every process in the group and below it (cgroup.kill, since
// Linux 5.14).
func (g *Group) Kill() error { return writeAt(g.fd, "cgroup.kill", "1") }

// Usage is what the processes of a group have used since it was made. What the
// kernel does not tell is 0.
type Usage struct {
	OOMKills   uint64 // processes that were killed for memory
	MemoryPeak uint64 // bytes; since Linux 5.19
	CPU        time.Duration
}

// Usage reads the accounts of the group.
func (g *Group) Usage() Usage {
	var u Usage
	if text, err := readAt(g.fd, "memory.events"); err == nil {
		u.OOMKills = entry(text, "oom_kill")
	}
	if text, err := readAt(g.fd, "memory.peak"); err == nil {
		u.MemoryPeak, _ = strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	}
	if text, err := readAt(g.fd, "cpu.stat"); err == nil {
		u.CPU = time.Duration(entry(text, "usage_usec")) * time.Microsecond
	}
	return u
}

// CPUOf reads how much processor time a control group, by its name in
// /proc/PID/cgroup, has used. It may be called from any goroutine.
func (t *Tree) CPUOf(group string) (time.Duration, error) {
	text, err := t.read(group, "cpu.stat")
	if err != nil {
		return 0, err
	}
	return time.Duration(entry(text, "usage_usec")) * time.Microsecond, nil
}

// PrivateOf reads how many bytes the processes of a control group, by the same name, have
// written since each was in it, in memory and swapped out: a page is charged to who makes
// it, and one that a process has copied from its floor to the process. Page cache and
// shared memory are not counted. It may be called from any goroutine, and waits for no
// process. The error wraps fs.ErrNotExist without the memory controller.
func (t *Tree) PrivateOf(group string) (uint64, error) {
	text, err := t.read(group, "memory.stat")
	if err != nil {
		return 0, err
	}
	private := entry(text, "anon")
	if text, err := t.read(group, "memory.swap.current"); err == nil { // there may be no swap
		swapped, _ := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
		private += swapped
	}
	return private, nil
}

// read reads a file of a group in here.
func (t *Tree) read(group, file string) (string, error) {
	below, ok := strings.CutPrefix(group, t.cgroup+"/")
	if !ok || strings.Contains(below, "/") {
		return "", fmt.Errorf("cgroup: %s is not below %s", group, t.cgroup)
	}
	text, err := os.ReadFile(filepath.Join(t.path, below, file))
	return string(text), err
}

// entry reads one number of a flat-keyed file.
func entry(text, key string) uint64 {
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == key {
			n, _ := strconv.ParseUint(value, 10, 64)
			return n
		}
	}
	return 0
}

// Leave gives the group up and lets it be, empty as it is, for whoever removes the
// tree. The error wraps EBUSY if a process lives there; the group is then as it was.
func (g *Group) Leave() error {
	if populated, err := g.Populated(); err == nil && populated {
		return &os.PathError{Op: "leave", Path: g.path, Err: unix.EBUSY}
	}
	g.close()
	return nil
}

// Remove removes the group and those that its processes have made below it. The
// error wraps EBUSY if a process lives there; the group is then as it was. Once
// it is removed, it must not be used any more.
func (g *Group) Remove() error {
	err := unix.Unlinkat(g.parent, g.name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
		if populated, _ := g.Populated(); !populated {
			_ = g.walk(nil, func(dir int, name string) {
				_ = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) // what cannot be removed is told below
			})
			err = unix.Unlinkat(g.parent, g.name, unix.AT_REMOVEDIR)
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: g.path, Err: err}
	}
	g.close()
	return nil
}
