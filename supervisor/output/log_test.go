// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/policy"
)

func TestLogWritesOneLineWithItsPriority(t *testing.T) {
	log, said := newTestLog()
	for level, want := range map[fleet.Level]string{
		fleet.Err: "<3>", fleet.Warning: "<4>", fleet.Notice: "<5>", fleet.Info: "<6>", fleet.Debug: "<7>",
	} {
		log.At(level, "said")
		if got := said.all()[len(said.all())-1]; got != want+"said\n" {
			t.Errorf("level %d: got %q, want %q", level, got, want)
		}
	}
	log.Notice("noticed", slog.Int("pid", 7))
	log.With(slog.String("worker", "web")).Warn("warned", "slot", "web.0")
	log.Info("odd", "empty", "", "blank", "a b", "equals", "a=b", "quote", `"`, "lines", "a\nb", "plain", "a,b")
	log.Error("one\ntwo\r\x00three\x1b[31m\n")
	log.Error("\xff\u2028", "text", "\x1b\x07", "err", fmt.Errorf("a\n\tb"))
	want := []string{
		"<5>noticed pid=7\n",
		"<4>warned worker=web slot=web.0\n",
		`<6>odd empty="" blank="a b" equals="a=b" quote="\"" lines="a; b" plain=a,b` + "\n",
		"<3>one; two  three [31m\n",
		"<3>\ufffd text=\"  \" err=\"a;  b\"\n",
	}
	for i, got := range said.all()[5:] {
		if got != want[i] {
			t.Errorf("got %q, want %q", got, want[i])
		}
	}
}

func TestLogLinesAreBounded(t *testing.T) {
	log, said := newTestLog()
	log.Info(strings.Repeat("ü", maxRecord))
	log.Info("short", "long", strings.Repeat("x", maxRecord))
	for _, line := range said.all() {
		if len(line) > maxRecord || len(line) < maxRecord-2 || !utf8.ValidString(line) || strings.Index(line, "\n") != len(line)-1 {
			t.Errorf("a line of %d bytes that ends in %q", len(line), line[len(line)-5:])
		}
	}
}

func TestLogWithoutDebug(t *testing.T) {
	h := &handler{level: slog.LevelInfo}
	if h.Enabled(t.Context(), slog.LevelDebug) || !h.Enabled(t.Context(), slog.LevelInfo) {
		t.Error("the level is not kept")
	}
}

const stuckLines = 20000

// logChild logs more than anybody reads, says on standard output that it has
// done so, and logs once more when its standard input ends.
func logChild() {
	log := NewLog(sdnotify.Environment{JournalStream: os.Getenv("JOURNAL_STREAM")}, false)
	for i := range stuckLines {
		log.Info("line", "number", i)
	}
	fmt.Println(log.stderr.losses.untold.Load())
	_, _ = io.Copy(io.Discard, os.Stdin)
	log.Info("after")
	fmt.Println(log.stderr.losses.untold.Load())
}

