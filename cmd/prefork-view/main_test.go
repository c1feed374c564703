// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty is a terminal, and what was written to it.
type pty struct {
	master, slave *os.File

	mu   sync.Mutex
	text bytes.Buffer
}

func newPTY(t *testing.T) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{master: master, slave: slave}
	t.Cleanup(func() { _, _ = master.Close(), slave.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(p, master) }()
	return p
}

func (p *pty) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(text)
}

// index is where a text was written first; -1: not yet.
func (p *pty) index(text string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Index(p.text.Bytes(), []byte(text))
}

func (p *pty) wait(t *testing.T, text string) int {
	t.Helper()
	for end := time.Now().Add(patience); p.index(text) < 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %q in %q", patience, text, p.text.String())
		}
	}
	return p.index(text)
}

// feeds are what the test binary, as a view, can be fed with.
var feeds = map[string]func(tell func(any)){
	"nothing":        func(func(any)) {},
	"a panic":        func(func(any)) { panic("of the feed") },
	"a broken model": func(tell func(any)) { tell(sampled{}) },
}

const roleVariable = "PREFORK_TEST_FEED"

// TestMain pins the zone that events are shown in, or is a view.
func TestMain(m *testing.M) {
	time.Local = time.UTC
	if feed, ok := feeds[os.Getenv(roleVariable)]; ok {
		begin := make(chan os.Signal, 1)
		signal.Notify(begin, unix.SIGUSR1)
		err := show(&screen{model: model{name: "edge"}, feed: func(tell func(any)) {
			<-begin
			feed(tell)
		}})
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestPanicRestoresTheTerminal, wherever it comes from, as q does.
func TestPanicRestoresTheTerminal(t *testing.T) {
	for name := range feeds {
		t.Run(name, func(t *testing.T) {
			p := newPTY(t)
			before, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			view := exec.Command(os.Args[0])
			view.Stdin, view.Stdout = p.slave, p.slave
			// The library closes what its reader still reads when it ends like this.
			view.Env = append(os.Environ(), "TERM=xterm", "GORACE=exitcode=0 atexit_sleep_ms=0", roleVariable+"="+name)
			if err := view.Start(); err != nil {
				t.Fatal(err)
			}
			const enter, leave, cursor = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
			in := p.wait(t, enter)
			p.wait(t, "edge")
			if name == "nothing" {
				_, err = p.master.WriteString("q")
			} else {
				err = view.Process.Signal(unix.SIGUSR1)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := view.Wait(); (err == nil) != (name == "nothing") {
				t.Errorf("got %v", err)
			}
			if after, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS); err != nil || *after != *before {
				t.Errorf("%v: the terminal is %+v, was %+v", err, after, before)
			}
			if p.wait(t, leave) < in || p.wait(t, cursor) < in {
				t.Errorf("the alternate screen was not left: %q", p.text.String())
			}
		})
	}
}
