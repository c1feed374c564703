// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
)

// disposal drops the descriptors of strangers, which the loop must not do: the last
// close(2) of one can block for as long as its sender likes. A socket that lingers
// waits for a peer that does not read (SO_LINGER, socket(7)), a file for the process
// that serves its file system (FUSE).
//
// Each owner has a goroutine, with a thread of its own, while there is something to
// drop for it, and only so many owners at once: who makes others wait is one of
// them, and waits in line with the rest.
//
//	loop    errands.do, errands.close      at the end: Wake, errands.waits is false
//	thread  one errand after the other     prodded by the loop, if one takes too long
type disposal struct {
	wake *poll.Wake

	mu      sync.Mutex
	placed  []*errands // have a thread
	waiting []*errands // for a place, in order
}

const (
	mostDisposers = 256

	// prodAfter is how long something may take to be dropped. A signal ends the wait of
	// SO_LINGER; what is left is sent nevertheless.
	prodAfter = time.Second

	// mostHeld is how many descriptors of one slot may wait to be closed before it is
	// not heard any more.
	mostHeld = 64
)

func newDisposal(wake *poll.Wake) *disposal { return &disposal{wake: wake} }

// errands are what is to be dropped for one owner, in order. The methods are for the
// loop and do not block; the fields are guarded by the room's lock.
type errands struct {
	room *disposal
	jobs []errand // the first is being done, if there is a thread
	held int      // descriptors of all jobs
	tid  int      // of the thread; 0: it has not begun

	prodAt fleet.Instant // when the first has taken too long
}

type errand struct {
	do  func()
	fds int
}

func (d *disposal) owner() *errands { return &errands{room: d} }

// close takes ownership of descriptors, and closes them.
func (e *errands) close(fds ...int) {
	if len(fds) > 0 {
		e.add(errand{func() {
			for _, fd := range fds {
				_ = unix.Close(fd) // not wanted
			}
		}, len(fds)})
	}
}

// do calls a function that may block.
func (e *errands) do(f func()) { e.add(errand{do: f}) }

func (e *errands) add(job errand) {
	d := e.room
	d.mu.Lock()
	defer d.mu.Unlock()
	e.jobs = append(e.jobs, job)
	e.held += job.fds
	switch {
	case len(e.jobs) > 1: // it has a place, or waits for one
	case len(d.placed) < mostDisposers:
		d.place(e)
		go d.work(e)
	default:
		d.waiting = append(d.waiting, e)
	}
}

// idle tells whether all has been done.
func (e *errands) idle() bool {
	e.room.mu.Lock()
	defer e.room.mu.Unlock()
	return len(e.jobs) == 0
}

// holds is how many descriptors wait to be closed.
func (e *errands) holds() int {
	e.room.mu.Lock()
	defer e.room.mu.Unlock()
	return e.held
}

// place is called with the lock held.
func (d *disposal) place(e *errands) {
	d.placed = append(d.placed, e)
	e.prodAt = poll.Now().Add(prodAfter)
}

// work is one thread's: it serves owners until none waits for a place.
func (d *disposal) work(e *errands) {
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
func (d *disposal) next(done *errands) *errands {
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

// due is when prod is to be called.
func (d *disposal) due() fleet.Instant {
	d.mu.Lock()
	defer d.mu.Unlock()
	due := fleet.Never
	for _, e := range d.placed {
		due = min(due, e.prodAt)
	}
	return due
}

// prod interrupts what takes too long. SIGURG is what the runtime stops a goroutine
// with, and expects at any time.
func (d *disposal) prod(now fleet.Instant) {
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

// closeSocket closes a gate or the socket of a floor. The other side may have left
// descriptors in there, of which this could be the last close.
func (m *master) closeSocket(fd *int) {
	switch {
	case *fd < 0:
	case linux.Drained(*fd):
		linux.CloseFD(fd)
	default:
		_ = m.poller.Source(gates).Remove(*fd) // it may be in there
		m.disposal.owner().close(*fd)
		*fd = -1
	}
}
