// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Look asks the master that serves a socket for its fleet. It blocks until ctx
// ends at the latest. The error wraps fs.ErrNotExist or ECONNREFUSED if no master
// serves it, fs.ErrPermission if it does not serve this user, and
// context.DeadlineExceeded if it does not answer in time.
func Look(ctx context.Context, path string) (f *Fleet, err error) {
	err = with(ctx, path, func(conn *dbus.Conn) error {
		var all managed
		if err := conn.Object(Interface, "/").CallWithContext(ctx, managerInterface+".GetManagedObjects", 0).Store(&all); err != nil {
			return err
		}
		f, err = fleetOf(all)
		return err
	})
	return f, err
}

// Operate asks the master that serves a socket to do something to a slot: to
// "Start", "Stop", "Restart" or "Reset" it, or to "Kill" it with a signal. It
// returns when the master has taken it, which is before all of it has happened.
// It blocks, and fails, as Look does.
func Operate(ctx context.Context, path, slot, verb string, signal int) error {
	var args []any
	if verb == "Kill" {
		args = append(args, int32(signal))
	}
	return with(ctx, path, func(conn *dbus.Conn) error {
		return conn.Object(Interface, SlotPath(slot)).CallWithContext(ctx, SlotInterface+"."+verb, 0, args...).Err
	})
}

// with connects to a socket.
func with(ctx context.Context, path string, do func(*dbus.Conn) error) error {
	err := connected(ctx, path, do)
	if err != nil && (ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		return fmt.Errorf("%w: %v", context.DeadlineExceeded, err)
	}
	return err
}

func connected(ctx context.Context, path string, do func(*dbus.Conn) error) error {
	socket, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer socket.Close() // the connection is of no use any more
	if deadline, ok := ctx.Deadline(); ok {
		if err := socket.SetDeadline(deadline); err != nil {
			return err
		}
	}
	conn, err := dbus.NewConn(socket, dbus.WithContext(ctx))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the same
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(unix.Geteuid()))}); err != nil {
		return err
	}
	if err := conn.Hello(); err != nil {
		return err
	}
	return do(conn)
}

// fleetOf puts a fleet together. Its slots come by worker and number.
func fleetOf(all managed) (*Fleet, error) {
	props, ok := all[Path][Interface]
	if !ok {
		return nil, fmt.Errorf("no object %s: another version of prefork?", Path)
	}
	f := &Fleet{Slots: []Slot{}}
	setProperties(f, props)
	for path, object := range all {
		if strings.HasPrefix(string(path), string(slotsPath)+"/") {
			var s Slot
			setProperties(&s, object[SlotInterface])
			f.Slots = append(f.Slots, s)
		}
	}
	slices.SortFunc(f.Slots, func(a, b Slot) int {
		return cmp.Or(cmp.Compare(a.Worker, b.Worker), cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return f, nil
}
