// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// output is what one process says on its standard output and error, until
// everybody who holds the other end has closed it.
type output struct {
	fd   int
	name string
	rest []byte // an unfinished line
}

// outputTable reads the output of workers for the terminal. Without a terminal
// workers inherit the master's standard output and error, and it stays empty.
type outputTable struct {
	terminal *terminal
	poller   *poller
	pipes    map[uint64]*output
	last     uint64
	paused   bool // the terminal is busy: workers feel it, the master does not
}

// maxLine is the longest line in bytes that is kept together.
const maxLine = 8192

func newOutputTable(log *Log, poller *poller, wake *wakeup) *outputTable {
	t := &outputTable{terminal: log.terminal, poller: poller, pipes: map[uint64]*output{}}
	if t.terminal != nil {
		t.terminal.drained.Store(new(wake.up))
	}
	return t
}

// open returns the end of a pipe for a process of that name to write to, -1 if
// there is no terminal. The caller closes it when it has been handed down.
func (t *outputTable) open(name string) (int, error) {
	if t.terminal == nil {
		return -1, nil
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return -1, fmt.Errorf("output of %s: %w", name, os.NewSyscallError("pipe2", err))
	}
	// Who writes can read, too (/proc/self/fd/1), and be faster: an end that blocks would
	// then wait for it. O_NONBLOCK is of this end alone.
	if err := unix.SetNonblock(pipe[0], true); err != nil {
		closeFD(&pipe[0])
		closeFD(&pipe[1])
		return -1, fmt.Errorf("output of %s: %w", name, os.NewSyscallError("fcntl", err))
	}
	t.last++
	o := &output{fd: pipe[0], name: name}
	if !t.paused { // else with the others
		if err := t.poller.add(o.fd, newToken(outputs, t.last)); err != nil {
			closeFD(&pipe[0])
			closeFD(&pipe[1])
			return -1, err
		}
	}
	t.pipes[t.last] = o
	return pipe[1], nil
}

// readable reads once from one pipe.
func (t *outputTable) readable(id uint64) {
	o := t.pipes[id]
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
func (t *outputTable) lines(o *output) bool {
	for {
		end := bytes.IndexByte(o.rest, '\n')
		next := end + 1
		switch {
		case end < 0 && len(o.rest) < maxLine:
			return true
		case t.terminal.busy():
			return false
		case end < 0 || end > maxLine:
			end = wholeRunes(o.rest[:maxLine])
			next = end
		}
		t.terminal.line(o.name, append(harmless(o.rest[:end:end]), '\n'))
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

func (t *outputTable) finish(id uint64) {
	o := t.pipes[id]
	if len(o.rest) > 0 {
		t.terminal.line(o.name, append(harmless(o.rest), '\n'))
	}
	closeFD(&o.fd)
	delete(t.pipes, id)
}

// pause leaves the pipes alone until the terminal has taken what it has.
func (t *outputTable) pause() {
	t.paused = true
	for _, o := range t.pipes {
		_ = t.poller.remove(o.fd) // it is in there
	}
}

// resume reads again, if the terminal has taken what was left.
func (t *outputTable) resume() {
	if !t.paused {
		return
	}
	for _, o := range t.pipes {
		if !t.lines(o) {
			return // busy again
		}
	}
	t.paused = false
	for id, o := range t.pipes {
		_ = t.poller.add(o.fd, newToken(outputs, id)) // it was in there
	}
}

// close shows what is in the pipes and closes them. It blocks for a second at
// most: what the terminal has not taken then is lost.
func (t *outputTable) close() {
	deadline := time.Now().Add(time.Second)
	for id, o := range t.pipes {
		buf := make([]byte, 1<<16) // all that a pipe holds
		if n, err := unix.Read(o.fd, buf); err == nil {
			o.rest = append(o.rest, buf[:max(n, 0)]...)
		}
		for !t.lines(o) && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if lost := bytes.Count(o.rest, []byte{'\n'}); lost > 0 {
			t.terminal.dropped.Add(int64(lost))
			o.rest = nil
		}
		t.finish(id)
	}
}
