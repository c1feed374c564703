// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/testutil"
)

func gates(t *testing.T) (ours, theirs int) {
	t.Helper()
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Close(ours)
		_ = unix.Close(theirs) // a test may have closed it
	})
	return ours, theirs
}

func TestReceiveTellsWhatAProcessSays(t *testing.T) {
	ours, theirs := gates(t)
	if msg, err := Receive(ours); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("nothing was said: got %v and %v, want EAGAIN", msg, err)
	}
	long := strings.Repeat("x", InlineMax)
	for text, want := range map[string]Message{
		"hello\x0018446744073709551615":   Hello{ID: ^uint64(0), PID: os.Getpid(), UID: os.Getuid()},
		"failed\x00203\x00no such file":   Failed{"no such file"},
		"failed\x00203\x00two\nlines\x00": Failed{"two lines"},
		"failed":                          Failed{},
		"failed\x001\x00" + long:          Failed{long[:MaxText]},
		"":                                nil,
		"hello":                           nil,
		"hello\x00-1":                     nil,
		"hello\x001\x002":                 nil,
		"hello\x0018446744073709551616":   nil,
		"go\x00worker=web":                nil,
	} {
		if err := linux.Send(theirs, []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := Receive(ours)
		if got != want || (err == nil) != (want != nil) || errors.Is(err, io.EOF) {
			t.Errorf("%.40q: got %#v and %v, want %#v", text, got, err, want)
		}
	}
	if err := unix.Close(theirs); err != nil {
		t.Fatal(err)
	}
	if msg, err := Receive(ours); !errors.Is(err, io.EOF) {
		t.Errorf("it has left: got %v and %v, want io.EOF", msg, err)
	}
}

func TestAHelloWithoutASenderIsNone(t *testing.T) {
	if msg, err := parse([]byte("hello\x001"), unix.Ucred{}); err == nil {
		t.Errorf("got %#v", msg)
	}
}

// FuzzParse: a process that is not trusted says anything.
func FuzzParse(f *testing.F) {
	f.Add([]byte("hello\x007"))
	f.Add([]byte("failed\x00203\x00\x1b[2J\x9b31m\xff\xfe\u2028\u202e\n<0>x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := parse(b, unix.Ucred{Pid: 1})
		if (msg == nil) != (err != nil) {
			t.Fatalf("%q: got %#v and %v", b, msg, err)
		}
		if failed, ok := msg.(Failed); ok {
			wantOneLine(t, failed.Text, MaxText)
		}
	})
}

func wantOneLine(t *testing.T, text string, most int) {
	t.Helper()
	if len(text) > most || !utf8.ValidString(text) || strings.TrimSpace(text) != text ||
		strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%q is not one line of at most %d bytes", text, most)
	}
}

func TestOrdersTravelInOneMessageOrInAMemfd(t *testing.T) {
	ours, theirs := gates(t)
	_, w := pipe(t)
	before := testutil.OpenFDs()
	for _, size := range []int{0, InlineMax, 1 << 20} {
		want := fmt.Sprintf("A=%0*d", size, 1)
		if err := Send(ours, &Orders{Env: []string{want}, Argv: []string{"x"}}, int(w.Fd()), 2); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		o, fds, err := receiveOrders(theirs)
		if err != nil || len(fds) != 2 || len(o.Env) != 1 || o.Env[0] != want {
			t.Fatalf("%d bytes: got %d descriptors and %v", size, len(fds), err)
		}
		var sent, got unix.Stat_t
		if unix.Fstat(int(w.Fd()), &sent) != nil || unix.Fstat(fds[0], &got) != nil || sent.Ino != got.Ino {
			t.Errorf("%d bytes: the first descriptor is another", size)
		}
		_, _ = unix.Close(fds[0]), unix.Close(fds[1])
	}
	if after := testutil.OpenFDs(); after != before {
		t.Errorf("open descriptors: got %s, want %s", after, before)
	}
}

// The largest message that is sent whole is the largest that is read whole.
func TestOrdersAtTheLimitOfOneMessage(t *testing.T) {
	ours, theirs := gates(t)
	empty := len((&Orders{Title: "x"}).Encode()) - 1 + len(goName) + 1
	for size := InlineMax - empty - 1; size <= InlineMax-empty+1; size++ {
		title := strings.Repeat("t", size)
		if err := Send(ours, &Orders{Title: title}); err != nil {
			t.Fatal(err)
		}
		if o, _, err := receiveOrders(theirs); err != nil || o.Title != title {
			t.Errorf("a title of %d bytes: %v", size, err)
		}
	}
}

func TestGoRefusesMoreDescriptorsThanTravel(t *testing.T) {
	ours, theirs := gates(t)
	fds := make([]int, MaxFDs+1)
	for i := range fds {
		fds[i] = 2
	}
	if err := Send(ours, &Orders{}, fds...); err == nil {
		t.Error("254 descriptors: no error")
	}
	if err := Send(ours, &Orders{Title: strings.Repeat("t", InlineMax)}, fds[:MaxFDs]...); err == nil {
		t.Error("253 descriptors and a memfd: no error")
	}
	if err := Send(ours, &Orders{}, fds[:MaxFDs]...); err != nil {
		t.Errorf("253 descriptors: %v", err)
	}
	_, got, err := receiveOrders(theirs)
	if len(got) != MaxFDs || err != nil {
		t.Errorf("got %d descriptors and %v", len(got), err)
	}
	for _, fd := range got {
		_ = unix.Close(fd)
	}
}

func TestReceiveOrdersRefusesNonsense(t *testing.T) {
	ours, theirs := gates(t)
	for _, text := range []string{"come\x00worker=web", "go\x00memfd", "go", "go\x00x"} {
		if err := linux.Send(ours, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if o, _, err := receiveOrders(theirs); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%q: got %+v and %v", text, o, err)
		}
	}
}
