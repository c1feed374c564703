// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/verb"
)

const (
	answerTimeout = 5 * time.Second // a master that takes longer is stuck
	period        = time.Second     // of samples, and of tries to find a master that has gone

	// What changes often is looked at a few times a second, and a sample that takes
	// the master long is taken more rarely: a view is never much work for it.
	leastPause = 200 * time.Millisecond
	breather   = 4
)

// sampled and missed are what a feed tells.
type (
	sampled struct {
		fleet *control.Status
		at    time.Time
	}
	missed struct {
		why string
		at  time.Time
	}
)

// feed looks at a fleet each second, and soon after something has changed, until
// ctx ends. A master that goes away is looked for until it is back.
func feed(ctx context.Context, at control.Address, tell func(any)) {
	for ctx.Err() == nil {
		if err := follow(ctx, at, tell); ctx.Err() == nil {
			tell(missed{reason(err), time.Now()})
		}
		rest(ctx, nil, period)
	}
}

// follow feeds from one connection, until it is of no more use.
func follow(ctx context.Context, at control.Address, tell func(any)) error {
	c, err := connect(ctx, at)
	if err != nil {
		return err
	}
	defer c.Close()
	changes, err := subscribe(ctx, c)
	for err == nil && ctx.Err() == nil {
		begin := time.Now()
		var f *control.Status
		if f, err = look(ctx, c); err != nil {
			break
		}
		tell(sampled{f, time.Now()})
		took := time.Since(begin)
		rest(ctx, nil, min(max(leastPause, breather*took), answerTimeout))
		if !rest(ctx, changes, period-time.Since(begin)) {
			err = io.EOF
		}
	}
	return err
}

// rest waits for a change, and no longer than d. It returns false if no more will
// come, as the connection has ended.
func rest(ctx context.Context, changes <-chan struct{}, d time.Duration) bool {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	case _, ok := <-changes:
		return ok
	}
	return true
}

func connect(ctx context.Context, at control.Address) (*control.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return control.Dial(ctx, at)
}

// subscribe has the master tell of changes. One of another version may not do
// that; the channel then still tells the end of the connection.
func subscribe(ctx context.Context, c *control.Client) (<-chan struct{}, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	changes, err := c.Changes(ctx)
	if refused := (dbus.Error{}); errors.As(err, &refused) {
		err = nil
	}
	return changes, err
}

func look(ctx context.Context, c *control.Client) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return c.Look(ctx)
}

// carryOut does something to a slot, on a connection of its own: that of the feed
// may be waiting for a master that is stuck, or have gone.
func carryOut(ctx context.Context, at control.Address, o operation) error {
	c, err := connect(ctx, at)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	slot, task, _ := strings.Cut(o.slot, "/")
	return c.Operate(ctx, slot, verb.Call{Name: o.verb, Task: task})
}

const (
	gone  = "the master is gone"
	stuck = "the master does not answer"
)

// reason says what an error means for who looks.
func reason(err error) string {
	refused := dbus.Error{}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return stuck
	case errors.As(err, &refused) && refused.Name == "org.freedesktop.DBus.Error.Timeout":
		return stuck
	case errors.Is(err, fs.ErrPermission):
		return "only root and the user that the fleet runs as may look at it"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET),
		errors.Is(err, unix.EPIPE), errors.Is(err, io.EOF), errors.Is(err, dbus.ErrClosed):
		return gone
	default:
		return control.Printable(err.Error())
	}
}
