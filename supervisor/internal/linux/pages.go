// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Program are the mappings of this program's code and read-only data: half of its resident
// memory, of which little is used while nothing happens, since most is for its start, for
// commands, and for unwinding and collecting.
type Program []mapping

// FindProgram finds them; they never move. A mapping of which the process has pages of its
// own, such as relocated ones or those with a debugger's breakpoints, is left out.
func FindProgram() (found Program, err error) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // read only
	var at mapping
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		switch name, value, _ := strings.Cut(line, ":"); {
		case strings.Contains(name, "-"):
			at = parseMapping(line)
		case name == "Anonymous" && strings.TrimSpace(value) == "0 kB" && at.file == exe && at.fixed():
			found = append(found, at)
		}
	}
	return found, nil
}

// Release unmaps their pages. What is used again comes back from the page cache, 64 kB with
// each fault (MADV_DONTNEED in madvise(2)).
func (p Program) Release() error {
	for _, m := range p {
		if err := m.release(); err != nil {
			return err
		}
	}
	return nil
}

// mapping is the head of an entry of /proc/PID/smaps (proc_pid_maps(5)).
type mapping struct {
	start, end uintptr
	mode, file string
}

// fixed reports whether the process cannot write there.
func (m *mapping) fixed() bool { return m.mode == "r--p" || m.mode == "r-xp" }

func parseMapping(line string) (m mapping) {
	var offset, device, inode string
	_, _ = fmt.Sscanf(line, "%x-%x %s %s %s %s", &m.start, &m.end, &m.mode, &offset, &device, &inode) // else it is none
	if i := strings.IndexByte(line, '/'); i >= 0 {
		m.file = line[i:]
	}
	return m
}

func (m *mapping) release() error {
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
		return os.NewSyscallError("madvise", errno)
	}
	return nil
}
