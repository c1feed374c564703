// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// screen is a terminal that can be stopped, as by Ctrl-S.
type screen struct {
	mu      sync.Mutex
	text    bytes.Buffer
	stopped sync.Mutex // held while it is
}

func (s *screen) Write(b []byte) (int, error) {
	s.stopped.Lock()
	defer s.stopped.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

// lines are those so far, without the time that each begins with.
func (s *screen) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := strings.Split(strings.TrimSuffix(s.text.String(), "\n"), "\n")
	for i, line := range lines {
		if rest, ok := strings.CutPrefix(line, atNoon); ok {
			lines[i] = rest
		} else if line != "" {
			lines[i] = "without a time: " + line
		}
	}
	return lines
}

func newScreen(t *testing.T) (*screen, *terminal) {
	t.Helper()
	t.Setenv("NO_COLOR", "1")
	s := &screen{}
	term := newTerminal(s, anyWidth)
	term.now = noon
	return s, term
}

// noon is the time at which these tests run.
func noon() time.Time { return time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC) }

const atNoon = "12:00:00 "

// line says a line, which ends with a newline.
func (t *terminal) line(name string, text []byte) bool {
	m := &message{author: Author{Name: name}, text: bytes.TrimSuffix(text, []byte{'\n'})}
	if name != master.Name {
		m.stream = stdoutName
	}
	return t.say(m)
}

func anyWidth() int { return 0 }

func TestTerminalNamesLines(t *testing.T) {
	s, term := newScreen(t)
	term.line("web.0", []byte("one\n"))
	term.line("a-long-name.10", []byte("two\n"))
	term.line("web.0", []byte("\n"))
	term.close()
	want := "12:00:00 web.0   | one\n12:00:00 a-long-name.10 | two\n12:00:00 web.0          | \n"
	if got := s.text.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestTerminalColoursNames(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	s := &screen{}
	term := newTerminal(s, anyWidth)
	term.now = noon
	term.line("web.0", []byte("one\n"))
	term.line("prefork", []byte("two\n"))
	term.say(&message{author: master, level: slog.LevelWarn, text: []byte("three")})
	term.say(&message{author: master, level: slog.LevelError, text: []byte("four")})
	term.close()
	want := fmt.Sprintf("12:00:00 \x1b[%dmweb.0   |\x1b[0m one\n12:00:00 \x1b[90mprefork |\x1b[0m two\n", colourOf("web.0")) +
		"12:00:00 \x1b[90mprefork |\x1b[0m \x1b[33mthree\x1b[0m\n12:00:00 \x1b[90mprefork |\x1b[0m \x1b[31mfour\x1b[0m\n"
	if got := s.text.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for i := range 100 {
		if c := colourOf(fmt.Sprintf("w-%d", i)); c < 31 || c > 36 {
			t.Errorf("w-%d has colour %d", i, c)
		}
	}
}

// A line that is wider than the terminal cannot look like two, the second of which
// begins with a name that is not its own.
func TestTerminalNamesRows(t *testing.T) {
	s, term := newScreen(t)
	columns := 40 + len(clock)
	term.columns = func() int { return columns }
	const room = 30 // beside the time and "prefork | "
	for _, text := range []string{
		strings.Repeat("x", room),
		strings.Repeat(" ", room) + "prefork | web.0: failed",
		strings.Repeat("\t", 3) + strings.Repeat(" ", 6) + "prefork | tabs",
		strings.Repeat("ü", room) + "narrow",
		strings.Repeat("漢", room/2) + "wide",
		strings.Repeat("\x1b[31m", 9) + strings.Repeat("x", room) + "red",
		"",
	} {
		term.line("web.0", []byte(text+"\n"))
	}
	term.line("prefork", []byte("web.0 says "+strings.Repeat(".", room)+"\n"))
	columns = 5 // it has been made narrower than a name
	term.line("web.0", []byte(strings.Repeat("y", leastRoom)+"z\n"))
	columns = 0
	term.line("web.0", []byte(strings.Repeat("y", 1000)+"\n"))
	term.close()
	want := []string{
		"web.0   | " + strings.Repeat("x", room),
		"web.0   | " + strings.Repeat(" ", room), "web.0   | prefork | web.0: failed",
		"web.0   | \t\t\t" + strings.Repeat(" ", 6), "web.0   | prefork | tabs",
		"web.0   | " + strings.Repeat("ü", room), "web.0   | narrow",
		"web.0   | " + strings.Repeat("漢", room/2), "web.0   | wide",
		"web.0   | " + strings.Repeat("\x1b[31m", 9) + strings.Repeat("x", room) + "\x1b[0m", "web.0   | red\x1b[0m",
		"web.0   | ",
		"prefork | web.0 says " + strings.Repeat(".", room-len("web.0 says ")), "prefork | " + strings.Repeat(".", len("web.0 says ")),
		"web.0   | " + strings.Repeat("y", leastRoom), "web.0   | z",
		"web.0   | " + strings.Repeat("y", 1000),
	}
	got := s.lines()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("row %d: got %q, want %q", i, got[i:], want[i:])
		}
	}
}

// A terminal that is stopped costs lines, which are counted, and no time.
func TestTerminalNeverBlocks(t *testing.T) {
	s, term := newScreen(t)
	s.stopped.Lock()
	const all = 3 * terminalQueue
	term.line("web.0", []byte("first\n"))
	testutil.Eventually(t, "the writer is stuck with the first line", func() bool { return len(term.lines) == 0 })
	kept := 1
	for i := range all - 1 {
		if term.line("web.0", fmt.Appendf(nil, "%d\n", i)) {
			kept++
		}
	}
	if kept != 1+terminalQueue {
		t.Errorf("%d lines were kept, want one and what the queue holds", kept)
	}
	s.stopped.Unlock()
	testutil.Eventually(t, "the terminal takes the lines", func() bool { return len(s.lines()) == kept })
	term.line("web.0", []byte("after\n"))
	term.close()
	got := s.lines()
	want := []string{fmt.Sprintf("prefork | warning: %d lines were lost: the terminal did not take them", all-kept), "web.0   | after"}
	if len(got) != kept+2 || got[kept] != want[0] || got[kept+1] != want[1] {
		t.Errorf("the end: got %q, want %q", got[min(kept, len(got)):], want)
	}
}

func TestTerminalTellsAtTheEndWhatWasLost(t *testing.T) {
	s, term := newScreen(t)
	s.stopped.Lock()
	for i := range 2 * terminalQueue {
		term.line("web.0", fmt.Appendf(nil, "%d\n", i))
	}
	s.stopped.Unlock()
	testutil.Eventually(t, "the terminal takes the lines", func() bool { return len(term.lines) == 0 })
	term.close()
	if got := s.lines(); !strings.HasSuffix(got[len(got)-1], "lines were lost: the terminal did not take them") {
		t.Errorf("the last line is %q", got[len(got)-1])
	}
}

func TestTerminalThatStaysStoppedIsNotWaitedFor(t *testing.T) {
	s, term := newScreen(t)
	s.stopped.Lock()
	defer s.stopped.Unlock()
	term.line("web.0", []byte("one\n"))
	started := time.Now()
	term.close()
	if took := time.Since(started); took < time.Second || took > testutil.Patience {
		t.Errorf("it took %s, want one second", took)
	}
}

func TestIsTerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skip(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skip(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer slave.Close()
	if !isTerminal(int(slave.Fd())) {
		t.Error("a pty is not taken for a terminal")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if isTerminal(int(w.Fd())) {
		t.Error("a pipe is taken for a terminal")
	}
}
