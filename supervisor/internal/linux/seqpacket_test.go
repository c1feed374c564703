// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

func TestReceiveTellsWhoSentWhat(t *testing.T) {
	ours, theirs := pair(t)
	buf := make([]byte, 16)
	if _, _, err := Receive(ours, buf); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("nothing there: got %v, want EAGAIN", err)
	}
	for _, text := range []string{"hello", "", "sixteen bytes!!!"} {
		if err := Send(theirs, []byte(text)); err != nil {
			t.Fatal(err)
		}
		n, from, err := Receive(ours, buf)
		if string(buf[:n]) != text || int(from.Pid) != os.Getpid() || int(from.Uid) != os.Getuid() || err != nil {
			t.Errorf("%q: got %q from %+v and %v, want it from %d", text, buf[:n], from, err, os.Getpid())
		}
	}
	if err := unix.Close(theirs); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := Receive(ours, buf); !errors.Is(err, io.EOF) {
			t.Errorf("closed: got %v, want io.EOF", err)
		}
	}
}

func TestReceiveRefusesWhatIsTooLongAndGoesOn(t *testing.T) {
	ours, theirs := pair(t)
	buf := make([]byte, 4)
	for _, text := range []string{"12345", "123"} {
		if err := Send(theirs, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if n, from, err := Receive(ours, buf); err == nil || errors.Is(err, io.EOF) || n != 4 || from.Pid != 0 {
		t.Errorf("too long: got %d bytes from %+v and %v, want an error of one message", n, from, err)
	}
	if n, _, err := Receive(ours, buf); string(buf[:n]) != "123" || err != nil {
		t.Errorf("the next: got %q and %v", buf[:n], err)
	}
}

// What a process says before it ends without having read its own messages is
// the cause of its end.
func TestReceiveReadsLastWordsBeforeTheReset(t *testing.T) {
	ours, theirs := pair(t)
	if err := Send(ours, []byte("orders")); err != nil {
		t.Fatal(err)
	}
	if err := Send(theirs, []byte("why")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(theirs); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, _, err := Receive(ours, buf); string(buf[:n]) != "why" || err != nil {
		t.Errorf("got %q and %v, want why", buf[:n], err)
	}
	if _, _, err := Receive(ours, buf); !errors.Is(err, io.EOF) {
		t.Errorf("then: got %v, want io.EOF", err)
	}
}

// The other side is user code. What it pushes becomes no descriptor of this process,
// and is not dropped by it: it stays where it is. Where the kernel knows how, it does
// not even come.
func TestReceiveTakesNoDescriptors(t *testing.T) {
	testutil.WantNoLeak(t)
	for _, count := range []int{1, 4, 253} {
		ours, theirs := pair(t)
		fds := slices.Repeat([]int{2}, count)
		if err := Send(theirs, []byte("take"), fds...); err == nil {
			t.Log("this kernel lets them through") // before Linux 6.16
		} else if !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		} else if err := unix.SetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 1); err != nil {
			t.Fatal(err)
		} else if err := Send(theirs, []byte("take"), fds...); err != nil {
			t.Fatal(err)
		}
		before, buf := testutil.OpenFDs(), make([]byte, 16)
		for range 2 {
			if n, _, err := Receive(ours, buf); n != 0 || !errors.Is(err, ErrRights) {
				t.Errorf("with %d descriptors: got %q and %v, want ErrRights", count, buf[:n], err)
			}
		}
		if after := testutil.OpenFDs(); after != before {
			t.Fatalf("after %d descriptors were pushed: got %v, want %v", count, after, before)
		}
		if Drained(ours) {
			t.Error("a socket with descriptors is said to be drained")
		}
	}
}

func TestDrained(t *testing.T) {
	for name, c := range map[string]struct {
		before func(ours, theirs int)
		want   bool
	}{
		"nothing was said": {func(int, int) {}, true},
		"an empty message": {func(_, theirs int) { _ = Send(theirs, nil) }, false},
		"a message":        {func(_, theirs int) { _ = Send(theirs, []byte("x")) }, false},
		"it has left":      {func(_, theirs int) { _ = unix.Shutdown(theirs, unix.SHUT_RDWR) }, true},
		"it left what was for it": {func(ours, theirs int) {
			_ = Send(ours, []byte("orders"))
			_ = unix.Close(theirs)
		}, true},
	} {
		ours, theirs := pair(t)
		c.before(ours, theirs)
		if got := Drained(ours); got != c.want {
			t.Errorf("%s: got %t, want %t", name, got, c.want)
		}
		if err := Send(theirs, []byte("more")); !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.EBADF) {
			t.Errorf("%s: more can be sent: %v", name, err)
		}
	}
}

