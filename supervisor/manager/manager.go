// SPDX-License-Identifier: AGPL-3.0-or-later

// Package manager tells the service manager how the fleet is (sd_notify(3)): readiness,
// status, keep-alives, and what it is to keep for the next master.
package manager

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/policy"
)

// Manager is the service manager, if there is one. What is to be said is kept until it
// has been sent, the latest of its kind only, and sent once a turn; a queue that is full
// is tried again later and blocks nothing. Only the loop calls its methods.
type Manager struct {
	client    *sdnotify.Client
	log       *output.Log
	pingEvery time.Duration // half the watchdog's interval; 0: no watchdog
	managed   bool
	sockets   bool // it keeps sockets

	status  string
	changed bool    // status has not been sent
	stops   bool    // STOPPING=1 was said
	states  []state // that have not been, in their order, each once
	extend  time.Duration
	ping    bool

	retryAt  policy.Instant
	troubles int // failures in a row; one line for them is enough
}

// state is what the service manager takes for the state of the fleet.
type state int

const (
	ready state = iota
	reloading
	stopping
)

// field says it. The time of a reload is that at which it is said: the manager would take
// an earlier one for that of a reload before (sd_notify(3)).
func (s state) field() sdnotify.Field {
	switch s {
	case reloading:
		return sdnotify.Reloading()
	case stopping:
		return sdnotify.Stopping()
	default:
		return sdnotify.Ready()
	}
}

// minPing is the shortest time between two keep-alives, each of which is a turn of
// the loop.
const minPing = 10 * time.Millisecond

// A socket that refuses what is sent may be gone for good.
const (
	retryAfter = time.Second
	maxRetry   = time.Minute
)

// New connects to NOTIFY_SOCKET, if there is one. What is wrong with the environment is
// said in the log. Its owner closes it.
func New(env sdnotify.Environment, log *output.Log) *Manager {
	m := &Manager{
		log: log, retryAt: policy.Never,
		managed: env.SystemdExecPID == strconv.Itoa(os.Getpid()), sockets: env.FDStore != "", // it came with that version
	}
	client, err := sdnotify.New(env.NotifySocket)
	if err != nil {
		log.Warn(fmt.Sprintf("no notifications to the service manager: %v", err))
	}
	m.client = client
	interval, err := env.Watchdog()
	if err != nil {
		log.Warn(fmt.Sprintf("no watchdog: %v", err))
	}
	m.pingEvery = interval / 2
	switch {
	case interval == 0:
	case client == nil:
		m.pingEvery = 0
		log.Warn("no keep-alives, though WATCHDOG_USEC asks for them: there is no NOTIFY_SOCKET to send them to")
	case m.pingEvery < minPing:
		m.pingEvery = minPing
		log.Warn(fmt.Sprintf("the watchdog's interval of %s is too short: a keep-alive comes every %s; raise WatchdogSec= of the unit",
			interval, minPing))
	}
	return m
}

// Listens reports whether there is one.
func (m *Manager) Listens() bool { return m.client != nil }

// Managed reports whether systemd started this process itself (SYSTEMD_EXEC_PID): it then
// ends what is left if this process dies.
func (m *Manager) Managed() bool { return m.managed }

// PingEvery is half the watchdog's interval; 0 if there is no watchdog.
func (m *Manager) PingEvery() time.Duration { return m.pingEvery }

// SetStatus says STATUS=, in one line.
func (m *Manager) SetStatus(text string) { m.status, m.changed = text, true }

// Ready says READY=1.
func (m *Manager) Ready() { m.enter(ready) }

// Reloading says RELOADING=1. Ready is to follow, whatever comes of it: some systemd waits
// for it for ever.
func (m *Manager) Reloading() { m.enter(reloading) }

// Stopping says STOPPING=1, once: that the fleet is to stop, or stops.
func (m *Manager) Stopping() {
	if !m.stops {
		m.stops = true
		m.enter(stopping)
	}
}

