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
	"github.com/decnet/prefork/supervisor/policy"
)

// pipe is what one process says on its standard output, error or both, until
// everybody who holds the other end has closed it.
type pipe struct {
	fd      int
	author  Author
	stream  string
	to      sink
	rest    []byte // an unfinished line
	follows bool   // it is not the beginning of its line
}

// pipes read the output of workers, where it is to have the name of its author: for
// terminals and feeds. Where standard output or error is neither, workers inherit it from
// the master.
type pipes struct {
	stdout, stderr sink // one and the same, if they go to the same place
	one            bool // a terminal: it need not be known which of both it was
	source         poll.Source
	byID           map[uint64]*pipe
	last           uint64
	held           map[sink]bool // those that are busy: workers feel it, the master does not
	buf            [maxLine]byte
}

// maxLine is the longest line in bytes that is kept together.
const maxLine = 8192

// The streams.
const (
	stdoutName = "stdout"
	stderrName = "stderr"
)

// sinks are what standard output and error go through; nil for what is inherited.
func sinks(log *Log) (stdout, stderr sink) {
	stderr = log.sink
	switch {
	case isTerminal(1):
		if isTerminal(2) && sameDevice(1, 2) {
			return stderr, stderr
		}
		return newTerminal(os.Stdout, columnsOf(1)), stderr
	case log.newFormat == nil || !takesLines(1):
		return nil, stderr
	case log.feeds() && sameInode(1, 2):
		return stderr, stderr
	}
	return newFeed(1, log.newFormat(), func(err error) {
		log.Warn(fmt.Sprintf("standard output: write: %v; lines are lost", err))
	}), stderr
}

func newPipes(stdout, stderr sink, source poll.Source, wake *poll.Wake) *pipes {
	t := &pipes{stdout: stdout, stderr: stderr, source: source, byID: map[uint64]*pipe{}, held: map[sink]bool{}}
	_, screen := stdout.(*terminal)
	t.one = screen && stdout == stderr
	for _, to := range t.sinks() {
		to.whenDrained(wake.Up)
	}
	return t
}

// sinks are those that there are.
func (t *pipes) sinks() (all []sink) {
	if t.stdout != nil {
		all = append(all, t.stdout)
	}
	if t.stderr != nil && t.stderr != t.stdout {
		all = append(all, t.stderr)
	}
	return all
}

// sameDevice reports whether two descriptors are of the same terminal.
func sameDevice(a, b int) bool {
	var one, other unix.Stat_t
	return unix.Fstat(a, &one) == nil && unix.Fstat(b, &other) == nil && one.Rdev == other.Rdev
}

// sameInode reports whether two descriptors are of the same pipe, file or socket.
func sameInode(a, b int) bool {
	var one, other unix.Stat_t
	return unix.Fstat(a, &one) == nil && unix.Fstat(b, &other) == nil && one.Dev == other.Dev && one.Ino == other.Ino
}

// open returns the ends of pipes for a process to write to, the same one twice if all
// goes to one terminal, and -1 for what is inherited. The caller closes them when they have
// been handed down.
func (t *pipes) open(author Author) (stdout, stderr int, err error) {
	if stdout, err = t.openOne(author, stdoutName, t.stdout); err != nil {
		return -1, -1, err
	}
	if t.one {
		return stdout, stdout, nil
	}
	if stderr, err = t.openOne(author, stderrName, t.stderr); err != nil {
		linux.CloseFD(&stdout)
	}
	return stdout, stderr, err
}

