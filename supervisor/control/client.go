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
func Look(ctx context.Context, path string) (*Fleet, error) {
	f, err := look(ctx, path)
	if err != nil && (ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		return nil, fmt.Errorf("%w: %v", context.DeadlineExceeded, err)
	}
	return f, err
}

func look(ctx context.Context, path string) (*Fleet, error) {
	socket, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	defer socket.Close() // the connection is of no use any more
	if deadline, ok := ctx.Deadline(); ok {
		if err := socket.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	conn, err := dbus.NewConn(socket, dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // the same
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(unix.Geteuid()))}); err != nil {
		return nil, err
	}
	if err := conn.Hello(); err != nil {
		return nil, err
	}
	var all managed
	if err := conn.Object(Interface, "/").CallWithContext(ctx, managerInterface+".GetManagedObjects", 0).Store(&all); err != nil {
		return nil, err
	}
	return fleetOf(all)
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
