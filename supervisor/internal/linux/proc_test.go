// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

func TestParseStatBelievesNoName(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want Stat
		ok   bool
	}{
		"plain":           {"7 (cat) R 1 2 3 0 -1 4194304 1 0 2 0 150 50 3 1", Stat{State: 'R', Parent: 1, Session: 3, CPU: 2040 * time.Millisecond}, true},
		"exiting":         {"7 (cat) Z 1 2 3 0 -1 4194308 1 0 2 0 0 0 0 0", Stat{State: 'Z', Parent: 1, Session: 3, Exiting: true}, true},
		"spaces":          {"7 (a b  c) S 1 2 3 0 -1 0 1 0 2 0 0 0 0 0", Stat{State: 'S', Parent: 1, Session: 3}, true},
		"an end":          {"7 (a) R 6 6 6 0 -1 0) S 1 2 3 0 -1 0 1 0 2 0 0 0 0 0", Stat{State: 'S', Parent: 1, Session: 3}, true},
		"lines":           {"7 (\n) R 1 2\n) S 1 2 3 0 -1 0 1 0 2 0 0 0 0 0\n", Stat{State: 'S', Parent: 1, Session: 3}, true},
		"killed":          {"7 (cat) S 1 2 3 0 -1 0 1 0 2 0 0 0 0 0 20 0 1 0 5 6 7 18446744073709551615 1 1 0 0 0 256 0 0 0", Stat{State: 'S', Parent: 1, Session: 3, Killed: true}, true},
		"another signal":  {"7 (cat) T 1 2 3 0 -1 0 1 0 2 0 0 0 0 0 20 0 1 0 5 6 7 18446744073709551615 1 1 0 0 0 2048 0 0 0", Stat{State: 'T', Parent: 1, Session: 3}, true},
		"only brackets":   {"7 ())))) S 1 2 3 0 -1 0 1 0 2 0 0 0 0 0", Stat{State: 'S', Parent: 1, Session: 3}, true},
		"no name":         {"7 S 1 2 3 0 -1 0 1 0 2 0 0 0 0 0", Stat{}, false},
		"nothing":         {"", Stat{}, false},
		"a name only":     {"7 (cat)", Stat{}, false},
		"too few fields":  {"7 (cat) S 1 2 3 0 -1", Stat{}, false},
		"not a number":    {"7 (cat) S 1 x 3 0 -1 0 1 0 2 0 0 0 0 0", Stat{}, false},
		"no single state": {"7 (cat) SS 1 2 3 0 -1 0 1 0 2 0 0 0 0 0", Stat{}, false},
	} {
		got, err := parseStat([]byte(c.text))
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%s: got %+v and %v, want %+v", name, got, err, c.want)
		}
	}
}

// FuzzParseStat: whatever a process calls itself, and however the rest reads,
// what the kernel says is what is read.
func FuzzParseStat(f *testing.F) {
	f.Add("cat", byte('S'), 1, 2, uint32(4))
	f.Add(") R 1 2 3 4 5 6", byte('Z'), -1, 0, uint32(0))
	f.Add("a\n(b) \x00\xff", byte('?'), 0, 1<<22, ^uint32(0))
	f.Fuzz(func(t *testing.T, name string, state byte, parent, session int, flags uint32) {
		_, _ = parseStat([]byte(name)) // as it is: it must only not panic
		if state <= ' ' || state >= 0x7f || state == ')' {
			state = 'S'
		}
		text := fmt.Sprintf("1 (%s) %c %d 9 %d 0 -1 %d 7 7 7 7 0 0 0 0", name, state, parent, session, flags)
		want := Stat{State: state, Parent: parent, Session: session, Exiting: flags&pfExiting != 0}
		if got, err := parseStat([]byte(text)); got != want || err != nil {
			t.Errorf("%q: got %+v and %v, want %+v", text, got, err, want)
		}
	})
}

