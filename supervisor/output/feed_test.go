// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/policy"
)

// newTestFeed returns a feed into a pipe, and its other end.
func newTestFeed(t *testing.T, failed func(error)) (*feed, *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	n := newFeed(int(write.Fd()), formatOf("name", "edge"), failed)
	t.Cleanup(func() { _, _ = read.Close(), write.Close() })
	return n, read
}

// A reader that is slow holds back for a while, then costs lines: these are counted, and
// told when it goes on. The master's own have room of their own.
func TestFeedThatNobodyReads(t *testing.T) {
	n, read := newTestFeed(t, func(err error) { t.Error(err) })
	drained := make(chan struct{}, 10)
	n.whenDrained(func() { drained <- struct{}{} })
	said := 0
	for ; !n.busy(); said++ {
		if !n.say(saidBy(fmt.Sprint(said))) {
			t.Fatal("a line is lost though it is not busy")
		}
	}
	until := n.heldUntil()
	if in := until.Sub(poll.Now()); in <= 0 || in > feedPatience {
		t.Errorf("it is waited for %s", in)
	}
	if !n.busy() || n.lossy {
		t.Error("it is not waited for")
	}
	if !n.say(own(0, "the master's")) {
		t.Error("there is no room for the master")
	}
	n.mu.Lock()
	n.held = n.held.Add(-feedPatience) // as if so much time had passed
	n.mu.Unlock()
	if n.busy() || n.heldUntil() != policy.Never {
		t.Error("it is waited for without end")
	}
	const lost = 1000
	for range lost {
		if n.say(saidBy("lost")) {
			t.Fatal("there is room")
		}
	}
	lines := bufio.NewScanner(read)
	next := func() string {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		_, text, _ := strings.Cut(lines.Text(), "Z ")
		return text
	}
	for i := range said {
		if got, want := next(), fmt.Sprintf("web.0   stderr  | %d", i); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	for _, want := range []string{"prefork info    | the master's", fmt.Sprintf("prefork warning | %d lines were lost: nobody has read them in time", lost)} {
		if got := next(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	<-drained
	if n.busy() || !n.say(saidBy("again")) || next() != "web.0   stderr  | again" || n.lost() != lost {
		t.Errorf("it does not go on; %d lines are lost", n.lost())
	}
	n.close()
}

// Where nothing can be written any more, that is told once, and lines are counted.
func TestFeedWhoseReaderIsGone(t *testing.T) {
	failures := make(chan error, 10)
	n, read := newTestFeed(t, func(err error) { failures <- err })
	_ = read.Close()
	for i := range 5 {
		n.say(saidBy("to nobody"))
		testutil.Eventually(t, "it is counted", func() bool { return n.lost() == int64(i+1) })
	}
	n.close()
	if len(failures) != 1 {
		t.Errorf("it is told %d times", len(failures))
	}
}

// The end does not wait for who never reads.
func TestFeedIsNotWaitedForAtTheEnd(t *testing.T) {
	n, _ := newTestFeed(t, func(error) {})
	for !n.busy() {
		n.say(saidBy(strings.Repeat("x", 1000)))
	}
	began := time.Now()
	n.close()
	if took := time.Since(began); took < time.Second || took > testutil.Patience {
		t.Errorf("it took %s", took)
	}
}
