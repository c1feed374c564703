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
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/text"
	"github.com/decnet/prefork/supervisor/verb"
)

// Client is a connection to the master of a fleet. It may be used from any
// goroutine. The errors of its methods wrap context.DeadlineExceeded if the master
// does not answer in time.
type Client struct {
	conn   *dbus.Conn
	socket *net.UnixConn // below it
}

// Dial connects to the master of a fleet, and makes sure that it is that. It blocks
// until ctx ends at the latest; afterwards ctx means nothing to the client, which the
// caller closes. The error wraps fs.ErrNotExist or ECONNREFUSED if no master serves
// the socket, and fs.ErrPermission if it does not serve this user.
func Dial(ctx context.Context, to Address) (*Client, error) {
	socket, err := to.connect(ctx)
	if err != nil {
		return nil, inTime(ctx, err)
	}
	conn, err := greet(ctx, socket)
	if err != nil {
		_ = socket.Close() // it is of no use
		return nil, inTime(ctx, err)
	}
	c := &Client{conn, socket.(*net.UnixConn)} // of such an address
	if err := to.checkFleet(ctx, c); err != nil {
		c.Close()
		return nil, inTime(ctx, err)
	}
	return c, nil
}

// greet makes a D-Bus connection of a socket.
func greet(ctx context.Context, socket net.Conn) (*dbus.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := socket.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	conn, err := dbus.NewConn(&wholeMessages{Conn: socket})
	if err != nil {
		return nil, err
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(unix.Geteuid()))}); err != nil {
		return nil, err
	}
	if err := conn.Hello(); err != nil {
		return nil, err
	}
	return conn, socket.SetDeadline(time.Time{})
}

// inTime tells an error that came from the end of ctx. What the other side says of one
// is made printable.
func inTime(ctx context.Context, err error) error {
	if said := (dbus.Error{}); errors.As(err, &said) {
		err = dbus.Error{Name: said.Name, Body: []any{text.Printable(said.Error())}}
	}
	if err != nil && (ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		return fmt.Errorf("%w: %v", context.DeadlineExceeded, err)
	}
	return err
}

// Printable is a text of somebody else's without what would steer a terminal.
func Printable(said string) string { return text.Printable(said) }

// Close ends the connection.
func (c *Client) Close() { _ = c.conn.Close() } // nothing waits to be written

// Process is a pidfd of the master, as the kernel says who serves the socket. The caller
// closes it.
func (c *Client) Process(ctx context.Context) (pidfd int, err error) {
	who, err := peer(c.socket)
	if err != nil || who.PIDFD >= 0 {
		return who.PIDFD, err
	}
	if who.PID == 0 {
		return -1, errors.New("its master is in another pid namespace: signal it there")
	}
	if pidfd, err = unix.PidfdOpen(who.PID, 0); err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	if _, err := c.Look(ctx); err != nil { // the process is another's if the master has ended
		_ = unix.Close(pidfd) // of a process: nothing is lost
		return -1, err
	}
	return pidfd, nil
}

// Look asks the master for its fleet. It blocks until ctx ends at the latest.
func (c *Client) Look(ctx context.Context) (*Status, error) {
	var all managed
	call := c.conn.Object(Interface, "/").CallWithContext(ctx, managerInterface+".GetManagedObjects", 0)
	if err := call.Store(&all); err != nil {
		return nil, inTime(ctx, err)
	}
	return fleetOf(all)
}

// History asks the master for what last happened to a slot, or to one of its tasks
// ("io.0/poller"), the oldest first. It blocks until ctx ends at the latest.
func (c *Client) History(ctx context.Context, name string) (all []HistoryEntry, err error) {
	method, args := "History", []any{}
	slot, task, ofTask := strings.Cut(name, "/")
	if ofTask {
		method, args = "TaskHistory", append(args, task)
	}
	err = c.conn.Object(Interface, SlotPath(slot)).CallWithContext(ctx, SlotInterface+"."+method, 0, args...).Store(&all)
	for i := range all {
		all[i].Text = text.Printable(all[i].Text)
	}
	return all, inTime(ctx, err)
}

// Operate asks the master to do something to a slot. It returns when the master has
// taken it, which is before all of it has happened. It blocks until ctx ends at the latest.
func (c *Client) Operate(ctx context.Context, slot string, call verb.Call) error {
	var args []any
	member := call.Name.Member()
	switch {
	case call.Name.TakesSignal():
		args = append(args, int32(call.Signal))
	case call.Task != "":
		member += "Task"
		args = append(args, call.Task)
	}
	return inTime(ctx, c.conn.Object(Interface, SlotPath(slot)).CallWithContext(ctx, SlotInterface+"."+member, 0, args...).Err)
}

// Changes has the master tell when a state changes: the channel then holds one
// value, however many did. It is closed when the connection ends. It blocks until
// ctx ends at the latest, and is called once.
func (c *Client) Changes(ctx context.Context) (<-chan struct{}, error) {
	signals, changes := make(chan *dbus.Signal, 64), make(chan struct{}, 1)
	c.conn.Signal(signals)
	go func() {
		defer close(changes)
		for range signals { // the connection closes it
			select {
			case changes <- struct{}{}:
			default: // it is known already
			}
		}
	}()
	return changes, inTime(ctx, c.conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(propertiesInterface)))
}

// fleetOf puts a fleet together. Its slots come by worker and number. Who answers may
// be a worker that has taken the master's place, which shares its user: texts are made
// printable, and names, which go into commands and a shell's completions, must be some.
func fleetOf(all managed) (*Status, error) {
	props, ok := all[Path][Interface]
	if !ok {
		return nil, fmt.Errorf("no object %s: another version of prefork?", Path)
	}
	f := &Status{Slots: []SlotStatus{}, Floors: map[uint32]uint32{}, SparePIDs: map[uint32]uint32{}}
	setProperties(f, props)
	if i := slices.IndexFunc(f.Workers, func(w WorkerStatus) bool { return !isName(w.Name) }); i >= 0 {
		return nil, fmt.Errorf("the master says nonsense: a worker %.64q", f.Workers[i].Name)
	}
	for path, object := range all {
		if strings.HasPrefix(string(path), string(slotsPath)+"/") {
			var s SlotStatus
			setProperties(&s, object[SlotInterface])
			if worker, number, _ := strings.Cut(s.Name, "."); worker != s.Worker || !isName(worker) || !isName(number) {
				return nil, fmt.Errorf("the master says nonsense: a slot %.64q of worker %.64q", s.Name, s.Worker)
			}
			if i := slices.IndexFunc(s.Tasks, func(t TaskStatus) bool { return !isName(t.Name) }); i >= 0 {
				return nil, fmt.Errorf("the master says nonsense: a task %.64q of %s", s.Tasks[i].Name, s.Name)
			}
			f.Slots = append(f.Slots, s)
		}
	}
	slices.SortFunc(f.Slots, func(a, b SlotStatus) int {
		return cmp.Or(cmp.Compare(a.Worker, b.Worker), cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return f, nil
}

// isName reports whether the fleet file could have this name.
func isName(s string) bool {
	const most = 64
	return s != "" && len(s) <= most && s[0] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}
