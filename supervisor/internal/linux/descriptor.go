// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CloseFD closes a descriptor unless it is -1, and makes it -1. It is for what nothing
// was written to that could be lost. It may block: see close(2).
func CloseFD(fd *int) {
	if *fd >= 0 {
		_ = unix.Close(*fd) // EIO, at most, of what was not written to
		*fd = -1
	}
}

// FreeFDs is how many descriptors this process can still open.
func FreeFDs() (int, error) {
	const own = "/proc/self/fd"
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	info, err := os.Stat(own)
	if err != nil {
		return 0, err
	}
	open := int(info.Size())
	if open == 0 { // before Linux 6.2
		entries, err := os.ReadDir(own)
		if err != nil {
			return 0, err
		}
		open = len(entries)
	}
	return int(min(limit.Cur, 1<<30)) - open, nil
}

// Pollable reports whether to poll a descriptor asks nobody but the kernel, and tells
// of its other end: it is a pipe, or a socket of a common family. A file's poll(2) can
// be answered by a process (FUSE), which may never do so.
func Pollable(fd int) bool {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err == nil {
		return domain == unix.AF_UNIX || domain == unix.AF_INET || domain == unix.AF_INET6
	}
	target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return err == nil && strings.HasPrefix(target, "pipe:[") // a path begins with a slash
}

// IsSocket reports whether a descriptor is of a socket, of whatever family.
func IsSocket(fd int) bool {
	_, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil
}

// Remote reports whether a descriptor is of a file that another process or machine
// serves (FUSE, NFS), or of a file system that is not known here. Each close(2) of
// one can wait for that, and fork and exec do close what they copy. It does not block.
func Remote(fd int) bool {
	// AT_STATX_DONT_SYNC: what is known is enough; nobody is asked.
	var st unix.Statx_t
	const mask = unix.STATX_TYPE | unix.STATX_MNT_ID
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, mask, &st); err != nil {
		return true
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK, unix.S_IFIFO, 0: // 0: an eventfd(2), a pidfd and the like
		return false
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err == nil {
		return false // in memory (memfd_create(2))
	}
	return !slices.Contains(local, fileSystemOf(st.Mnt_id))
}

// local are file systems that the kernel serves alone.
var local = []string{
	"bcachefs", "btrfs", "devtmpfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "hugetlbfs", "overlay",
	"proc", "ramfs", "squashfs", "sysfs", "tmpfs", "vfat", "xfs", "zfs",
}

// fileSystemOf is the type of a mount of this process's namespace, "" if it is none.
func fileSystemOf(mount uint64) string {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer file.Close() //nolint:errcheck // read only
	id := strconv.FormatUint(mount, 10) + " "
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if line := lines.Text(); strings.HasPrefix(line, id) {
			_, after, _ := strings.Cut(line, " - ") // proc_pid_mountinfo(5)
			name, _, _ := strings.Cut(after, " ")
			return name
		}
	}
	return ""
}

// GiveSocket makes a user the owner of a Unix socket that is this user's, and of
// nothing else that may stand in its place: no link is followed.
func GiveSocket(path string, uid int) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // nothing was opened
	var st unix.Stat_t
	switch err := unix.Fstat(fd, &st); {
	case err != nil:
		return &os.PathError{Op: "stat", Path: path, Err: err}
	case st.Mode&unix.S_IFMT == unix.S_IFSOCK && int(st.Uid) == uid:
		return nil
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != unix.Geteuid():
		return fmt.Errorf("%s: it is not a socket of uid %d", path, unix.Geteuid())
	}
	if err := unix.Fchownat(fd, "", uid, -1, unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "chown", Path: path, Err: err}
	}
	return nil
}
