// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/output"
)

// notifier tells the service manager how the fleet is. What is to be said is
// kept until it has been sent, the latest of its kind only, and sent once a
// turn; a queue that is full is tried again later and blocks nothing.
type notifier struct {
	client    *sdnotify.Client
	log       *output.Log
	pingEvery time.Duration // half the watchdog's interval; 0: no watchdog

	status   string
	changed  bool // status has not been sent
	ready    bool
	stopping bool
	extend   time.Duration
	ping     bool

	retryAt  fleet.Instant
	troubles int // failures in a row; one line for them is enough
}

// leastPing is the shortest time between two keep-alives, each of which is a turn of
// the loop.
const leastPing = 10 * time.Millisecond

// A socket that refuses what is sent may be gone for good.
const (
	notifyRetry     = time.Second
	mostNotifyRetry = time.Minute
)

func newNotifier(opts Options) *notifier {
	n := &notifier{log: opts.Log, retryAt: fleet.Never}
	client, err := sdnotify.New(opts.Env.NotifySocket)
	if err != nil {
		opts.Log.Warn(fmt.Sprintf("no notifications to the service manager: %v", err))
	}
	n.client = client
	interval, err := opts.Env.Watchdog()
	if err != nil {
		opts.Log.Warn(fmt.Sprintf("no watchdog: %v", err))
	}
	n.pingEvery = interval / 2
	switch {
	case interval == 0:
	case client == nil:
		n.pingEvery = 0
		opts.Log.Warn("no keep-alives, though WATCHDOG_USEC asks for them: there is no NOTIFY_SOCKET to send them to")
	case n.pingEvery < leastPing:
		n.pingEvery = leastPing
		opts.Log.Warn(fmt.Sprintf("the watchdog's interval of %s is too short: a keep-alive comes every %s; raise WatchdogSec= of the unit",
			interval, leastPing))
	}
	return n
}

func (n *notifier) setStatus(text string) {
	n.status, n.changed = text, true
}

// flush sends what has come up in a turn.
func (n *notifier) flush(now fleet.Instant) {
	n.retryAt = fleet.Never
	for _, fields := range n.datagrams() {
		err := n.client.Send(fields...)
		if err == nil {
			n.ready, n.troubles = false, 0 // ready is in the first one, and is not said twice
			continue
		}
		n.retryAt = now.Add(n.retryIn(err))
		return
	}
	n.changed, n.stopping, n.extend, n.ping = false, false, 0, false
}

// retryIn is when to try again: soon if the manager only has to read, else ever
// less often.
func (n *notifier) retryIn(err error) time.Duration {
	if errors.Is(err, sdnotify.ErrFull) {
		return notifyRetry
	}
	if n.troubles == 0 {
		n.log.Warn(fmt.Sprintf("%v; trying again", err))
	}
	n.troubles = min(n.troubles+1, 10)
	return min(notifyRetry<<(n.troubles-1), mostNotifyRetry)
}

// datagrams puts READY and STOPPING, which must not share one, into two.
func (n *notifier) datagrams() (all [][]sdnotify.Field) {
	var fields []sdnotify.Field
	if n.changed {
		fields = append(fields, sdnotify.Status(n.status))
	}
	if n.extend > 0 {
		fields = append(fields, sdnotify.ExtendTimeout(n.extend))
	}
	if n.ping {
		fields = append(fields, sdnotify.Watchdog())
	}
	switch {
	case n.ready && n.stopping:
		return [][]sdnotify.Field{{sdnotify.Ready()}, append(fields, sdnotify.Stopping())}
	case n.ready:
		fields = append(fields, sdnotify.Ready())
	case n.stopping:
		fields = append(fields, sdnotify.Stopping())
	}
	if len(fields) > 0 {
		all = append(all, fields)
	}
	return all
}

// failed says why the program ends with an error.
func (n *notifier) failed(err error) {
	var more []sdnotify.Field
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		more = append(more, sdnotify.Errno(errno))
	}
	n.reject(err.Error(), exitFor(err), more...)
}

func (n *notifier) reject(why string, code int, more ...sdnotify.Field) {
	fields := append(more, sdnotify.Status("failed: "+why), sdnotify.ExitStatus(code))
	_ = n.client.Send(fields...) // the log has it
}

// close waits until the service manager has read what was sent: a datagram of
// a process that is gone cannot be attributed any more.
func (n *notifier) close() {
	_ = n.client.Barrier(time.Second) // it is only a courtesy
	_ = n.client.Close()
}
