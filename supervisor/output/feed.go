// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/policy"
)

// feed writes messages in a format to a pipe or a file. One goroutine writes, and may
// block. Who reads sets the pace, for a while: workers wait until what is queued has been
// taken, and when they have waited feedPatience, what they say is lost until then.
type feed struct {
	fd     int
	format format
	failed func(err error) // tells, once, that nothing can be written

	mu     sync.Mutex
	filled sync.Cond
	queue  []byte // about feedRoom at most
	notice notice // that is in the queue
	closed bool
	held   policy.Instant // since when messages have been held back; Never: they are not
	lossy  bool           // they are not any more: they are lost
	losses losses
	wake   func() // called when the queue has room again
	done   chan struct{}
}

const (
	feedRoom     = 256 << 10       // bytes
	feedOwn      = feedRoom / 8    // of these, for the master's own messages alone
	feedPatience = 5 * time.Second // less than most watchdogs have
)

func newFeed(fd int, f format, failed func(error)) *feed {
	n := &feed{fd: fd, format: f, failed: failed, held: policy.Never, wake: func() {}, done: make(chan struct{})}
	n.filled.L = &n.mu
	go n.write()
	return n
}

func (n *feed) say(m *message) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	room := feedRoom
	if m.stream != "" {
		room -= feedOwn
	}
	if n.lossy && m.stream != "" || len(n.queue) >= room {
		n.losses.add(1)
		return false
	}
	n.tellLost()
	n.queue = n.format(n.queue, m)
	n.filled.Signal()
	return true
}

// notice is that lines were lost: how many notices, of how many lines.
type notice struct{ notices, lines int64 }

// tellLost queues how many messages were lost; n.mu is held.
func (n *feed) tellLost() {
	if lost := n.losses.untold.Swap(0); lost > 0 {
		n.notice.notices, n.notice.lines = n.notice.notices+1, n.notice.lines+lost
		n.queue = n.format(n.queue, warning(fmt.Sprintf("%d lines were lost: nobody has read them in time", lost)))
	}
}

func (n *feed) busy() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lossy || len(n.queue) < feedRoom-feedOwn {
		return false
	}
	now := poll.Now()
	if n.held == policy.Never {
		n.held = now
	}
	n.lossy = now >= n.held.Add(feedPatience)
	return !n.lossy
}

func (n *feed) heldUntil() policy.Instant {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held == policy.Never || n.lossy {
		return policy.Never
	}
	return n.held.Add(feedPatience)
}

func (n *feed) whenDrained(call func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wake = call
}

func (n *feed) lost() int64 { return n.losses.all.Load() }

func (n *feed) write() {
	defer close(n.done)
	var batch []byte
	said := false
	for {
		var told notice
		if batch, told = n.take(batch[:0]); len(batch) == 0 {
			return
		}
		rest, err := writeAll(n.fd, batch)
		if err != nil {
			n.losses.add(max(int64(bytes.Count(rest, []byte{'\n'}))-told.notices, 0))
			n.losses.untold.Add(told.lines) // nobody has been told
			if !said {
				n.failed(err)
			}
		}
		said = err != nil
	}
}

// take waits for messages and returns all that there are; none are the end of them. The
// queue goes on with the memory of the batch that has been written.
func (n *feed) take(written []byte) (batch []byte, told notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lossy {
		n.tellLost()
	}
	for len(n.queue) == 0 && !n.closed {
		n.filled.Wait()
	}
	batch, n.queue = n.queue, written
	told, n.notice = n.notice, notice{}
	n.lossy = false
	if n.held != policy.Never {
		n.held = policy.Never
		n.wake()
	}
	return batch, told
}

// writeAll blocks until all is written, or nothing more can be: the rest is returned with
// an error.
func writeAll(fd int, text []byte) (rest []byte, err error) {
	for len(text) > 0 {
		n, err := unix.Write(fd, text)
		text = text[max(n, 0):]
		switch {
		case errors.Is(err, unix.EAGAIN): // somebody else has made it non-blocking
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1) // EINTR: once more
		case err != nil && !errors.Is(err, unix.EINTR):
			return text, err
		}
	}
	return nil, nil
}

func (n *feed) close() {
	n.mu.Lock()
	n.tellLost()
	n.closed = true
	n.filled.Signal()
	n.mu.Unlock()
	select {
	case <-n.done:
	case <-time.After(time.Second): // nobody reads; the program ends all the same
	}
}

// takesLines reports whether a descriptor is of what a feed is for: a pipe, a file or a
// socket. What is written to a device, such as /dev/null, need not pass through the master.
func takesLines(fd int) bool {
	var stat unix.Stat_t
	if unix.Fstat(fd, &stat) != nil {
		return false
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFIFO, unix.S_IFREG, unix.S_IFSOCK:
		return true
	}
	return false
}
