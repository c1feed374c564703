// SPDX-License-Identifier: AGPL-3.0-or-later

// Package poll waits for descriptors, signals and other goroutines, in one place.
//
//	descriptors ── Source.Add ──> epoll(7) <── Wake: eventfd(2) <── goroutines
//	                                 │              ^
//	                             Poller.Wait        └── Signals <── the runtime
//
// A [Poller] and what it waits for belong to one goroutine. [Wake.Up] is for all.
package poll

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/policy"
)

// Now is the time of CLOCK_MONOTONIC.
func Now() policy.Instant { return policy.Instant(linux.Monotonic()) }

// Kind says what a descriptor is for the reader of events. Events come in the order of
// their kinds.
type Kind uint8

// Event is that a descriptor has become ready.
type Event struct {
	Kind Kind
	ID   uint64 // as it was given to [Source.Add]; below 1<<56
}

// token is what epoll keeps of an event.
type token uint64

func tokenOf(e Event) token  { return token(uint64(e.Kind)<<56 | e.ID) }
func (t token) event() Event { return Event{Kind(t >> 56), uint64(t) & (1<<56 - 1)} }
func (t token) low() int32   { return int32(uint64(t)) }
func (t token) high() int32  { return int32(uint64(t) >> 32) }
func tokenAt(ev *unix.EpollEvent) token {
	return token(uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32)
}

// Poller waits for descriptors, all level-triggered. A descriptor leaves it when
// it is closed, unless others hold the same open file: it must then be removed
// before.
type Poller struct {
	epfd   int
	wake   *Wake
	wakes  Kind
	events [1024]unix.EpollEvent // what all slots said is to be heard before any is judged
}

// New makes a poller, and what wakes it up: an event of that kind, with id 0. Its owner
// closes it.
func New(wakes Kind) (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	p := &Poller{epfd: fd, wakes: wakes, wake: &Wake{fd: -1}}
	if p.wake.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		p.Close()
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err := p.Source(wakes).Add(p.wake.fd, 0); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Wake is with what other goroutines end a wait.
func (p *Poller) Wake() *Wake { return p.wake }

// Close ends the waiting. It closes none of the descriptors that are waited for.
func (p *Poller) Close() {
	p.wake.close()
	linux.CloseFD(&p.epfd)
}

// Source is through which one room waits for its descriptors: events of one kind.
type Source struct {
	poller *Poller
	kind   Kind
}

// Source returns that of a kind.
func (p *Poller) Source(kind Kind) Source { return Source{p, kind} }

// Add waits for fd to become readable.
func (s Source) Add(fd int, id uint64) error { return s.AddFor(fd, id, unix.EPOLLIN) }

// AddFor waits for these events, and for EPOLLHUP and EPOLLERR in any case
// (epoll_ctl(2)).
func (s Source) AddFor(fd int, id uint64, events uint32) error {
	return s.control(unix.EPOLL_CTL_ADD, fd, id, events)
}

// Rename changes the id of fd, which is waited for to become readable.
func (s Source) Rename(fd int, id uint64) error {
	return s.control(unix.EPOLL_CTL_MOD, fd, id, unix.EPOLLIN)
}

func (s Source) control(op, fd int, id uint64, events uint32) error {
	t := tokenOf(Event{s.kind, id})
	ev := unix.EpollEvent{Events: events, Fd: t.low(), Pad: t.high()}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(s.poller.epfd, op, fd, &ev))
}

// Remove waits for fd no more.
func (s Source) Remove(fd int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(s.poller.epfd, unix.EPOLL_CTL_DEL, fd, nil))
}

// Wait blocks until a descriptor is ready or the time has come, and returns what is
// ready: by kind, and within a kind in the order in which it became so. It rounds up to
// whole milliseconds, so that a deadline has passed when it returns for one. What was said
// before a [Wake.Up] is to be looked at after it.
func (p *Poller) Wait(until, now policy.Instant) []Event {
	n, err := unix.EpollWait(p.epfd, p.events[:], timeout(until, now))
	if err != nil && !errors.Is(err, unix.EINTR) {
		panic(os.NewSyscallError("epoll_wait", err)) // a programmer's mistake
	}
	ready := make([]Event, max(n, 0))
	for i := range ready {
		ready[i] = tokenAt(&p.events[i]).event()
		if ready[i].Kind == p.wakes {
			p.wake.clear()
		}
	}
	slices.SortStableFunc(ready, func(a, b Event) int { return cmp.Compare(a.Kind, b.Kind) })
	return ready
}

func timeout(until, now policy.Instant) int {
	const longest = 24 * time.Hour // far below what the argument can hold
	switch {
	case until == policy.Never:
		return -1
	case until <= now:
		return 0
	default:
		return int((min(until.Sub(now), longest) + time.Millisecond - 1) / time.Millisecond)
	}
}

// Wake is an eventfd(2).
type Wake struct {
	mu sync.Mutex
	fd int
}

// Up may be called from any goroutine, also after [Poller.Close]. It does not block.
func (w *Wake) Up() {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := [8]byte{1}
	_, _ = unix.Write(w.fd, one[:]) // EAGAIN: it is up; EBADF: it was closed
}

// clear makes it ready to be woken again.
func (w *Wake) clear() {
	var count [8]byte
	_, _ = unix.Read(w.fd, count[:]) // EAGAIN: it was not up
}

func (w *Wake) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	linux.CloseFD(&w.fd)
}
