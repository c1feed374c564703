// SPDX-License-Identifier: AGPL-3.0-or-later

package gauge

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/memory"
)

// TestWhoIsNotTheFleets: a process that has the pid of a slot by now is not measured, nor
// one that has ended, and it is said so.
func TestWhoIsNotTheFleets(t *testing.T) {
	cmd := exec.Command("sh", "-c", "echo $$; read line")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	before := memory.SinceBoot()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	fleet := &control.Status{Name: "edge", MainPID: uint32(os.Getpid()), Slots: []control.SlotStatus{{Name: "web.0", MainPID: uint32(pid), Generation: 3}}}
	r, young := Measure(Question{Fleet: fleet, Before: before})
	if !young || r.Slots[0].Problem != errNotHere.Error() {
		t.Errorf("one that began after the master was asked: %t, %+v", young, r.Slots[0])
	}
	stranger := *fleet
	stranger.MainPID = 1
	if r, young := Measure(Question{Fleet: &stranger, Before: memory.SinceBoot()}); !young || r.Slots[0].Problem != errNotHere.Error() {
		t.Errorf("of another master: %t, %+v", young, r.Slots[0])
	}
	const tick = 10 * time.Millisecond // in which it has begun, and which must be over
	for end := memory.SinceBoot() + 2*tick; memory.SinceBoot() < end; {
		time.Sleep(tick)
	}
	if r, young := Measure(Question{Fleet: fleet, Before: memory.SinceBoot()}); young || r.Slots[0].Problem != "" || r.Slots[0].Own == 0 || r.Slots[0].Shared > 0 {
		t.Errorf("one whose floor has ended: %t, %+v", young, r.Slots[0])
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // reaped: its pid is nobody's
	if r, young := Measure(Question{Fleet: fleet, Before: memory.SinceBoot()}); !young || r.Slots[0].Problem != gone {
		t.Errorf("one that has ended: %t, %+v", young, r.Slots[0])
	}
}

func TestWhyNothingIsTold(t *testing.T) {
	denied := fmt.Errorf("open: %w", unix.EACCES)
	want := "another user's: ask root"
	if os.Geteuid() == 0 {
		want = "it may not be looked into: root has no CAP_SYS_PTRACE here"
	}
	for err, want := range map[error]string{denied: want, unix.ESRCH: gone, fs.ErrNotExist: gone, errNotHere: errNotHere.Error()} {
		if got := unreadable(err); got != want {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
	if got := untold(denied); !strings.Contains(got, "root") {
		t.Errorf("got %q", got)
	}
}
