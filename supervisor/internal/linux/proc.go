// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Stat is the part of /proc/PID/stat that prefork uses (proc_pid_stat(5)).
type Stat struct {
	State   byte
	Parent  int
	Session int
	Exiting bool          // the kernel is ending the process (PF_EXITING)
	Killed  bool          // SIGKILL is pending
	CPU     time.Duration // of the process, and of the children that it has waited for
}

// Signals are those of a process: bit n-1 is signal n.
type Signals struct {
	Pending uint64 // for its main thread, or for any
	Caught  uint64 // it has a handler for them
}

// ReadSignals reads the part of /proc/PID/status that is about signals
// (proc_pid_status(5)). What the process has a say in, its name, has no line of its own
// there.
func ReadSignals(pid int) (s Signals, err error) {
	text, err := readProc("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return Signals{}, err
	}
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(line, []byte(":\t"))
		bits, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		if err != nil {
			continue // it is about something else
		}
		switch string(name) {
		case "SigPnd", "ShdPnd":
			s.Pending |= bits
		case "SigCgt":
			s.Caught = bits
		}
	}
	return s, nil
}

// clockTick is the unit of times in /proc: USER_HZ, which is 100 wherever Go runs.
const clockTick = 10 * time.Millisecond

const pfExiting = 0x4

// Descends reports whether a process descends from another. A parent that ends
// meanwhile hands its children on, which is noticed; one that is hidden from this
// process (hidepid=, proc(5)) ends the search. An error means that the first one
// is gone, or hidden.
func Descends(pid, from int) (bool, error) {
	stat, err := ReadStat(pid)
	for err == nil && stat.Parent != from && stat.Parent > 1 {
		parent, hidden := ReadStat(stat.Parent)
		if hidden == nil {
			pid, stat = stat.Parent, parent
			continue
		}
		before := stat.Parent
		if stat, err = ReadStat(pid); err == nil && stat.Parent == before {
			return false, nil
		}
	}
	return err == nil && stat.Parent == from, err
}

// ReadStat reads /proc/PID/stat. An error means that the process is gone, or
// hidden from this one.
func ReadStat(pid int) (Stat, error) {
	var buf [512]byte
	text, err := ReadSmall("/proc/"+strconv.Itoa(pid)+"/stat", buf[:])
	if err != nil {
		return Stat{}, err
	}
	return parseStat(text)
}

// parseStat: the second field is the name of the process in parentheses, which
// it chose itself; all others follow the last parenthesis.
func parseStat(text []byte) (Stat, error) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return Stat{}, fmt.Errorf("stat: no name in %q", text)
	}
	var numbers [statFields]int
	rest, field := nextField(text[end+1:])
	state := field
	for i := 1; i < statFields; i++ {
		rest, field = nextField(rest)
		n, err := strconv.Atoi(string(field))
		if err != nil {
			return Stat{}, fmt.Errorf("stat: field %d of %q: %v", i+3, text, err)
		}
		numbers[i] = n
	}
	if len(state) != 1 {
		return Stat{}, fmt.Errorf("stat: no state in %q", text)
	}
	for range pendingField - statFields {
		rest, field = nextField(rest)
	}
	pending, _ := strconv.ParseUint(string(field), 10, 64) // 0 where there is no such field
	return Stat{
		State:   state[0],
		Parent:  numbers[1],
		Session: numbers[3],
		Exiting: numbers[6]&pfExiting != 0,
		Killed:  pending&(1<<(unix.SIGKILL-1)) != 0,
		CPU:     time.Duration(numbers[11]+numbers[12]+numbers[13]+numbers[14]) * clockTick,
	}, nil
}

// statFields is how many fields after the name are read.
const statFields = 15

// pendingField is the field after the name that has the signals that are pending for a
// thread: SIGKILL is for each (complete_signal in kernel/signal.c).
const pendingField = 29

// nextField takes a field off the front of a line.
func nextField(line []byte) (rest, field []byte) {
	line = bytes.TrimLeft(line, " \n")
	if end := bytes.IndexAny(line, " \n"); end >= 0 {
		return line[end:], line[:end]
	}
	return nil, line
}

// ReadSmall reads the beginning of a file of /proc into buf, in one call, without
// the net poller and the allocations of package os.
func ReadSmall(path string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // read only
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return buf[:n], nil
}

// Children returns the pids of this process's children, zombies too, for which
// skip is false. Where the kernel lists children (CONFIG_PROC_CHILDREN) that is
// one small file for each thread; else all of /proc is read.
func Children(self int, skip func(pid int) bool) ([]int, error) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, task := range tasks {
		if pids, err = childrenOf(task.Name(), pids, skip); err != nil {
			return childrenByParent(self, skip)
		}
	}
	return pids, nil
}

// Adopted is Children of the main thread alone, in one file: the kernel gives an orphan to
// the first thread of a subreaper that lives (find_new_reaper in kernel/exit.c).
func Adopted(self int, skip func(pid int) bool) ([]int, error) {
	pids, err := childrenOf(strconv.Itoa(self), nil, skip)
	if err != nil {
		return childrenByParent(self, skip)
	}
	return pids, nil
}

// childrenOf adds the children of one thread to pids.
func childrenOf(task string, pids []int, skip func(pid int) bool) ([]int, error) {
	text, err := readProc("/proc/self/task/" + task + "/children")
	for field := range bytes.FieldsSeq(text) {
		if pid, err := strconv.Atoi(string(field)); err == nil && !skip(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// readProc is [ReadSmall] of all of a file.
func readProc(path string) (text []byte, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // read only
	for text = make([]byte, 0, 4096); ; {
		text = slices.Grow(text, 2048)
		n, err := unix.Read(fd, text[len(text):cap(text)])
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return text, nil
		}
		text = text[:len(text)+n]
	}
}

func childrenByParent(self int, skip func(pid int) bool) ([]int, error) {
	pids, err := Processes()
	return slices.DeleteFunc(pids, func(pid int) bool {
		if skip(pid) {
			return true
		}
		stat, err := ReadStat(pid)
		return err != nil || stat.Parent != self
	}), err
}

// Processes returns the pids of all processes that this one can see.
func Processes() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // read only
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
