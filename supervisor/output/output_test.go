// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// newJournal listens as the journal does for streams, in the folder that it returns.
func newJournal(t *testing.T) (dir string, accept func() net.Conn, stop func()) {
	t.Helper()
	dir = t.TempDir()
	listener, err := net.Listen("unix", dir+"/stdout")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	accept = func() net.Conn {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	return dir, accept, func() { _ = listener.Close() }
}

// outputsTo are those of a master whose standard error is the journal.
func outputsTo(dir string, stdout bool) (*Outputs, *lines) {
	log, said := newTestLog()
	return &Outputs{
		pipes:   newPipes(nil, nil, poll.Source{}, nil),
		streams: &streams{log: log, dir: dir, own: "1:2", stdout: stdout, byName: map[string]journalStream{}},
	}, said
}

// Each name has a stream of its own, which its next process gets too.
func TestANameHasAJournalStream(t *testing.T) {
	testutil.WantNoLeak(t)
	dir, accept, stop := newJournal(t)
	o, said := outputsTo(dir, true)
	first, err := o.For(Author{Name: "web.0"})
	if err != nil || first.Stdout < 0 || first.Stdout != first.Stderr || first.Journal == "" || first.Journal == "1:2" {
		t.Fatalf("got %+v, %v", first, err)
	}
	journal := accept()
	first.Close() // it has been handed down, and stays the table's
	if again, err := o.For(Author{Name: "web.0"}); err != nil || again != first {
		t.Errorf("the next process: got %+v, %v, want %+v", again, err, first)
	}
	other, err := o.For(Author{Name: "web.1"})
	if err != nil || other.Journal == first.Journal {
		t.Errorf("another name: got %+v, %v", other, err)
	}
	got := make([]byte, 1000)
	if n, err := journal.Read(got); err != nil || !bytes.HasPrefix(got[:n], []byte("web.0\n\n6\n")) {
		t.Errorf("the journal reads %q, %v", got[:n], err)
	}
	_ = journal.Close() // it starts anew
	if next, err := o.For(Author{Name: "web.0"}); err != nil || next.Journal == first.Journal {
		t.Errorf("after the journal's restart: got %+v, %v", next, err)
	}
	stop()
	o.Close()
	if got := said.all(); len(got) != 0 {
		t.Errorf("it said %q", got)
	}
}

// Where standard output is not the journal, it stays what it is.
func TestStdoutStaysWhatItIs(t *testing.T) {
	dir, _, _ := newJournal(t)
	o, _ := outputsTo(dir, false)
	defer o.Close()
	if to, err := o.For(Author{Name: "web.0"}); err != nil || to.Stdout != -1 || to.Stderr < 0 {
		t.Errorf("got %+v, %v", to, err)
	}
}

// Without a journal that takes streams, a process shares the master's; that is said once.
func TestWithoutAStreamTheMastersIsShared(t *testing.T) {
	dir, accept, _ := newJournal(t)
	o, said := outputsTo(dir+"/none", true)
	defer o.Close()
	for _, name := range []string{"web.0", "web.1"} {
		if to, err := o.For(Author{Name: name}); err != nil || to.Stdout != -1 || to.Stderr != -1 || to.Journal != "1:2" {
			t.Errorf("%s: got %+v, %v", name, to, err)
		}
	}
	if got := said.all(); len(got) != 1 || !strings.HasPrefix(got[0], "<4>web.0: no journal stream of its own") {
		t.Errorf("it said %q", got)
	}
	o.streams.dir = dir // it is there again
	if to, err := o.For(Author{Name: "web.1"}); err != nil || to.Stderr < 0 {
		t.Errorf("got %+v, %v", to, err)
	}
	accept()
}

// The ends of pipes are for one process, and closed once even if both are the same.
func TestTheEndsOfPipesAreClosed(t *testing.T) {
	testutil.WantNoLeak(t)
	_, term := newScreen(t)
	b := newTable(t, term)
	o := &Outputs{pipes: b.pipes, streams: &streams{}}
	to, err := o.For(Author{Name: "web.0"})
	if err != nil || to.Stdout < 0 || to.Stdout != to.Stderr {
		t.Fatalf("got %+v, %v", to, err)
	}
	to.Close()
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer linux.CloseFD(&fd)
	if fd != to.Stdout {
		t.Errorf("%d is not closed: the next one opened is %d", to.Stdout, fd)
	}
	o.Readable(b.last) // its end
	if len(b.byID) != 0 {
		t.Error("the pipe stays")
	}
	o.Close()
	term.close()
}
