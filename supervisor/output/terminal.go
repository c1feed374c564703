// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/policy"
)

// terminal writes lines with the name of who said them. One goroutine writes: a
// terminal that is stopped (Ctrl-S) stops it, and never the loop.
type terminal struct {
	lines   chan []byte
	done    chan struct{}
	columns func() int // how wide it is now; 0 if that is not known
	colour  bool
	now     func() time.Time
	width   atomic.Int64 // of the widest name so far
	losses  losses
	drained atomic.Pointer[func()] // called when the queue has room again after it was busy
	waited  atomic.Bool            // somebody waits for drained
}

const terminalQueue = 256

func newTerminal(w io.Writer, columns func() int) *terminal {
	t := &terminal{
		lines:   make(chan []byte, terminalQueue),
		done:    make(chan struct{}),
		columns: columns,
		colour:  os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		now:     time.Now,
	}
	t.width.Store(int64(len(master.Name)))
	go t.write(w)
	return t
}

func (t *terminal) write(w io.Writer) {
	defer close(t.done)
	for line := range t.lines {
		_, _ = w.Write(line) // a terminal that is gone sends SIGHUP
		if len(t.lines) < terminalQueue/2 && t.waited.CompareAndSwap(true, false) {
			if drained := t.drained.Load(); drained != nil {
				(*drained)()
			}
		}
	}
}

// columnsOf returns what asks the terminal at fd how wide it is (TIOCGWINSZ(2const)).
func columnsOf(fd int) func() int {
	return func() int {
		size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err != nil {
			return 0
		}
		return int(size.Col)
	}
}

func (t *terminal) say(m *message) bool {
	text := m.text
	if m.stream != "" {
		text = harmless(text)
	}
	if t.tellLost() && t.queue(t.format(m.author.Name, text, m.level)) {
		return true
	}
	t.losses.add(1)
	return false
}

// tellLost queues how many lines were lost, and returns false if there is no
// room even for that.
func (t *terminal) tellLost() bool {
	n := t.losses.untold.Load()
	if n == 0 {
		return true
	}
	if !t.queue(t.format(master.Name, fmt.Appendf(nil, "%d lines were lost: the terminal did not take them", n), slog.LevelWarn)) {
		return false
	}
	t.losses.untold.Add(-n)
	return true
}

func (t *terminal) whenDrained(call func()) { t.drained.Store(&call) }

// heldUntil: who has stopped a terminal is there to let it go on.
func (t *terminal) heldUntil() policy.Instant { return policy.Never }

func (t *terminal) lost() int64 { return t.losses.all.Load() }

func (t *terminal) queue(line []byte) bool {
	select {
	case t.lines <- line:
		return true
	default:
		return false
	}
}

// busy reports whether lines of workers should be held back: drained is called
// when not. The rest of the queue is for the master's own.
func (t *terminal) busy() bool {
	t.waited.Store(true) // before the look: the writer may drain the queue after it
	if len(t.lines) >= terminalQueue-terminalQueue/8 {
		return true
	}
	t.waited.Store(false)
	return false
}

// leastRoom is the least number of columns that a line gets beside its name, however
// narrow the terminal is.
const leastRoom = 20

// clock is how the time is written before each row: that of this place, for people.
const clock = "15:04:05 "

// format puts the time and the name before each row of the line, in a colour of its own:
// what goes on in a row without a name could pass for a line of somebody else's. A line of
// the master's that means trouble is marked, by its colour or by a word.
func (t *terminal) format(name string, text []byte, level slog.Level) []byte {
	width := t.width.Load()
	if int64(len(name)) > width {
		width = int64(len(name))
		t.width.Store(width)
	}
	prefix, reset := fmt.Sprintf("%-*s | ", int(width), name), ""
	switch trouble := level >= slog.LevelWarn; {
	case t.colour:
		prefix = fmt.Sprintf("\x1b[%dm%-*s |\x1b[0m ", colourOf(name), int(width), name)
		if trouble {
			prefix, reset = prefix+fmt.Sprintf("\x1b[%dm", colourOfLevel(level)), "\x1b[0m"
		}
	case trouble:
		text = append([]byte(levelWord(priority(level))+": "), text...)
	}
	prefix = t.now().Format(clock) + prefix
	room := 0
	if columns := t.columns(); columns > 0 {
		room = max(columns-len(clock)-int(width)-len(" | "), leastRoom)
	}
	var out []byte
	for _, row := range rows(text, room) {
		out = append(append(append(append(out, prefix...), row...), reset...), '\n')
	}
	return out
}

func colourOfLevel(level slog.Level) int {
	const red, yellow = 31, 33
	if level >= slog.LevelError {
		return red
	}
	return yellow
}

// colourOf gives the master grey and each name one of six colours.
func colourOf(name string) int {
	if name == master.Name {
		return 90
	}
	sum := 0
	for _, b := range []byte(name) {
		sum = sum*31 + int(b)
	}
	return 31 + (sum&0x7fffffff)%6
}

// close must come after the last line.
func (t *terminal) close() {
	t.tellLost()
	close(t.lines)
	select {
	case <-t.done:
	case <-time.After(time.Second): // it is stopped; the program ends all the same
	}
}

// isTerminal reports whether fd is one (isatty(3)).
func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}
