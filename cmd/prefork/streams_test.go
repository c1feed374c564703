// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// place is where a stream goes.
type place struct {
	open *os.File // the end that the fleet gets
	file bool     // it can be read again
	mu   sync.Mutex
	text strings.Builder
}

// String is what has come so far.
func (p *place) String() string {
	if p.file {
		text, _ := os.ReadFile(p.open.Name())
		return string(text)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (p *place) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(text)
}

const columns = 80 // of a terminal

// newPlace makes a terminal, a pipe or a file.
func newPlace(t *testing.T, kind string) *place {
	t.Helper()
	p := &place{file: kind == "file"}
	var from *os.File
	var err error
	switch kind {
	case "terminal":
		from, p.open = openTerminal(t)
		err = unix.IoctlSetWinsize(int(from.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	case "pipe":
		from, p.open, err = os.Pipe()
	case "file":
		p.open, err = os.CreateTemp(t.TempDir(), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.open.Close() })
	if from != nil {
		t.Cleanup(func() { _ = from.Close() })
		go func() { _, _ = io.Copy(p, from) }() // until that
	}
	return p
}

const talkers = `
[floor]
path = ["DIR"]
preload = ["talk"]
[worker.entry]
entry = "talk:talk"
[worker.program]
exec = ["python3", "-u", "DIR/talk.py"]
`

// talk.py prints without flush, and what would steer a terminal or look like a line
// of prefork's.
const talk = `
import signal, sys

def talk():
    print("on stdout")
    print("on stderr", file=sys.stderr)
    print("\033[32mcolour\033[0m \033]0;title\a\033]52;c;Y2xpcA==\a\033[2J\rprefork | forged\b\b\x9b31m")
    print("\u00e9" * 9000)
    signal.pause()

if __name__ == "__main__":
    talk()
`

// TestStreamsStayWhatTheyAre has the streams of the master go to each combination
// of terminals, pipes and files: a worker's standard output goes where the master's
// goes, and standard error likewise, when it is printed; in a terminal with its name
// before it, and harmlessly.
func TestStreamsStayWhatTheyAre(t *testing.T) {
	for _, c := range [][2]string{
		{"terminal", "terminal"},
		{"terminal", "pipe"},
		{"terminal", "file"},
		{"pipe", "terminal"},
		{"pipe", "pipe"},
		{"pipe", "file"},
		{"file", "terminal"},
		{"file", "pipe"},
		{"file", "file"},
		{"terminal", "the same"},
	} {
		t.Run(c[0]+" and "+c[1], func(t *testing.T) {
			t.Parallel()
			r := prepare(t, talkers)
			r.write("talk.py", talk)
			stdout := newPlace(t, c[0])
			stderr := stdout
			if c[1] != "the same" {
				stderr = newPlace(t, c[1])
			}
			r.cmd.Stdout, r.cmd.Stderr = stdout.open, stderr.open
			if err := r.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			r.watch(strings.NewReader(""))
			for _, name := range []string{"entry.0", "program.0"} {
				for where, want := range map[*place]string{stdout: "on stdout", stderr: "on stderr"} {
					if where.open == stdout.open && c[0] == "terminal" || where.open == stderr.open && c[1] == "terminal" {
						want = `\d\d:\d\d:\d\d \x1b\[\d+m` + name + ` +\|\x1b\[0m ` + want + "\r\n"
					}
					r.eventually(want+" of "+name, func() bool { return regexp.MustCompile(want).MatchString(where.String()) })
				}
			}
			r.eventually("the long lines are there", func() bool { return strings.Count(stdout.String(), "é") == 18000 })
			if stdout != stderr && (strings.Contains(stdout.String(), "on stderr") || strings.Contains(stderr.String(), "on stdout")) {
				t.Errorf("a stream went to the other:\n%q\n%q", stdout, stderr)
			}
			r.eventually("the log is on standard error", func() bool { return strings.Contains(stderr.String(), "fleet is ready") })
			if c[0] != "terminal" {
				return
			}
			if text := stdout.String(); strings.ContainsAny(text, "\a\b") || strings.Contains(text, "\x1b]") || strings.Contains(text, "\x1b[2J") ||
				regexp.MustCompile(`[\r\n][^\n]*\rprefork`).MatchString(text) || !strings.Contains(text, "\x1b[32mcolour\x1b[0m") {
				t.Errorf("the terminal got %.3000q", text)
			}
			for line := range strings.SplitSeq(strings.TrimRight(stdout.String(), "\r\n"), "\r\n") {
				if !regexp.MustCompile(`^\d\d:\d\d:\d\d \x1b\[\d+m[\w.]+ +\|\x1b\[0m `).MatchString(line) {
					t.Errorf("a line without a name: %.300q", line)
				}
				if n := utf8.RuneCountInString(regexp.MustCompile(`\x1b\[\d*m`).ReplaceAllString(line, "")); n > columns {
					t.Errorf("a line goes on in a row without a name: %d columns, %.300q", n, line)
				}
			}
		})
	}
}
