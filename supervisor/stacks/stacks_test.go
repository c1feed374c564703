// SPDX-License-Identifier: AGPL-3.0-or-later

package stacks

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// A program that sleeps is told with its name, its state and where it sleeps.
func TestWhereAProgramSleeps(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var lines []string
	testutil.Eventually(t, "its sleep", func() bool {
		w, err := Of(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		lines = w.Lines()
		return len(w.Threads) == 1 && w.Threads[0].Name == "sleep" && w.Threads[0].State == 'S' && w.Threads[0].Syscall != ""
	})
	if !strings.Contains(lines[0], "(sleep) sleeps") || !strings.Contains(lines[0], "system call ") {
		t.Errorf("got %q", lines)
	}
	if w, err := Of(cmd.Process.Pid); err != nil || len(w.Asleep().Lines()) != 0 {
		t.Errorf("it is told to sleep as nothing wakes it: %v, %v", w, err)
	}
	if os.Geteuid() == 0 && !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "nanosleep") }) {
		t.Errorf("no function of the kernel in %q", lines)
	}
}

// As many threads are told as fit on a screen, and that there are more.
func TestThreadsAreBounded(t *testing.T) {
	const program = "import threading, time\n" +
		"for _ in range(39): threading.Thread(target=time.sleep, args=[1000], daemon=True).start()\n" +
		"print(); input()"
	cmd := exec.Command("python3", "-c", program)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	w, err := Of(cmd.Process.Pid)
	if err != nil || len(w.Threads) != maxThreads || w.More != 24 {
		t.Errorf("%d threads and %d more, %v", len(w.Threads), w.More, err)
	}
	_ = in.Close()
	if err := cmd.Wait(); err == nil {
		t.Error("it has read a line")
	}
}

// Who may not look is told what he lacks, and what he may see.
func TestWhatIsHiddenIsSaid(t *testing.T) {
	w := Where{Threads: []Thread{{TID: 7, Name: "a", State: 'D', Where: "folio_wait", Frames: []string{"b", "c"}}, {TID: 8, Name: "a", State: 'R'}}, Hidden: []string{"stack"}}
	want := []string{"thread 7 (a) sleeps, and no signal reaches it, in folio_wait: b < c", "thread 8 (a) runs"}
	if got := w.Lines(); !slices.Equal(got[:2], want) || len(got) != 3 || !strings.Contains(got[2], "/proc/PID/stack") {
		t.Errorf("got %q", got)
	}
	if got := w.Asleep().Lines(); got[0] != want[0] || len(got) != 2 {
		t.Errorf("got %q", got)
	}
	if _, err := Of(unix.Getpid() << 8); err == nil {
		t.Error("a process that is not there has threads")
	}
}