func (t *pipes) openOne(author Author, stream string, to sink) (int, error) {
	if to == nil {
		return -1, nil
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return -1, fmt.Errorf("output of %s: %w", author.Name, os.NewSyscallError("pipe2", err))
	}
	// Who writes can read, too (/proc/self/fd/1), and be faster: an end that blocks would
	// then wait for it. O_NONBLOCK is of this end alone.
	if err := unix.SetNonblock(ends[0], true); err != nil {
		linux.CloseFD(&ends[0])
		linux.CloseFD(&ends[1])
		return -1, fmt.Errorf("output of %s: %w", author.Name, os.NewSyscallError("fcntl", err))
	}
	t.last++
	o := &pipe{fd: ends[0], author: author, stream: stream, to: to}
	if !t.held[to] { // else with the others
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
	if o == nil || t.held[o.to] {
		return
	}
	n, err := unix.Read(o.fd, t.buf[:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return // what there was, another has read; or it is there next time
	}
	if n <= 0 || err != nil {
		t.finish(id)
		return
	}
	if !o.take(t.buf[:n]) {
		t.hold(o.to)
	}
}

// take passes on what is whole of what has been read, and keeps the rest. It returns false
// if that is there because the sink is busy.
func (o *pipe) take(read []byte) bool {
	if len(o.rest) > 0 {
		o.rest = append(o.rest, read...)
		return o.lines()
	}
	o.rest = read
	done := o.lines()
	o.rest = bytes.Clone(o.rest) // the buffer is for all
	return done
}

// lines passes whole lines on, and what is too long for one in pieces. It
// returns false if some are left because the sink is busy.
func (o *pipe) lines() bool {
	for {
		end := bytes.IndexByte(o.rest, '\n')
		next, partial := end+1, false
		switch {
		case end < 0 && len(o.rest) < maxLine:
			return true
		case o.to.busy():
			return false
		case end < 0 || end > maxLine:
			end = wholeRunes(o.rest[:maxLine])
			next, partial = end, true
		}
		o.say(o.rest[:end:end], partial)
		o.rest = o.rest[next:]
	}
}

// say passes on a line, or a piece of one.
func (o *pipe) say(text []byte, partial bool) {
	if !partial {
		text = bytes.TrimSuffix(text, []byte{'\r'}) // of CR LF
	}
	o.to.say(&message{at: time.Now(), author: o.author, stream: o.stream, text: text, partial: partial, follows: o.follows})
	o.follows = partial
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
		o.say(o.rest, false)
	}
	linux.CloseFD(&o.fd)
	delete(t.byID, id)
}

// hold leaves the pipes alone that go to a sink, until that has taken what it has.
func (t *pipes) hold(to sink) {
	t.held[to] = true
	for _, o := range t.byID {
		if o.to == to {
			_ = t.source.Remove(o.fd) // the poller has it: this cannot fail
		}
	}
}

// heldUntil is when the first of what is held back is lost rather than waited for.
func (t *pipes) heldUntil() policy.Instant {
	until := policy.Never
	for to := range t.held {
		until = min(until, to.heldUntil())
	}
	return until
}

// resume reads again, where a sink has taken what was left, or is not waited for any more.
func (t *pipes) resume() {
	for to := range t.held {
		t.resumeTo(to)
	}
}

func (t *pipes) resumeTo(to sink) {
	for _, o := range t.byID {
		if o.to == to && !o.lines() {
			return // busy again
		}
	}
	delete(t.held, to)
	for id, o := range t.byID {
		if o.to == to {
			_ = t.source.Add(o.fd, id) // the poller had it before: this cannot fail
		}
	}
}

// close passes on what is in the pipes and closes them. It blocks for a second at
// most: what the sinks have not taken then is lost.
func (t *pipes) close() {
	deadline := time.Now().Add(time.Second)
	for id, o := range t.byID {
		buf := make([]byte, 1<<16) // all that a pipe holds
		if n, err := unix.Read(o.fd, buf); err == nil {
			o.rest = append(o.rest, buf[:max(n, 0)]...)
		}
		for !o.lines() && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		for bytes.IndexByte(o.rest, '\n') >= 0 { // there is no room: they are counted
			line, rest, _ := bytes.Cut(o.rest, []byte{'\n'})
			o.say(line, false)
			o.rest = rest
		}
		t.finish(id)
	}
	if t.stdout != nil && t.stdout != t.stderr {
		t.stdout.close()
	}
}
