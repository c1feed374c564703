// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// bindAddress binds; the file of a Unix socket never has wider rights than it
// is to have.
func bindAddress(fd int, s *fleetfile.Socket, a fleetfile.Address, address unix.Sockaddr) error {
	if !strings.HasPrefix(a.Unix, "/") {
		return os.NewSyscallError("bind", unix.Bind(fd, address))
	}
	uid, gid, err := socketOwner(s)
	if err != nil {
		return err
	}
	if err := removeStale(a.Unix, sockTypes[s.Type]); err != nil {
		return err
	}
	old := unix.Umask(int(0o777 &^ s.Mode))
	err = unix.Bind(fd, address)
	unix.Umask(old)
	if err != nil {
		return os.NewSyscallError("bind", err)
	}
	if uid < 0 && gid < 0 {
		return nil
	}
	if err := unix.Lchown(a.Unix, uid, gid); err != nil {
		_ = unix.Unlink(a.Unix) // it was made just now
		return &os.PathError{Op: "chown", Path: a.Unix, Err: err}
	}
	return nil
}

// giveFile gives the file of a socket that is bound the rights that it is to have now.
func giveFile(path string, s *fleetfile.Socket) error {
	uid, gid, err := socketOwner(s)
	if err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer linux.CloseFD(&fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("the file is not the socket any more")
	}
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), s.Mode); err != nil {
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	if uid < 0 && gid < 0 {
		return nil
	}
	if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "chown", Path: path, Err: err}
	}
	return nil
}

// removeStale removes a socket file that nobody listens on. Anything else that
// stands there stays, and is an error.
func removeStale(path string, sockType int) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return errors.New("the file exists and is not a socket: remove it, or listen elsewhere")
	}
	fd, err := unix.Socket(unix.AF_UNIX, sockType|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer linux.CloseFD(&fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	if errors.Is(err, unix.ECONNREFUSED) {
		return os.Remove(path)
	}
	return fmt.Errorf("another process listens there: %w", unix.EADDRINUSE)
}

func socketOwner(s *fleetfile.Socket) (uid, gid int, err error) {
	uid, gid = -1, -1
	if s.User != "" {
		if uid, err = strconv.Atoi(s.User); err != nil {
			u, err := user.Lookup(s.User)
			if err != nil {
				return 0, 0, fmt.Errorf("user %s does not exist", s.User)
			}
			uid, _ = strconv.Atoi(u.Uid)
		}
	}
	if s.Group != "" {
		if gid, err = strconv.Atoi(s.Group); err != nil {
			g, err := user.LookupGroup(s.Group)
			if err != nil {
				return 0, 0, fmt.Errorf("group %s does not exist", s.Group)
			}
			gid, _ = strconv.Atoi(g.Gid)
		}
	}
	return uid, gid, nil
}