func TestReadStat(t *testing.T) {
	testutil.WantNoLeak(t)
	session, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	stat, err := ReadStat(os.Getpid())
	stat.State, stat.CPU = 0, 0 // it may sleep for a moment, and has used some
	if want := (Stat{Parent: os.Getppid(), Session: session}); stat != want || err != nil {
		t.Errorf("of this process: got %+v and %v, want %+v", stat, err, want)
	}
	pid, pidfd := child(t, `printf ') R 1 2\n' >/proc/$$/comm; exit 0`)
	ended(t, pid)
	stat, err = ReadStat(pid)
	if want := (Stat{State: 'Z', Parent: os.Getpid(), Session: session, Exiting: true}); stat != want || err != nil {
		t.Errorf("of a zombie: got %+v and %v, want %+v", stat, err, want)
	}
	if _, err := ReapPidfd(pidfd); err != nil {
		t.Fatal(err)
	}
	if stat, err := ReadStat(pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of who has been reaped: got %+v and %v", stat, err)
	}
}

// Children that were forked by any thread, dead ones too, are found by both
// ways of looking, less those to be skipped.
func TestChildrenAndItsFallbackAgree(t *testing.T) {
	testutil.WantNoLeak(t)
	var want []int
	for i := range 6 {
		script := "exec sleep 1000"
		if i%2 == 0 {
			script = "exit 0"
		}
		started := make(chan int)
		go func() {
			runtime.LockOSThread() // each is the child of a thread of its own
			defer runtime.UnlockOSThread()
			pid, _ := child(t, script)
			started <- pid
			<-started
		}()
		want = append(want, <-started)
		defer close(started)
	}
	slices.Sort(want)
	skipped := want[0]
	for name, list := range map[string]func(int, func(int) bool) ([]int, error){
		"children": Children, "/proc": childrenByParent,
	} {
		got, err := list(os.Getpid(), func(int) bool { return false })
		slices.Sort(got)
		if !slices.Equal(got, want) || err != nil {
			t.Errorf("%s: got %v and %v, want %v", name, got, err, want)
		}
		got, err = list(os.Getpid(), func(pid int) bool { return pid == skipped })
		slices.Sort(got)
		if !slices.Equal(got, want[1:]) || err != nil {
			t.Errorf("%s with one skipped: got %v and %v, want %v", name, got, err, want[1:])
		}
	}
}

// An orphan becomes a child of the process that asked for it.
func TestSubreaperAdoptsOrphans(t *testing.T) {
	if err := SetChildSubreaper(); err != nil {
		t.Fatal(err)
	}
	pid, pidfd := child(t, "sleep 1000 >/dev/null & exit 0")
	ended(t, pid)
	if _, err := ReapPidfd(pidfd); err != nil {
		t.Fatal(err)
	}
	orphans, err := Adopted(os.Getpid(), func(int) bool { return false })
	if len(orphans) != 1 || err != nil {
		t.Fatalf("got %v and %v, want one orphan", orphans, err)
	}
	if err := unix.Kill(orphans[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended(t, orphans[0])
	if w, err := ReapPID(orphans[0]); w.Signal != int(unix.SIGKILL) || err != nil {
		t.Errorf("got %+v and %v", w, err)
	}
}

func TestDescends(t *testing.T) {
	child := exec.Command("sh", "-c", "sleep 1000 & echo $!; wait")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var grandchild int
	if _, err := fmt.Fscan(out, &grandchild); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = unix.Kill(grandchild, unix.SIGKILL) // what the test has started
		_ = child.Wait()
	}()
	for _, c := range []struct {
		pid, from int
		want      bool
	}{
		{grandchild, os.Getpid(), true},
		{grandchild, child.Process.Pid, true},
		{child.Process.Pid, os.Getpid(), true},
		{child.Process.Pid, grandchild, false},
		{os.Getpid(), os.Getpid(), false},
		{os.Getppid(), os.Getpid(), false},
		{1, os.Getpid(), false},
	} {
		if got, err := Descends(c.pid, c.from); err != nil || got != c.want {
			t.Errorf("%d from %d: got %v, %v, want %v", c.pid, c.from, got, err, c.want)
		}
	}
	if _, err := Descends(1<<22, os.Getpid()); err == nil {
		t.Error("a process that does not exist: no error")
	}
}
