// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
)

// pipe is what one process says on its standard output, error or both, until
// everybody who holds the other end has closed it.
type pipe struct {
	fd   int
	name string
	to   *terminal
	rest []byte // an unfinished line
}

// pipes read the output of workers for terminals. Where standard output or
// error is none, workers inherit it from the master.
type pipes struct {
	stdout, stderr *terminal // one and the same, if they are the same terminal
	source         poll.Source
	byID           map[uint64]*pipe
	last           uint64
	paused         bool // a terminal is busy: workers feel it, the master does not
}

// maxLine is the longest line in bytes that is kept together.
const maxLine = 8192

// terminals are where standard output and error go; nil for what is none.
func terminals(log *Log) (stdout, stderr *terminal) {
	switch {
	case !isTerminal(1):
		return nil, log.terminal
	case sameDevice(1, 2):
		return log.terminal, log.terminal
	}
	return newTerminal(os.Stdout, columnsOf(1)), log.terminal
}

func newPipes(stdout, stderr *terminal, source poll.Source, wake *poll.Wake) *pipes {
	t := &pipes{stdout: stdout, stderr: stderr, source: source, byID: map[uint64]*pipe{}}
	for _, screen := range []*terminal{t.stdout, t.stderr} {
		if screen != nil {
			screen.drained.Store(new(wake.Up))
		}
	}
	return t
}

// sameDevice reports whether two descriptors are of the same terminal.
func sameDevice(a, b int) bool {
	var one, other unix.Stat_t
	return unix.Fstat(a, &one) == nil && unix.Fstat(b, &other) == nil && one.Rdev == other.Rdev
}

// open returns the ends of pipes for a process of that name to write to, the same one
// twice if all goes to one terminal, and -1 for what is none. The caller closes them
// when they have been handed down.
func (t *pipes) open(name string) (stdout, stderr int, err error) {
	if stdout, err = t.openOne(name, t.stdout); err != nil {
		return -1, -1, err
	}
	if t.stdout == t.stderr {
		return stdout, stdout, nil
	}
	if stderr, err = t.openOne(name, t.stderr); err != nil {
		linux.CloseFD(&stdout)
	}
	return stdout, stderr, err
}

func (t *pipes) openOne(name string, to *terminal) (int, error) {
	if to == nil {
		return -1, nil
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return -1, fmt.Errorf("output of %s: %w", name, os.NewSyscallError("pipe2", err))
	}
	// Who writes can read, too (/proc/self/fd/1), and be faster: an end that blocks would
	// then wait for it. O_NONBLOCK is of this end alone.
	if err := unix.SetNonblock(ends[0], true); err != nil {
		linux.CloseFD(&ends[0])
		linux.CloseFD(&ends[1])
		return -1, fmt.Errorf("output of %s: %w", name, os.NewSyscallError("fcntl", err))
	}
	t.last++
	o := &pipe{fd: ends[0], name: name, to: to}
	if !t.paused { // else with the others
		if err := t.source.Add(o.fd, t.last); err != nil {
			linux.CloseFD(&ends[0])
			linux.CloseFD(&ends[1])
			return -1, err
		}
	}
	t.byID[t.last] = o
	return ends[1], nil
}

// readable reads once from one pipe.
func (t *pipes) readable(id uint64) {
	o := t.byID[id]
	if o == nil || t.paused {
		return
	}
	buf := make([]byte, maxLine)
	n, err := unix.Read(o.fd, buf)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return // what there was, another has read; or it is there next time
	}
	if n <= 0 || err != nil {
		t.finish(id)
		return
	}
	o.rest = append(o.rest, buf[:n]...)
	if !t.lines(o) {
		t.pause()
	}
}

// lines passes whole lines on, and what is too long for one in pieces. It
// returns false if some are left because the terminal is busy.
func (t *pipes) lines(o *pipe) bool {
	for {
		end := bytes.IndexByte(o.rest, '\n')
		next := end + 1
		switch {
		case end < 0 && len(o.rest) < maxLine:
			return true
		case o.to.busy():
			return false
		case end < 0 || end > maxLine:
			end = wholeRunes(o.rest[:maxLine])
			next = end
		}
		o.to.line(o.name, append(harmless(o.rest[:end:end]), '\n'))
		o.rest = o.rest[next:]
	}
}

// wholeRunes is the length of text without a character that its end has cut.
func wholeRunes(text []byte) int {
	for n := len(text) - 1; n >= max(1, len(text)-utf8.UTFMax); n-- {
		if utf8.RuneStart(text[n]) {
			if utf8.FullRune(text[n:]) {
				return len(text)
			}
			return n
		}
	}
	return len(text) // it is not UTF-8
}

func (t *pipes) finish(id uint64) {
	o := t.byID[id]
	if len(o.rest) > 0 {
		o.to.line(o.name, append(harmless(o.rest), '\n'))
	}
	linux.CloseFD(&o.fd)
	delete(t.byID, id)
}

// pause leaves the pipes alone until the terminal has taken what it has.
func (t *pipes) pause() {
	t.paused = true
	for _, o := range t.byID {
		_ = t.source.Remove(o.fd) // the poller has it: this cannot fail
	}
}

// resume reads again, if the terminal has taken what was left.
func (t *pipes) resume() {
	if !t.paused {
		return
	}
	for _, o := range t.byID {
		if !t.lines(o) {
			return // busy again
		}
	}
	t.paused = false
	for id, o := range t.byID {
		_ = t.source.Add(o.fd, id) // the poller had it before: this cannot fail
	}
}

// close shows what is in the pipes and closes them. It blocks for a second at
// most: what the terminal has not taken then is lost.
func (t *pipes) close() {
	deadline := time.Now().Add(time.Second)
	for id, o := range t.byID {
		buf := make([]byte, 1<<16) // all that a pipe holds
		if n, err := unix.Read(o.fd, buf); err == nil {
			o.rest = append(o.rest, buf[:max(n, 0)]...)
		}
		for !t.lines(o) && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if lost := bytes.Count(o.rest, []byte{'\n'}); lost > 0 {
			o.to.dropped.Add(int64(lost))
			o.rest = nil
		}
		t.finish(id)
	}
	if t.stdout != nil && t.stdout != t.stderr {
		t.stdout.close()
	}
}
