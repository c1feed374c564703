// SPDX-License-Identifier: AGPL-3.0-or-later

package poll

import (
	"os"
	"os/signal"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
)

// Signals passes signals on: the runtime delivers them to a channel, and a [Wake] ends
// the wait.
type Signals struct {
	in      chan os.Signal
	pending chan os.Signal // bounded; SIGCHLD is not in it
	beaten  atomic.Bool    // heartbeat has come
	wake    *Wake
	done    chan struct{} // closed when nothing is passed on any more

	// Terminal says that there is one that can hang up (SIGHUP).
	Terminal bool
}

// maxPending bounds the signals that wait to be taken.
const maxPending = 16

// heartbeat is the signal that the master sends itself before it tells the
// service manager that it is well. It comes back the way that every other signal
// takes, the end of a child too: kernel, runtime, goroutine, eventfd, epoll.
const heartbeat = unix.Signal(40)

// CatchSignals catches what the master must not die of. SIGPIPE is caught rather
// than ignored: ignoring would be inherited by workers. The default of SIGABRT
// and SIGQUIT stays: systemd's watchdog sends SIGABRT, and the runtime then
// prints what every goroutine was doing.
//
// A program that is started with SIGHUP or SIGINT ignored is to outlive the terminal
// (nohup(1)) or the Ctrl-C that is meant for another (a shell without job control, of
// a command in the background): they stay ignored. SIGTERM always stops the fleet.
//
// It is called by the thread that waits, which must be locked.
func CatchSignals(wake *Wake) *Signals {
	s := newSignals(wake)
	s.Terminal = hasTerminal()
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
	maskChild(unix.SIG_BLOCK)
	go s.pass()
	return s
}

// maskChild keeps SIGCHLD from the calling thread, or lets it come. It is for the process,
// and another thread has it then: the loop, which learns from pidfds who has ended, is not
// interrupted on its way to a successor (pthread_sigmask(3)).
func maskChild(how int) {
	var set unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGCHLD - 1)
	_ = unix.PthreadSigmask(how, &set, nil) // nothing but an invalid how makes it fail
}

func newSignals(wake *Wake) *Signals {
	return &Signals{
		in: make(chan os.Signal, maxPending), pending: make(chan os.Signal, maxPending), wake: wake, done: make(chan struct{}),
	}
}

func (s *Signals) pass() {
	defer close(s.done)
	for sig := range s.in {
		switch sig {
		case heartbeat:
			s.beaten.Store(true)
		case unix.SIGCHLD, unix.SIGPIPE:
		default:
			select {
			case s.pending <- sig:
			default: // as many as are kept are waiting; one more changes nothing
			}
		}
		s.wake.Up()
	}
}

// Next returns a signal that has come, SIGCHLD apart. It does not block.
func (s *Signals) Next() (sig unix.Signal, ok bool) {
	select {
	case sig := <-s.pending:
		return sig.(unix.Signal), true
	default:
		return 0, false
	}
}

// Beat sends the heartbeat.
func (s *Signals) Beat() error {
	return os.NewSyscallError("kill", unix.Kill(os.Getpid(), heartbeat))
}

// Beaten reports, once, that the heartbeat has come back.
func (s *Signals) Beaten() bool { return s.beaten.CompareAndSwap(true, false) }

// Close gives the signals back to the runtime. It blocks until none is passed on any
// more.
func (s *Signals) Close() {
	maskChild(unix.SIG_UNBLOCK)
	signal.Stop(s.in)
	close(s.in)
	<-s.done
}

// hasTerminal reports whether this process has a controlling terminal. It must be
// asked before that hangs up: then there is none any more.
func hasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false // ENXIO (tty(4))
	}
	linux.CloseFD(&fd)
	return true
}
