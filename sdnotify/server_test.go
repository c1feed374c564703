// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
)

// buffer is shared, as that of all servers of a program can be.
var buffer sdnotify.Buffer

func serve(t *testing.T) (s *sdnotify.Server, client int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	if err := os.WriteFile(path, []byte("stale"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := sdnotify.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	client, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(client, &unix.SockaddrUnix{Name: s.Path()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Close(client)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return s, client
}

// open lists the descriptors of this process.
func open(t *testing.T) string {
	t.Helper()
	return fmt.Sprint(openFDs(t))
}

func TestReceive(t *testing.T) {
	s, client := serve(t)
	if _, err := s.Receive(&buffer); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("from an empty queue: %v", err)
	}
	if err := unix.Sendmsg(client, []byte("READY=1"), unix.UnixRights(0, 1), nil, 0); err != nil {
		t.Fatal(err)
	}
	d, err := s.Receive(&buffer)
	if err != nil || d.Refused != nil || !d.Message.Ready || d.PID != os.Getpid() || int(d.UID) != os.Getuid() || len(d.FDs) != 2 {
		t.Fatalf("got %+v, %v", d, err)
	}
	for _, fd := range d.FDs {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d: flags %d, %v", fd, flags, err)
		}
	}
	if d.PIDFD >= 0 {
		if err := unix.PidfdSendSignal(d.PIDFD, 0, nil, 0); err != nil {
			t.Errorf("the pidfd: %v", err)
		}
	} else {
		t.Log("this kernel passes no pidfd")
	}
	d.Close()
	if info, err := os.Stat(s.Path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// A process without the library: Python's own sockets.
func TestReceiveFromAnotherProcess(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip(err)
	}
	s, _ := serve(t)
	cmd := exec.Command(python, "-c", `
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b"STATUS=from outside", os.environ["NOTIFY_SOCKET"])
`)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+s.Path())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d, err := s.Receive(&buffer)
	if err != nil || d.Message.Status != "from outside" || d.PID != cmd.Process.Pid {
		t.Errorf("got %+v, %v", d, err)
	}
	d.Close()
}

// Hostile datagrams come with a reason and without a message. No descriptor is left
// when they have been closed, however many came.
func TestHostileDatagrams(t *testing.T) {
	s, client := serve(t)
	before := open(t)
	many := make([]int, 253)
	for _, c := range []struct {
		text string
		fds  []int
		want string
	}{
		{"", nil, "empty"},
		{"", []int{0}, "empty"},
		{"READY=1\x00STOPPING=1", many, "NUL"},
		{strings.Repeat("X", 4097), many, "longer"},
		{strings.Repeat("X", 60000), nil, "longer"},
		{"BARRIER=1", nil, "BARRIER=1 with 0"},
		{"BARRIER=1", many, "BARRIER=1 with 253"},
		{"FDSTORE=1", many, ""},
	} {
		for range 3 {
			if err := unix.Sendmsg(client, []byte(c.text), unix.UnixRights(c.fds...), nil, 0); err != nil {
				t.Fatal(err)
			}
			d, err := s.Receive(&buffer)
			if err != nil || d.PID != os.Getpid() {
				t.Fatalf("%.20q: got %+v, %v", c.text, d, err)
			}
			switch {
			case c.want == "" && (d.Refused != nil || len(d.FDs) != len(c.fds)):
				t.Errorf("%.20q: %d descriptors, %v", c.text, len(d.FDs), d.Refused)
			case c.want != "" && (d.Refused == nil || !strings.Contains(d.Refused.Error(), c.want) || len(d.FDs) != len(c.fds) || !reflect.DeepEqual(d.Message, sdnotify.Message{})):
				t.Errorf("%.20q with %d descriptors: got %+v, want %q", c.text, len(c.fds), d, c.want)
			}
			d.Close()
		}
	}
	if after := open(t); after != before {
		t.Errorf("descriptors: got %s, want %s", after, before)
	}
}

// Who looks has the text and the sender, and neither gets nor drops a descriptor;
// who skips gets nothing at all.
func TestLookTakesNothing(t *testing.T) {
	s, client := serve(t)
	if _, err := s.Look(&buffer); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("at an empty queue: %v", err)
	}
	if err := s.Skip(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("skips in an empty queue: %v", err)
	}
	before := open(t)
	for _, c := range []struct {
		text string
		fds  int
		want string
	}{
		{"READY=1", 0, ""},
		{"READY=1", 1, ""},
		{"FDSTORE=1", 253, ""},
		{"BARRIER=1", 1, ""},
		{"BARRIER=1", 0, "without"},
		{"", 253, "empty"},
		{strings.Repeat("X", 4097), 253, "longer"},
	} {
		var oob []byte
		if c.fds > 0 {
			oob = unix.UnixRights(make([]int, c.fds)...)
		}
		if err := unix.Sendmsg(client, []byte(c.text), oob, nil, 0); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			d, err := s.Look(&buffer)
			if err != nil || d.PID != os.Getpid() || d.Carries != (c.fds > 0) || len(d.FDs) != 0 || d.PIDFD != -1 {
				t.Fatalf("%.20q: got %+v, %v", c.text, d, err)
			}
			if (c.want == "") != (d.Refused == nil) || c.want != "" && !strings.Contains(d.Refused.Error(), c.want) {
				t.Errorf("%.20q with %d descriptors: got %v, want %q", c.text, c.fds, d.Refused, c.want)
			}
		}
		if err := s.Skip(); err != nil {
			t.Fatal(err)
		}
		if after := open(t); after != before {
			t.Fatalf("%.20q with %d descriptors: open: got %s, want %s", c.text, c.fds, after, before)
		}
	}
	if _, err := s.Look(&buffer); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("after all: %v", err)
	}
}

// Where descriptors cannot be received, for want of room in this process's own
// table, the datagram says so.
func TestNoRoomForDescriptors(t *testing.T) {
	s, client := serve(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendmsg(client, []byte("FDSTORE=1"), unix.UnixRights(make([]int, 253)...), nil, 0); err != nil {
		t.Fatal(err)
	}
	before := open(t)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	d, err := s.Receive(&buffer)
	if err2 := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err2 != nil {
		t.Fatal(err2)
	}
	if err != nil || d.Refused == nil {
		t.Errorf("got %+v, %v", d, err)
	}
	d.Close()
	if after := open(t); after != before {
		t.Errorf("descriptors: got %s, want %s", after, before)
	}
}

func TestListenRefuses(t *testing.T) {
	for _, path := range []string{"", "relative", "/" + strings.Repeat("x", 107), "/nonexistent/dir/notify"} {
		if s, err := sdnotify.Listen(path); err == nil {
			t.Errorf("listens at %q", s.Path())
		}
	}
}

func TestReceiveAllocatesLittle(t *testing.T) {
	s, client := serve(t)
	if got := testing.AllocsPerRun(100, func() {
		if _, err := unix.SendmsgN(client, []byte("WATCHDOG=1"), nil, nil, 0); err != nil {
			t.Fatal(err)
		}
		d, err := s.Receive(&buffer)
		if err != nil {
			t.Fatal(err)
		}
		d.Close()
	}); got > 20 {
		t.Errorf("%v allocations for a keep-alive", got)
	}
}

// The room for control messages is what the kernel's macros ask for.
func TestBufferHoldsEverything(t *testing.T) {
	if got, want := sdnotify.OOBMax, unix.CmsgSpace(4*253)+unix.CmsgSpace(4)+unix.CmsgSpace(unix.SizeofUcred); got < want {
		t.Errorf("%d bytes, want %d", got, want)
	}
}