// stuck runs logChild with a standard error that is not read until it has logged
// everything, and returns what it counted as lost, and all its lines.
func stuck(t *testing.T, cmd *exec.Cmd, read, write *os.File) (lostLines int, text []string) {
	t.Helper()
	cmd.Stderr = write
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	if _, err := fmt.Fscanln(stdout, &lostLines); err != nil {
		t.Fatalf("the child said nothing: %v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(read); lines.Scan(); {
			text = append(text, lines.Text())
			if len(text) == stuckLines-lostLines {
				_ = stdin.Close() // it has room again
			}
		}
	}()
	var left int
	if _, err := fmt.Fscanln(stdout, &left); err != nil || left != 0 {
		t.Errorf("at the end %d lines are untold: %v", left, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	<-done
	return lostLines, text
}

// A journal or a pipe that nobody reads blocks the workers that write to it, and
// never the master: it goes on and tells later how many lines are missing.
func TestLogNeverBlocks(t *testing.T) {
	check := func(t *testing.T, prefix string, lostLines int, text []string) {
		t.Helper()
		if lostLines == 0 || lostLines == stuckLines {
			t.Fatalf("%d of %d lines were lost", lostLines, stuckLines)
		}
		kept := stuckLines - lostLines
		if len(text) != kept+2 {
			t.Fatalf("%d lines arrived, want %d and two more; the last is %q", len(text), kept, text[len(text)-1])
		}
		for i, line := range text[:kept] {
			if want := fmt.Sprintf("%sline number=%d", strings.Replace(prefix, "4", "6", 1), i); line != want {
				t.Fatalf("line %d: got %q, want %q", i, line, want)
			}
		}
		want := []string{
			fmt.Sprintf("%s%d lines could not be written before this one", prefix, lostLines),
			strings.Replace(prefix, "4", "6", 1) + "after",
		}
		if text[kept] != want[0] || text[kept+1] != want[1] {
			t.Errorf("got %q, want %q", text[kept:], want)
		}
	}
	t.Run("journal", func(t *testing.T) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		var stat unix.Stat_t
		if err := unix.Fstat(pair[1], &stat); err != nil {
			t.Fatal(err)
		}
		read, write := os.NewFile(uintptr(pair[0]), "journal"), os.NewFile(uintptr(pair[1]), "stderr")
		defer read.Close()
		cmd := testutil.Child(t, "log")
		cmd.Env = append(cmd.Env, fmt.Sprintf("JOURNAL_STREAM=%d:%d", stat.Dev, stat.Ino))
		lostLines, text := stuck(t, cmd, read, write)
		check(t, "<4>", lostLines, text)
	})
	t.Run("pipe", func(t *testing.T) {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		lostLines, text := stuck(t, testutil.Child(t, "log"), read, write)
		check(t, "", lostLines, text)
	})
}

// floodChild logs while a worker that has the same standard error leaves no room in
// it, and says on standard output when it is through a line.
func floodChild() {
	go func() {
		for full := make([]byte, 4096); ; {
			_, _ = unix.Write(2, full)
		}
	}()
	log := NewLog(sdnotify.Environment{}, false)
	for i := range stuckLines {
		log.Info(strings.Repeat("x", maxRecord))
		fmt.Println(i)
	}
}

// Nor does it block on a pipe that is full again as soon as it has room: what is read
// from it here is as much as one line, after each line.
func TestLogDoesNotWaitForAFlood(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := testutil.Child(t, "flood")
	cmd.Stderr = write
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	said := make(chan bool)
	go func() {
		defer close(said)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			said <- true
		}
	}()
	for got, page, more := 0, make([]byte, 4096), true; more; got++ {
		select {
		case _, more = <-said:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			t.Fatalf("the log waits, after %d lines", got)
		}
		_, _ = io.ReadFull(read, page) // at the end it may be less
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestLogToAFile(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := testutil.Child(t, "log")
	cmd.Stderr = file
	if output, err := cmd.Output(); err != nil || string(output) != "0\n0\n" {
		t.Errorf("got %q and %v, want nothing lost", output, err)
	}
	text, err := os.ReadFile(file.Name())
	if err != nil || strings.Count(string(text), "\n") != stuckLines+1 || !strings.HasPrefix(string(text), "line number=0\n") {
		t.Errorf("%d lines and %v, want %d", strings.Count(string(text), "\n"), err, stuckLines+1)
	}
}

// Entries that a busy journal does not take come later, in order; what it never
// takes goes to standard error in the end.
func TestEntriesWaitForABusyJournal(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer linux.CloseFD(&fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: dir + "/socket"}); err != nil {
		t.Fatal(err)
	}
	journal, err := sdnotify.OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	said := &lines{}
	h := &handler{level: slog.LevelDebug, priority: true, write: func(r *record) { said.write(r.line(true)) }}
	h.journal.Store(&journalWriter{journal: journal})
	log := &Log{Logger: slog.New(h), handler: h}
	const count = 200 // more than any queue of datagrams holds here
	buf, got := make([]byte, 4096), 0
	read := func() {
		for {
			n, err := unix.Read(fd, buf)
			if err != nil {
				return
			}
			if want := fmt.Sprintf("MESSAGE=entry %d\n", got); !strings.HasPrefix(string(buf[:n]), want) {
				t.Fatalf("got %q, want %q", buf[:n], want)
			}
			got++
		}
	}
	for i := range count {
		log.Info(fmt.Sprintf("entry %d", i))
	}
	for turn := 0; log.RetryJournal(1) != policy.Never; turn++ {
		if read(); turn > count {
			t.Fatal("the queue does not drain")
		}
	}
	read()
	if got != count || len(said.all()) != 0 {
		t.Errorf("%d entries, and lines %q; want %d and none", got, said.all(), count)
	}
	for i := range count {
		log.Info(fmt.Sprintf("entry %d", got+i))
	}
	log.EndJournal()
	read()
	if lost := said.all(); got+len(lost) != 2*count || len(lost) == 0 || lost[len(lost)-1] != fmt.Sprintf("<6>entry %d\n", 2*count-1) {
		t.Errorf("%d entries and %d lines, want %d together", got, len(lost), 2*count)
	}
	if log.RetryJournal(1) != policy.Never {
		t.Error("it waits for a journal that is not used any more")
	}
}
