// SPDX-License-Identifier: AGPL-3.0-or-later

// Package errands does what can block, for the loop, which must not: it closes the
// descriptors of strangers, and reads their files. The last close(2) of a descriptor can
// block for as long as its sender likes. A socket that lingers waits for a peer that does
// not read (SO_LINGER, socket(7)), a file for the process that serves its file system
// (FUSE).
//
// Each owner has a goroutine, with a thread of its own, while there is something to
// do for it, and only so many owners at once: who makes others wait is one of
// them, and waits in line with the rest.
//
//	loop    Owner.Do, Owner.Close         at the end of each: Wake, then Owner.Idle and Holds
//	thread  one errand after the other    prodded by the loop, if one takes too long
package errands

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/policy"
)

// Pool has the threads of all owners. Its methods are for the loop and do not block.
type Pool struct {
	wake *poll.Wake

	mu      sync.Mutex
	placed  []*Owner // have a thread
	waiting []*Owner // for a place, in order
}

const (
	maxPlaces = 256

	// prodAfter is how long something may take. A signal ends the wait of
	// SO_LINGER; what is left is sent nevertheless.
	prodAfter = time.Second
)

// New makes one that ends the wait of a poller whenever something has been done.
func New(wake *poll.Wake) *Pool { return &Pool{wake: wake} }

// Owner is for whom something is done, in order. Its methods are for the loop and do not
// block; the fields are guarded by the pool's lock.
type Owner struct {
	pool *Pool
	jobs []errand // the first is being done, if there is a thread
	held int      // descriptors of all jobs
	tid  int      // of the thread; 0: it has not begun

	prodAt policy.Instant // when the first has taken too long
}

type errand struct {
	do  func()
	fds int
}

// Owner makes one for whom nothing is to be done yet.
func (p *Pool) Owner() *Owner { return &Owner{pool: p} }

// Close takes ownership of descriptors, and closes them.
func (o *Owner) Close(fds ...int) {
	if len(fds) > 0 {
		o.add(errand{func() {
			for _, fd := range fds {
				_ = unix.Close(fd) // not wanted
			}
		}, len(fds)})
	}
}

// Do calls a function that may block.
func (o *Owner) Do(f func()) { o.add(errand{do: f}) }

func (o *Owner) add(job errand) {
	p := o.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	o.jobs = append(o.jobs, job)
	o.held += job.fds
	switch {
	case len(o.jobs) > 1: // it has a place, or waits for one
	case len(p.placed) < maxPlaces:
		p.place(o)
		go p.work(o)
	default:
		p.waiting = append(p.waiting, o)
	}
}

// Idle reports whether all has been done.
func (o *Owner) Idle() bool {
	o.pool.mu.Lock()
	defer o.pool.mu.Unlock()
	return len(o.jobs) == 0
}

// Holds is how many descriptors wait to be closed.
func (o *Owner) Holds() int {
	o.pool.mu.Lock()
	defer o.pool.mu.Unlock()
	return o.held
}

// place is called with the lock held.
func (p *Pool) place(e *Owner) {
	p.placed = append(p.placed, e)
	e.prodAt = poll.Now().Add(prodAfter)
}

// work is one thread's: it serves owners until none waits for a place.
func (p *Pool) work(e *Owner) {
	runtime.LockOSThread() // prods go to a thread
	defer runtime.UnlockOSThread()
	p.mu.Lock()
	defer p.mu.Unlock()
	for ; e != nil; e = p.next(e) {
		for e.tid = unix.Gettid(); len(e.jobs) > 0; {
			job := e.jobs[0]
			p.mu.Unlock()
			job.do()
			p.mu.Lock()
			e.jobs = e.jobs[1:]
			e.held -= job.fds
			e.prodAt = poll.Now().Add(prodAfter)
			p.wake.Up() // the lock is held: what the loop sees then is what is
		}
	}
}

// next gives the place of an owner to the one that has waited longest, if any. It is
// called with the lock held.
func (p *Pool) next(done *Owner) *Owner {
	done.tid, done.jobs = 0, nil
	for i, e := range p.placed {
		if e == done {
			p.placed[i] = p.placed[len(p.placed)-1]
			p.placed = p.placed[:len(p.placed)-1]
			break
		}
	}
	if len(p.waiting) == 0 {
		return nil
	}
	e := p.waiting[0]
	p.waiting = p.waiting[1:]
	p.place(e)
	return e
}

// Due is when [Pool.Prod] is to be called.
func (p *Pool) Due() policy.Instant {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := policy.Never
	for _, e := range p.placed {
		due = min(due, e.prodAt)
	}
	return due
}

// Prod interrupts what takes too long. SIGURG is what the runtime stops a goroutine
// with, and expects at any time.
func (p *Pool) Prod(now policy.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.placed {
		if now < e.prodAt {
			continue
		}
		if e.tid != 0 {
			_ = unix.Tgkill(unix.Getpid(), e.tid, unix.SIGURG) // ESRCH: the thread has ended
		}
		e.prodAt = now.Add(prodAfter)
	}
}

// CloseSocket closes a socket to a process and makes it -1; it may be waited for in a
// source. The other side may have left descriptors in there, of which this could be the
// last close.
func (p *Pool) CloseSocket(s poll.Source, fd *int) {
	switch {
	case *fd < 0:
	case linux.Drained(*fd):
		linux.CloseFD(fd)
	default:
		_ = s.Remove(*fd) // ENOENT: it is not polled
		p.Owner().Close(*fd)
		*fd = -1
	}
}
