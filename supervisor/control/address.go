// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Address is where the control socket of a fleet is, and which fleet must answer
// there: the directory may be another user's, who can put anything there, such as a
// link to the socket of another fleet.
type Address struct {
	Socket string
	Fleet  string // what is looked for, in words

	// Serves reports whether the fleet of that name and file is the one. It is the
	// master that says which it is, and a master that the kernel says is root's, this
	// user's or the directory's owner's.
	Serves func(name, file string) bool
}

// connect opens the socket without following a link, and makes sure of the user who
// serves it.
func (a Address) connect(ctx context.Context) (socket net.Conn, err error) {
	dir, err := a.open(unix.AT_FDCWD, filepath.Dir(a.Socket), unix.S_IFDIR)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(dir) }() // opened with O_PATH: nothing is lost
	file, err := a.open(dir, filepath.Base(a.Socket), unix.S_IFSOCK)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(file) }() // opened with O_PATH: nothing is lost
	socket, err = new(net.Dialer).DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(file))
	if err != nil {
		if errno := unix.Errno(0); errors.As(err, &errno) {
			err = &os.PathError{Op: "connect", Path: a.Socket, Err: errno}
		}
		return nil, err
	}
	if err := a.checkUser(dir, socket.(*net.UnixConn)); err != nil {
		_ = socket.Close() // nothing was said
		return nil, err
	}
	return socket, nil
}

// open opens what must be of that kind, and not a link to it.
func (a Address) open(dir int, name string, kind uint32) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: a.Socket, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT == kind {
		return fd, nil
	}
	_ = unix.Close(fd) // opened with O_PATH: nothing is lost
	if err != nil {
		return -1, &os.PathError{Op: "stat", Path: a.Socket, Err: err}
	}
	what := "not what belongs there"
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		what = "a symbolic link, which no master makes"
	}
	if kind == unix.S_IFSOCK {
		name = a.Socket
	}
	return -1, a.refuse("%s is %s", name, what)
}

func (a Address) checkUser(dir int, socket *net.UnixConn) error {
	var owner unix.Stat_t
	if err := unix.Fstat(dir, &owner); err != nil {
		return &os.PathError{Op: "stat", Path: a.Socket, Err: err}
	}
	who, err := peer(socket)
	if err != nil {
		return err
	}
	if who.PIDFD >= 0 {
		_ = unix.Close(who.PIDFD) // read only
	}
	if who.UID != 0 && who.UID != uint32(unix.Geteuid()) && who.UID != owner.Uid {
		return a.refuse("%s is served by uid %d, which is neither root nor you nor the owner of its directory, uid %d", a.Socket, who.UID, owner.Uid)
	}
	return nil
}

// checkFleet asks the master which fleet it is of.
func (a Address) checkFleet(ctx context.Context, c *Client) error {
	var said [2]string
	for i, name := range []string{"Name", "File"} {
		call := c.conn.Object(Interface, Path).CallWithContext(ctx, propertiesInterface+".Get", 0, Interface, name)
		if err := call.Store(&said[i]); err != nil {
			return err
		}
	}
	if !a.Serves(said[0], said[1]) {
		return a.refuse("%s is served by the master of another fleet, %.64q of %.256q", a.Socket, said[0], said[1])
	}
	return nil
}

func (a Address) refuse(format string, args ...any) error {
	return fmt.Errorf("%s, and not by the master of %s: somebody has put it there. Nothing was asked of it. "+
		"Remove it and start the fleet again", fmt.Sprintf(format, args...), a.Fleet)
}
