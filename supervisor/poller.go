// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// source says what a descriptor that has become readable belongs to.
type source uint8

const (
	wakeups     source = iota // a signal came, or the terminal takes lines again
	deaths                    // the pidfd of a process
	gates                     // the gate of a process
	commands                  // the socket of a floor
	outputs                   // the output of a worker
	notices                   // the notify socket of a slot
	storedFDs                 // a descriptor that a slot has stored
	connections               // a socket of a worker that is started on demand
	groupEvents               // the control group of a process that has ended
	sourceEnd                 // how many there are
)

// token is what epoll returns with an event: a source, and the process, the
// slot, the output or the descriptor that it is about.
type token uint64

func newToken(s source, id uint64) token { return token(uint64(s)<<56 | id) }
func (t token) source() source           { return source(t >> 56) }
func (t token) id() uint64               { return uint64(t) & (1<<56 - 1) }

// poller waits for descriptors, all level-triggered. A descriptor leaves it when
// it is closed, unless others hold the same open file: it must then be removed
// before.
type poller struct {
	epfd   int
	events [1024]unix.EpollEvent // what all slots said is to be heard before any is judged
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &poller{epfd: fd}, nil
}

// add waits for fd to become readable.
func (p *poller) add(fd int, t token) error { return p.addFor(fd, t, unix.EPOLLIN) }

// addFor waits for these events, and for EPOLLHUP and EPOLLERR in any case
// (epoll_ctl(2)).
func (p *poller) addFor(fd int, t token, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(uint64(t)), Pad: int32(uint64(t) >> 32)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, fd, &ev))
}

// rename changes what fd, which is in there for reading, is reported as.
func (p *poller) rename(fd int, t token) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(uint64(t)), Pad: int32(uint64(t) >> 32)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epfd, unix.EPOLL_CTL_MOD, fd, &ev))
}

func (p *poller) remove(fd int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epfd, unix.EPOLL_CTL_DEL, fd, nil))
}

// wait blocks until a descriptor is readable or the time has come. It rounds up
// to whole milliseconds, so that a deadline has passed when it returns for one.
func (p *poller) wait(until, now fleet.Instant) []token {
	n, err := unix.EpollWait(p.epfd, p.events[:], timeout(until, now))
	if err != nil && !errors.Is(err, unix.EINTR) {
		panic(os.NewSyscallError("epoll_wait", err)) // a programmer's mistake
	}
	tokens := make([]token, max(n, 0))
	for i := range tokens {
		ev := &p.events[i]
		tokens[i] = token(uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32)
	}
	return tokens
}

func timeout(until, now fleet.Instant) int {
	const most = 24 * time.Hour // far below what the argument can hold
	switch {
	case until == fleet.Never:
		return -1
	case until <= now:
		return 0
	default:
		return int((min(until.Sub(now), most) + time.Millisecond - 1) / time.Millisecond)
	}
}

// signals passes signals on to the loop: the runtime delivers them to a
// channel, and an eventfd(2) wakes epoll.
type signals struct {
	in      chan os.Signal
	pending chan os.Signal // bounded; SIGCHLD is not in it
	beaten  atomic.Bool    // heartbeat has come
	wake    *wakeup
	done    chan struct{} // closed when nothing is passed on any more

	terminal bool // there is one that can hang up (SIGHUP)
}

// heartbeat is the signal that the master sends itself before it tells the
// service manager that it is well. It comes back the way that every other signal
// takes, the end of a child too: kernel, runtime, goroutine, eventfd, epoll.
const heartbeat = unix.Signal(40)

// beat sends the heartbeat. taken tells, once, that it has come back.
func (s *signals) beat() error {
	return os.NewSyscallError("kill", unix.Kill(os.Getpid(), heartbeat))
}

func (s *signals) taken() bool { return s.beaten.CompareAndSwap(true, false) }

// newSignals catches what the master must not die of. SIGPIPE is caught rather
// than ignored: ignoring would be inherited by workers. The default of SIGABRT
// and SIGQUIT stays: systemd's watchdog sends SIGABRT, and the runtime then
// prints what every goroutine was doing.
//
// Who starts a program with SIGHUP or SIGINT ignored wants it to outlive the
// terminal (nohup(1)) or the Ctrl-C that is meant for another (a shell without
// job control, of a command in the background): they stay ignored. SIGTERM always
// stops the fleet.
func newSignals(wake *wakeup) *signals {
	s := &signals{
		in: make(chan os.Signal, 16), pending: make(chan os.Signal, 16), wake: wake, done: make(chan struct{}),
		terminal: hasTerminal(),
	}
	caught := []os.Signal{heartbeat, unix.SIGCHLD, unix.SIGTERM, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2}
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT} {
		if !signal.Ignored(sig) {
			caught = append(caught, sig)
		}
	}
	if signal.Ignored(unix.SIGINT) {
		// Such a shell ignores SIGQUIT with it; the runtime does not tell, and
		// has put its own handler there.
		signal.Ignore(unix.SIGQUIT)
	}
	signal.Notify(s.in, caught...)
	go s.pass()
	return s
}

func (s *signals) pass() {
	defer close(s.done)
	for sig := range s.in {
		switch sig {
		case heartbeat:
			s.beaten.Store(true)
		case unix.SIGCHLD, unix.SIGPIPE:
		default:
			select {
			case s.pending <- sig:
			default: // sixteen are waiting; one more changes nothing
			}
		}
		s.wake.up()
	}
}

func (s *signals) close() {
	signal.Stop(s.in)
	close(s.in)
	<-s.done
}

// hasTerminal tells whether this process has a controlling terminal. It must be
// asked before that hangs up: then there is none any more.
func hasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false // ENXIO (tty(4))
	}
	closeFD(&fd)
	return true
}

// wakeup is an eventfd(2). up may be called from any goroutine, also after
// close.
type wakeup struct {
	mu sync.Mutex
	fd int
}

func newWakeup() (*wakeup, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &wakeup{fd: fd}, nil
}

func (w *wakeup) up() {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := [8]byte{1}
	_, _ = unix.Write(w.fd, one[:]) // EAGAIN: it is up; EBADF: it was closed
}

func (w *wakeup) clear() {
	var count [8]byte
	_, _ = unix.Read(w.fd, count[:]) // EAGAIN: it was not up
}

func (w *wakeup) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	closeFD(&w.fd)
}

func monotonic() fleet.Instant { return fleet.Instant(linux.Monotonic()) }
