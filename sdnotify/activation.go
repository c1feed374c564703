// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	listenStart = 3       // SD_LISTEN_FDS_START
	maxListen   = 1 << 20 // fs.nr_open as the kernel sets it
)

// Activated is one descriptor that was passed to this process.
type Activated struct {
	FD   int
	Name string // FileDescriptorName= of its unit; several may share it
}

// Listeners returns the descriptors that the service manager passed, in the
// order of their numbers. There are none, and that is no error, if none were
// passed or if they are for another process. Each is checked and made close on
// exec; nothing else about it is changed, least of all O_NONBLOCK. It does not
// block.
//
// The descriptors belong to the caller. Call it once: what is close on exec
// already cannot have been passed, and is refused.
func Listeners(env Environment) ([]Activated, error) {
	names, err := env.ListenNames()
	if err != nil || len(names) == 0 {
		return nil, err
	}
	if ours, err := env.checkPIDFD(); err != nil || !ours {
		return nil, err
	}
	passed := make([]Activated, len(names))
	for i, name := range names {
		passed[i] = Activated{FD: listenStart + i, Name: name}
		if err := passed[i].claim(); err != nil {
			return nil, fmt.Errorf("LISTEN_FDS=%s: %w: check what starts this process", env.ListenFDs, err)
		}
	}
	return passed, nil
}

// claim checks that the descriptor was passed and makes it close on exec. A
// number that was not passed may be open all the same: Go's runtime takes the
// lowest free ones for its epoll instance. Those are close on exec, which
// nothing that came through execve(2) can be.
func (a Activated) claim() error {
	flags, err := unix.FcntlInt(uintptr(a.FD), unix.F_GETFD, 0)
	switch {
	case errors.Is(err, unix.EBADF):
		return fmt.Errorf("fd %d (%s) is closed", a.FD, a.Name)
	case err != nil:
		return fmt.Errorf("fd %d (%s): %w", a.FD, a.Name, os.NewSyscallError("fcntl", err))
	case flags&unix.FD_CLOEXEC != 0:
		return fmt.Errorf("fd %d (%s) was not passed but opened by this process", a.FD, a.Name)
	}
	if _, err := unix.FcntlInt(uintptr(a.FD), unix.F_SETFD, flags|unix.FD_CLOEXEC); err != nil {
		return fmt.Errorf("fd %d (%s): %w", a.FD, a.Name, os.NewSyscallError("fcntl", err))
	}
	return nil
}

// checkPIDFD reports whether LISTEN_PIDFDID, if there is one, names this very
// process. A pid is used again, the number of a pidfd never. Where that number
// cannot be had the pid has to do, as in libsystemd.
func (e Environment) checkPIDFD() (bool, error) {
	if e.ListenPIDFDID == "" {
		return true, nil
	}
	want, err := strconv.ParseUint(e.ListenPIDFDID, 10, 64)
	if err != nil {
		return false, fmt.Errorf("LISTEN_PIDFDID=%q must be a number: check what starts this process", e.ListenPIDFDID)
	}
	own, ok := pidfdID(e.PID)
	return !ok || own == want, nil
}

// pidfdID returns the number that systemd knows a process by, the inode of its
// pidfd. There is none before Linux 6.9, where all pidfds share one inode; on 32
// bits stat(2) cuts it.
func pidfdID(pid int) (uint64, bool) {
	if strconv.IntSize < 64 {
		return 0, false
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.PID_FS_MAGIC {
		return 0, false
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, false
	}
	return st.Ino, true
}