// enter queues a state: of those that were not sent, the latest of each kind counts.
func (m *Manager) enter(s state) {
	m.states = append(slices.DeleteFunc(m.states, func(o state) bool { return o == s }), s)
}

// Extend asks for more time to start or to stop (EXTEND_TIMEOUT_USEC=).
func (m *Manager) Extend(by time.Duration) { m.extend = by }

// Ping says WATCHDOG=1.
func (m *Manager) Ping() { m.ping = true }

// RetryAt is when [Manager.Flush] is to be called again, because something could not be
// sent.
func (m *Manager) RetryAt() policy.Instant { return m.retryAt }

// ErrNoSockets is for a systemd that closes what it keeps on its only thread: the last
// close of a socket can block it (SO_LINGER, socket(7)), and with it the machine.
var ErrNoSockets = errors.New("it is a socket, and systemd is older than version 254")

// Keep has a copy of a descriptor kept under a name for the next master
// (FileDescriptorStoreMax=), if systemd runs this one. It does not block; an error is
// [ErrNoSockets], sdnotify.ErrFull or one of sendmsg(2).
func (m *Manager) Keep(name string, fd int, poll bool) error {
	switch {
	case !m.managed:
		return nil
	case !m.sockets && linux.IsSocket(fd):
		return ErrNoSockets
	}
	return m.client.StoreFD(name, fd, poll)
}

// Forget has all that is kept under a name closed. If that cannot be said, the next
// master gets it once more.
func (m *Manager) Forget(name string) {
	if m.managed {
		_ = m.client.RemoveFD(name)
	}
}

// Flush sends what has come up in a turn.
func (m *Manager) Flush(now policy.Instant) {
	m.retryAt = policy.Never
	for _, fields := range m.datagrams() {
		err := m.client.Send(fields...)
		if err == nil {
			m.states, m.troubles = m.states[min(1, len(m.states)):], 0 // each datagram has one, and none is said twice
			continue
		}
		m.retryAt = now.Add(m.retryIn(err))
		return
	}
	m.changed, m.extend, m.ping = false, 0, false
}

// retryIn is when to try again: soon if the manager only has to read, else ever
// less often.
func (m *Manager) retryIn(err error) time.Duration {
	if errors.Is(err, sdnotify.ErrFull) {
		return retryAfter
	}
	if m.troubles == 0 {
		m.log.Warn(fmt.Sprintf("%v; trying again", err))
	}
	m.troubles = min(m.troubles+1, 10)
	return min(retryAfter<<(m.troubles-1), maxRetry)
}

// datagrams puts states, of which no two must share one, each into one of its own. The
// last one has all that is to be said beside.
func (m *Manager) datagrams() (all [][]sdnotify.Field) {
	for _, s := range m.states {
		all = append(all, []sdnotify.Field{s.field()})
	}
	var fields []sdnotify.Field
	if m.changed {
		fields = append(fields, sdnotify.Status(m.status))
	}
	if m.extend > 0 {
		fields = append(fields, sdnotify.ExtendTimeout(m.extend))
	}
	if m.ping {
		fields = append(fields, sdnotify.Watchdog())
	}
	switch last := len(all) - 1; {
	case len(fields) == 0:
	case last < 0:
		all = append(all, fields)
	default:
		all[last] = append(fields, all[last]...)
	}
	return all
}

// Failed says why the program ends with an error and this exit status.
func (m *Manager) Failed(err error, code int) {
	var more []sdnotify.Field
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		more = append(more, sdnotify.Errno(errno))
	}
	m.Reject(err.Error(), code, more...)
}

// Reject says why there is nothing to run.
func (m *Manager) Reject(why string, code int, more ...sdnotify.Field) {
	fields := append(more, sdnotify.Status("failed: "+why), sdnotify.ExitStatus(code))
	_ = m.client.Send(fields...) // the log has it
}

// Close waits until the service manager has read what was sent: a datagram of
// a process that is gone cannot be attributed any more. It
// blocks for a second at most.
func (m *Manager) Close() {
	_ = m.client.Barrier(time.Second) // the manager may have gone; nothing depends on it
	_ = m.client.Close()
}
