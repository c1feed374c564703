// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"bytes"
	"fmt"
	"os"

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
	t.last++
	o := &output{fd: pipe[0], name: name}
	if err := t.poller.add(o.fd, newToken(outputs, t.last)); err != nil {
		closeFD(&pipe[0])
		closeFD(&pipe[1])
		return -1, err
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
	if n <= 0 || err != nil {
		t.finish(id)
		return
	}
	o.rest = append(o.rest, buf[:n]...)
	t.lines(o)
	if t.terminal.busy() {
		t.pause()
	}
}

// lines passes whole lines on, and what is too long for one in pieces.
func (t *outputTable) lines(o *output) {
	for {
		end := bytes.IndexByte(o.rest, '\n')
		switch {
		case end >= 0:
			t.terminal.line(o.name, o.rest[:end+1])
			o.rest = o.rest[end+1:]
		case len(o.rest) >= maxLine:
			t.terminal.line(o.name, append(o.rest[:maxLine:maxLine], '\n'))
			o.rest = o.rest[maxLine:]
		default:
			return
		}
	}
}

func (t *outputTable) finish(id uint64) {
	o := t.pipes[id]
	if len(o.rest) > 0 {
		t.terminal.line(o.name, append(o.rest, '\n'))
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

// resume reads again, if the terminal is not busy any more.
func (t *outputTable) resume() {
	if !t.paused || t.terminal.busy() {
		return
	}
	t.paused = false
	for id, o := range t.pipes {
		_ = t.poller.add(o.fd, newToken(outputs, id)) // it was in there
	}
}

// close shows what is in the pipes and closes them.
func (t *outputTable) close() {
	for id, o := range t.pipes {
		buf := make([]byte, 1<<16)
		if unix.SetNonblock(o.fd, true) == nil { // this end is ours alone
			if n, err := unix.Read(o.fd, buf); err == nil {
				o.rest = append(o.rest, buf[:max(n, 0)]...)
				t.lines(o)
			}
		}
		t.finish(id)
	}
}
