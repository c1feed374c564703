// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// The kinds of what the loop of these tests waits for.
const (
	wakeups poll.Kind = iota
	readable
)

// table is pipes with its part of the loop.
type table struct {
	*pipes
	t      *testing.T
	poller *poll.Poller
}

func newTable(t *testing.T, term *terminal) *table {
	t.Helper()
	p := polltest.New(t)
	return &table{newPipes(term, term, p.Source(readable), p.Wake()), t, p}
}

// pipe opens an output for a process to write to.
func (b *table) pipe(name string) *os.File {
	b.t.Helper()
	fd, same, err := b.open(Author{Name: name, Worker: "web", PID: 7})
	if err != nil || fd < 0 || fd != same {
		b.t.Fatalf("open: %d, %d and %v", fd, same, err)
	}
	w := os.NewFile(uintptr(fd), name)
	b.t.Cleanup(func() { _ = w.Close() }) // not by the garbage collector, while another test counts
	return w
}

// turn is one turn of the loop; it returns false if nothing happened within a
// time.
func (b *table) turn(most time.Duration) bool {
	now := poll.Now()
	ready := b.poller.Wait(now.Add(most), now)
	for _, r := range ready {
		switch r.Kind {
		case readable:
			b.readable(r.ID)
		case wakeups:
			b.resume()
		}
	}
	return len(ready) > 0
}

// Many short lines come faster than the terminal takes them. The workers wait
// for it, the master does not turn for nothing meanwhile, and no line is lost.
func TestOutputsWaitForTheTerminal(t *testing.T) {
	const each = 5000
	s, term := newScreen(t)
	b := newTable(t, term)
	s.stopped.Lock()
	var writers sync.WaitGroup
	write := func(name string) {
		w := b.pipe(name)
		writers.Go(func() {
			defer w.Close()
			for i := range each {
				fmt.Fprintf(w, "%d\n", i)
			}
		})
	}
	write("web.0")
	write("web.1")
	for b.turn(50 * time.Millisecond) {
	}
	if !b.held[term] {
		t.Fatal("the outputs are not held back")
	}
	write("web.2") // a process that starts meanwhile is held back too
	if b.turn(50 * time.Millisecond) {
		t.Error("the loop turns though the terminal is stopped")
	}
	s.stopped.Unlock()
	for deadline := poll.Now().Add(testutil.Patience); len(b.byID) > 0 && poll.Now() < deadline; {
		b.turn(time.Second)
	}
	if len(b.byID) > 0 {
		t.Error("nobody told that the terminal has room again")
	}
	b.close()
	writers.Wait()
	term.close()
	next := map[string]int{}
	for _, line := range s.lines() {
		name, text, _ := strings.Cut(line, "   | ")
		if want := fmt.Sprint(next[name]); text != want {
			t.Fatalf("got line %q of %s, want %s", text, name, want)
		}
		next[name]++
	}
	for _, name := range []string{"web.0", "web.1", "web.2"} {
		if next[name] != each {
			t.Errorf("%s: %d lines, want %d", name, next[name], each)
		}
	}
}

func TestOutputsKeepLinesTogether(t *testing.T) {
	s, term := newScreen(t)
	b := newTable(t, term)
	w := b.pipe("web.0")
	for _, part := range []string{"a", "b\nc", "\n\n", strings.Repeat("x", maxLine+10) + "\n", "x" + strings.Repeat("é", maxLine/2) + "\n", "unfinished\x1b[2J"} {
		if _, err := w.WriteString(part); err != nil {
			t.Fatal(err)
		}
		for b.turn(0) {
		}
	}
	_ = w.Close()
	for b.turn(0) {
	}
	if len(b.byID) != 0 {
		t.Errorf("%d pipes are open after their end", len(b.byID))
	}
	term.close()
	want := []string{"ab", "c", "", strings.Repeat("x", maxLine), strings.Repeat("x", 10), "x" + strings.Repeat("é", maxLine/2-1), "é", "unfinished␛[2J"}
	got := s.lines()
	for i, line := range got {
		if i >= len(want) || line != "web.0   | "+want[i] {
			t.Errorf("line %d: got %.40q", i, line)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
}

// A worker can read what it has written, and take it away between poll(2) and read(2).
// That does not hold up the loop, nor hide what comes next.
func TestOutputsThatTheWorkerReadsItself(t *testing.T) {
	s, term := newScreen(t)
	b := newTable(t, term)
	w := b.pipe("web.0")
	reader, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := w.WriteString("taken"); err != nil {
		t.Fatal(err)
	}
	if n, err := reader.Read(make([]byte, 10)); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.readable(b.last) // as poll(2) has said
	}()
	select {
	case <-read:
	case <-time.After(testutil.Patience):
		t.Fatal("the loop waits for the worker")
	}
	if _, err := w.WriteString("left\n"); err != nil {
		t.Fatal(err)
	}
	for b.turn(0) {
	}
	term.close()
	if got := s.lines(); len(got) != 1 || got[0] != "web.0   | left" {
		t.Errorf("got %q", got)
	}
}

// What is in the pipes when the fleet ends is shown, though a process that was
// left over holds its end open.
func TestOutputsAreShownAtTheEnd(t *testing.T) {
	s, term := newScreen(t)
	b := newTable(t, term)
	before := testutil.OpenFDs()
	w := b.pipe("web.0")
	const all = 2 * terminalQueue
	for i := range all {
		fmt.Fprintf(w, "%d\n", i)
	}
	b.close()
	_ = w.Close()
	term.close()
	if got := s.lines(); len(got) != all || got[all-1] != fmt.Sprintf("web.0   | %d", all-1) {
		t.Errorf("%d lines, the last is %q", len(got), got[len(got)-1])
	}
	if after := testutil.OpenFDs(); after != before {
		t.Errorf("open descriptors: got %s, want %s", after, before)
	}
}

func TestOutputsWithoutATerminalAreInherited(t *testing.T) {
	b := newPipes(nil, nil, poll.Source{}, nil)
	if stdout, stderr, err := b.open(Author{Name: "web.0"}); stdout != -1 || stderr != -1 || err != nil {
		t.Errorf("got %d, %d and %v, want none", stdout, stderr, err)
	}
	b.readable(1)
	b.resume()
	b.close()
}
