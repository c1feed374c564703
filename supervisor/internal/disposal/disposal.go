// SPDX-License-Identifier: AGPL-3.0-or-later

// Package disposal drops the descriptors of strangers, which the loop must not do: the
// last close(2) of one can block for as long as its sender likes. A socket that lingers
// waits for a peer that does not read (SO_LINGER, socket(7)), a file for the process
// that serves its file system (FUSE).
//
// Each owner has a goroutine, with a thread of its own, while there is something to
// drop for it, and only so many owners at once: who makes others wait is one of
// them, and waits in line with the rest.
//
//	loop    Owner.Do, Owner.Close         at the end of each: Wake, then Owner.Idle and Holds
//	thread  one errand after the other    prodded by the loop, if one takes too long
package disposal

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
)

// Disposal is the place of all owners. Its methods are for the loop and do not block.
type Disposal struct {
	wake *poll.Wake

	mu      sync.Mutex
	placed  []*Owner // have a thread
	waiting []*Owner // for a place, in order
}

const (
	maxPlaces = 256

	// prodAfter is how long something may take to be dropped. A signal ends the wait of
	// SO_LINGER; what is left is sent nevertheless.
	prodAfter = time.Second
)

// New makes one that ends the wait of a poller whenever something has been dropped.
func New(wake *poll.Wake) *Disposal { return &Disposal{wake: wake} }

// Owner is for whom descriptors are dropped, in order. Its methods are for the loop and
// do not block; the fields are guarded by the room's lock.
type Owner struct {
	room *Disposal
	jobs []errand // the first is being done, if there is a thread
	held int      // descriptors of all jobs
	tid  int      // of the thread; 0: it has not begun

	prodAt fleet.Instant // when the first has taken too long
}

type errand struct {
	do  func()
	fds int
}

// Owner makes one for whom nothing is dropped yet.
func (d *Disposal) Owner() *Owner { return &Owner{room: d} }

// Close takes ownership of descriptors, and closes them.
func (e *Owner) Close(fds ...int) {
	if len(fds) > 0 {
		e.add(errand{func() {
			for _, fd := range fds {
				_ = unix.Close(fd) // not wanted
			}
		}, len(fds)})
	}
}

// Do calls a function that may block.
func (e *Owner) Do(f func()) { e.add(errand{do: f}) }

func (e *Owner) add(job errand) {
	d := e.room
	d.mu.Lock()
	defer d.mu.Unlock()
	e.jobs = append(e.jobs, job)
	e.held += job.fds
	switch {
	case len(e.jobs) > 1: // it has a place, or waits for one
	case len(d.placed) < maxPlaces:
		d.place(e)
		go d.work(e)
	default:
		d.waiting = append(d.waiting, e)
	}
}

// Idle reports whether all has been done.
func (e *Owner) Idle() bool {
	e.room.mu.Lock()
	defer e.room.mu.Unlock()
	return len(e.jobs) == 0
}

// Holds is how many descriptors wait to be closed.
func (e *Owner) Holds() int {
	e.room.mu.Lock()
	defer e.room.mu.Unlock()
	return e.held
}

// place is called with the lock held.
func (d *Disposal) place(e *Owner) {
	d.placed = append(d.placed, e)
	e.prodAt = poll.Now().Add(prodAfter)
}

// work is one thread's: it serves owners until none waits for a place.
func (d *Disposal) work(e *Owner) {
	runtime.LockOSThread() // prods go to a thread
	defer runtime.UnlockOSThread()
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; e != nil; e = d.next(e) {
		for e.tid = unix.Gettid(); len(e.jobs) > 0; {
			job := e.jobs[0]
			d.mu.Unlock()
			job.do()
			d.mu.Lock()
			e.jobs = e.jobs[1:]
			e.held -= job.fds
			e.prodAt = poll.Now().Add(prodAfter)
			d.wake.Up() // the lock is held: what the loop sees then is what is
		}
	}
}

// next gives the place of an owner to the one that has waited longest, if any. It is
// called with the lock held.
func (d *Disposal) next(done *Owner) *Owner {
	done.tid, done.jobs = 0, nil
	for i, e := range d.placed {
		if e == done {
			d.placed[i] = d.placed[len(d.placed)-1]
			d.placed = d.placed[:len(d.placed)-1]
			break
		}
	}
	if len(d.waiting) == 0 {
		return nil
	}
	e := d.waiting[0]
	d.waiting = d.waiting[1:]
	d.place(e)
	return e
}

// Due is when [Disposal.Prod] is to be called.
func (d *Disposal) Due() fleet.Instant {
	d.mu.Lock()
	defer d.mu.Unlock()
	due := fleet.Never
	for _, e := range d.placed {
		due = min(due, e.prodAt)
	}
	return due
}

// Prod interrupts what takes too long. SIGURG is what the runtime stops a goroutine
// with, and expects at any time.
func (d *Disposal) Prod(now fleet.Instant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.placed {
		if now < e.prodAt {
			continue
		}
		if e.tid != 0 {
			_ = unix.Tgkill(unix.Getpid(), e.tid, unix.SIGURG) // one of ours, if it has ended
		}
		e.prodAt = now.Add(prodAfter)
	}
}

// CloseSocket closes a socket to a process and makes it -1; it may be waited for in a
// source. The other side may have left descriptors in there, of which this could be the
// last close.
func (d *Disposal) CloseSocket(s poll.Source, fd *int) {
	switch {
	case *fd < 0:
	case linux.Drained(*fd):
		linux.CloseFD(fd)
	default:
		_ = s.Remove(*fd) // it may be in there
		d.Owner().Close(*fd)
		*fd = -1
	}
}
