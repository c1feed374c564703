// SPDX-License-Identifier: AGPL-3.0-or-later

package memory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is one that is looked at. Its directory of /proc is held open: when the process
// has ended nothing can be opened there any more, whoever has its pid by then.
type Process struct {
	PID int
	dir *os.File
}

// Open begins to look at the process that has a pid. The error wraps fs.ErrNotExist if
// there is none. The caller closes it.
func Open(pid int) (*Process, error) {
	dir, err := os.OpenFile("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Process{pid, dir}, nil
}

// Close ends the look.
func (p *Process) Close() { _ = p.dir.Close() } // nothing was written

// open opens a file of the process for reading. The error wraps fs.ErrPermission if this
// process has no right to look into that one, fs.ErrNotExist or ESRCH if it has ended.
func (p *Process) open(name string) (*os.File, error) {
	path := fmt.Sprintf("/proc/%d/%s", p.PID, name)
	fd, err := unix.Openat(int(p.dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (p *Process) read(name string) ([]byte, error) {
	file, err := p.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // read only
	return io.ReadAll(file)
}

// IsOf reports whether it is a child of a process, and was there before a time since boot
// (see [SinceBoot]): its pid has then been no other's since.
func (p *Process) IsOf(parent int, before time.Duration) bool {
	text, err := p.read("stat")
	if err != nil {
		return false
	}
	ppid, start, err := parseBirth(text)
	return err == nil && ppid == parent && start < before.Truncate(clockTick)
}

// clockTick is the unit of times in /proc: USER_HZ, which is 100 wherever Go runs.
const clockTick = 10 * time.Millisecond

// parseBirth reads two fields of /proc/PID/stat (proc_pid_stat(5)): the parent, and when
// the process began. Its name, which it chose itself, ends with the last parenthesis.
func parseBirth(text []byte) (parent int, start time.Duration, err error) {
	const ppid, starttime = 1, 19 // fields after the name
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) <= starttime {
		return 0, 0, fmt.Errorf("stat: too few fields in %q", text)
	}
	if parent, err = strconv.Atoi(string(fields[ppid])); err != nil {
		return 0, 0, fmt.Errorf("stat: the parent: %v", err)
	}
	ticks, err := strconv.ParseInt(string(fields[starttime]), 10, 56)
	if err != nil {
		return 0, 0, fmt.Errorf("stat: the start: %v", err)
	}
	return parent, time.Duration(ticks) * clockTick, nil
}

// SinceBoot is the clock that the starts of processes are counted in (CLOCK_BOOTTIME).
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(os.NewSyscallError("clock_gettime", err)) // cannot fail on Linux
	}
	return time.Duration(ts.Nano())
}

// IsGone reports whether an error says that a process has ended.
func IsGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// mapping is a line of /proc/PID/maps (proc_pid_maps(5)).
type mapping struct {
	first, end uint64
	perms      string
	path       string // "" of anonymous memory
}

func (p *Process) mappings() ([]mapping, error) {
	text, err := p.read("maps")
	if err != nil {
		return nil, err
	}
	var all []mapping
	for line := range bytes.Lines(text) {
		m, err := parseMapping(string(line))
		if err != nil {
			return nil, fmt.Errorf("/proc/%d/maps: %w", p.PID, err)
		}
		all = append(all, m)
	}
	return all, nil
}

func parseMapping(line string) (m mapping, err error) {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return m, fmt.Errorf("not a mapping: %q", line)
	}
	first, end, _ := strings.Cut(fields[0], "-")
	if m.first, err = strconv.ParseUint(first, 16, 64); err == nil {
		m.end, err = strconv.ParseUint(end, 16, 64)
	}
	if err != nil || m.end < m.first {
		return m, fmt.Errorf("not a mapping: %q", line)
	}
	m.perms = fields[1]
	m.path = strings.Join(fields[5:], " ")
	return m, nil
}
