// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"errors"
	"math"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
)

// account is the identity that a process takes on. Without user and group it is
// that of the master, and nothing changes.
type account struct {
	change bool
	uid    int // -1: stays
	gid    int // -1: stays
	groups []int
	name   string
	home   string
}

// account looks the user and the groups up. A user that does not exist is a
// refusal: nothing runs as somebody else instead.
//
// As with systemd, extra groups are added to those that the process has anyway:
// those of its user in the group database, or without one its own. A group
// takes the place of the user's primary group.
func (o *Orders) account() (*account, error) {
	a := &account{uid: -1, gid: -1}
	if o.User == "" && o.Group == "" && len(o.ExtraGroups) == 0 {
		return a, nil
	}
	a.change = true
	if err := a.start(o.User); err != nil {
		return nil, refuse(ExitUser, "user %s: %v", o.User, err)
	}
	if o.Group != "" {
		gid, err := lookGroup(o.Group)
		if err != nil {
			return nil, refuse(ExitGroup, "group %s: %v", o.Group, err)
		}
		a.gid = gid
	}
	for _, name := range o.ExtraGroups {
		gid, err := lookGroup(name)
		if err != nil {
			return nil, refuse(ExitGroup, "supplementary group %s: %v", name, err)
		}
		a.groups = append(a.groups, gid)
	}
	if a.gid >= 0 && !slices.Contains(a.groups, a.gid) {
		a.groups = append(a.groups, a.gid)
	}
	return a, nil
}

// start takes user and groups from the database, or the groups from the process
// if there is no user.
func (a *account) start(user string) (err error) {
	if user == "" {
		a.groups, err = unix.Getgroups()
		return err
	}
	return a.lookUser(user)
}

// lookUser finds a user by name or number; a number need not be known.
func (a *account) lookUser(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		id, err := parseID(name)
		if err != nil {
			return err
		}
		if u, err = user.LookupId(name); err != nil {
			a.uid, a.gid, a.name, a.home = id, id, name, "/"
			return nil
		}
	}
	if a.uid, err = parseID(u.Uid); err != nil {
		return err
	}
	if a.gid, err = parseID(u.Gid); err != nil {
		return err
	}
	a.name, a.home = u.Username, u.HomeDir
	ids, err := u.GroupIds()
	if err != nil {
		return err
	}
	for _, id := range ids {
		// The primary group is among them; another may take its place.
		if gid, err := parseID(id); err == nil && gid != a.gid {
			a.groups = append(a.groups, gid)
		}
	}
	return nil
}

func lookGroup(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return parseID(name)
	}
	return parseID(g.Gid)
}

// parseID reads the number of a user or a group. -1, however it is written,
// means "leave it as it is" to the kernel and so is none.
func parseID(text string) (int, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == math.MaxUint32 {
		return 0, errors.New("does not exist")
	}
	return int(id), nil
}

// environment adds what a login would set.
func (a *account) environment(env []string) []string {
	if a.name == "" {
		return env
	}
	return append(env, "HOME="+a.home, "USER="+a.name, "LOGNAME="+a.name, "SHELL="+loginShell(a.name))
}

// take gives the notify socket to the user, which is the only one besides root who
// can send there then. It takes the rights of before.
func (a *account) take(socket string) error {
	if socket == "" || a.uid < 0 {
		return nil
	}
	if err := linux.GiveSocket(socket, a.uid); err != nil {
		return refuse(ExitUser, "give the notify socket to user %d: %v", a.uid, err)
	}
	return nil
}

// assume changes to the account and verifies it: groups, group, user, in this
// order, because the last takes the right to do the others.
func (a *account) assume() error {
	if !a.change {
		return nil
	}
	if err := syscall.Setgroups(a.groups); err != nil {
		return refuse(ExitGroup, "setgroups: %v", err)
	}
	if a.gid >= 0 {
		if err := syscall.Setresgid(a.gid, a.gid, a.gid); err != nil {
			return refuse(ExitGroup, "setresgid %d: %v", a.gid, err)
		}
	}
	if a.uid >= 0 {
		if err := syscall.Setresuid(a.uid, a.uid, a.uid); err != nil {
			return refuse(ExitUser, "setresuid %d: %v", a.uid, err)
		}
	}
	return a.verify()
}

func (a *account) verify() error {
	r, e, s := unix.Getresuid()
	if a.uid >= 0 && (r != a.uid || e != a.uid || s != a.uid) {
		return refuse(ExitUser, "the user is %d/%d/%d instead of %d", r, e, s, a.uid)
	}
	r, e, s = unix.Getresgid()
	if a.gid >= 0 && (r != a.gid || e != a.gid || s != a.gid) {
		return refuse(ExitGroup, "the group is %d/%d/%d instead of %d", r, e, s, a.gid)
	}
	groups, err := unix.Getgroups()
	if err != nil {
		return refuse(ExitGroup, "getgroups: %v", err)
	}
	for _, gid := range groups {
		if !slices.Contains(a.groups, gid) {
			return refuse(ExitGroup, "still in group %d", gid)
		}
	}
	return nil
}