func TestSendDoesNotBlockOnWhoDoesNotRead(t *testing.T) {
	ours, theirs := pair(t)
	message := make([]byte, 4096)
	var err error
	for i := 0; err == nil && i < 100000; i++ {
		err = Send(ours, message)
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("got %v, want EAGAIN", err)
	}
	if err := unix.Close(theirs); err != nil {
		t.Fatal(err)
	}
	// The other side had not read everything: that is told first.
	for _, want := range []error{unix.ECONNRESET, unix.EPIPE} {
		if err := Send(ours, message); !errors.Is(err, want) {
			t.Errorf("nobody is there: got %v, want %v and no signal", err, want)
		}
	}
}

func TestReceiveFDsReturnsMessageAndDescriptors(t *testing.T) {
	testutil.WantNoLeak(t)
	ours, theirs := pair(t)
	memfd, err := Memfd("test", []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memfd)
	if err := Send(ours, []byte("two"), memfd, 2); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, fds, err := ReceiveFDs(theirs, buf, 4)
	if string(buf[:n]) != "two" || len(fds) != 2 || err != nil {
		t.Fatalf("got %q, %v and %v, want two and its descriptors", buf[:n], fds, err)
	}
	content := make([]byte, 16)
	m, err := unix.Pread(fds[0], content, 0)
	if err != nil || !bytes.Equal(content[:m], []byte("content")) {
		t.Errorf("the first descriptor: got %q and %v", content[:max(m, 0)], err)
	}
	for _, fd := range fds {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
			t.Errorf("flags: got %d and %v, want FD_CLOEXEC", flags, err)
		}
		_ = unix.Close(fd)
	}
}

func TestReceiveFDsClosesWhatCameWithACutMessage(t *testing.T) {
	testutil.WantNoLeak(t)
	ours, theirs := pair(t)
	for name, c := range map[string]struct {
		text string
		fds  int
		room int
	}{
		"too many descriptors": {"x", 5, 2},
		"too long":             {strings.Repeat("x", 17), 2, 4},
		"empty and too many":   {"", 5, 1},
	} {
		if err := Send(ours, []byte(c.text), slices.Repeat([]int{2}, c.fds)...); err != nil {
			t.Fatal(err)
		}
		before := testutil.OpenFDs()
		n, fds, err := ReceiveFDs(theirs, make([]byte, 16), c.room)
		if n != 0 || fds != nil || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: got %d bytes, %v and %v, want an error", name, n, fds, err)
		}
		if after := testutil.OpenFDs(); after != before {
			t.Errorf("%s: open descriptors: got %v, want %v", name, after, before)
		}
	}
}

func TestReceiveFDsBlocksUntilTheEnd(t *testing.T) {
	ours, theirs := pair(t)
	got := make(chan error)
	go func() {
		_, _, err := ReceiveFDs(theirs, make([]byte, 16), 4)
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("it did not block: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if err := unix.Shutdown(ours, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want io.EOF", err)
	}
}

// Who is told something by OneWay can send nothing, and if it does not read, its sender is
// told so after a few messages.
func TestOneWay(t *testing.T) {
	ours, theirs, err := OneWay()
	if err != nil {
		t.Fatal(err)
	}
	defer CloseFD(&ours)
	defer CloseFD(&theirs)
	if err := Send(theirs, []byte("x"), ours); !errors.Is(err, unix.EPIPE) {
		t.Errorf("the other side: got %v, want EPIPE", err)
	}
	sent := 0
	for ; err == nil && sent < 1000; sent++ {
		err = Send(ours, []byte("restart"))
	}
	if !errors.Is(err, unix.EAGAIN) || sent > 50 {
		t.Errorf("%d messages that nobody reads, %v", sent, err)
	}
	buf := make([]byte, 16)
	if n, _, _, _, err := unix.Recvmsg(theirs, buf, nil, 0); string(buf[:n]) != "restart" || err != nil {
		t.Errorf("got %q and %v", buf[:n], err)
	}
	CloseFD(&theirs)
	if err := Send(ours, []byte("x")); !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("nobody is there: got %v", err)
	}
}
