// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
)

func newClient(t testing.TB, path string) *sdnotify.Client {
	t.Helper()
	c, err := sdnotify.New(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func socketPath(t testing.TB) string {
	return filepath.Join(t.TempDir(), "notify")
}

func TestSend(t *testing.T) {
	abstract := fmt.Sprintf("@sdnotify-test-%d", os.Getpid())
	for _, path := range []string{socketPath(t), abstract} {
		r, c := listen(t, path), newClient(t, path)
		if err := c.Send(sdnotify.Status("1/1 ready"), sdnotify.Ready()); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		r.expect("READY=1\nSTATUS=1/1 ready")
	}
}

func TestNewPath(t *testing.T) {
	tests := []struct {
		name, path string
		ok         bool
	}{
		{"path", "/run/systemd/notify", true},
		{"abstract", "@/org/freedesktop/notify", true},
		{"longest", "/" + strings.Repeat("x", 106), true},
		{"longest abstract", "@" + strings.Repeat("x", 106), true},
		{"too long", "/" + strings.Repeat("x", 107), false},
		{"abstract too long", "@" + strings.Repeat("x", 107), false},
		{"relative", "notify", false},
		{"vsock", "vsock:2:1234", false},
		{"vsock with type", "vsock-stream:2:1234", false},
		{"root", "/", false},
		{"no name", "@", false},
		{"NUL", "/run/no\x00tify", false},
	}
	for _, test := range tests {
		c, err := sdnotify.New(test.path)
		if ok := err == nil; ok != test.ok || (c != nil) != test.ok {
			t.Errorf("%s: got %v, %v", test.name, c, err)
		}
		_ = c.Close()
	}
}

func TestLongestPathIsReached(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, strings.Repeat("x", 107-len(dir)-1))
	abstract := fmt.Sprintf("@%0106d", os.Getpid())
	for _, path := range []string{path, abstract} {
		r, c := listen(t, path), newClient(t, path)
		if err := c.Send(sdnotify.Ready()); err != nil {
			t.Error(err)
		}
		r.expect("READY=1")
	}
}

func TestNilClient(t *testing.T) {
	c, err := sdnotify.New("")
	if c != nil || err != nil {
		t.Fatalf("got %v, %v, want nil, nil", c, err)
	}
	if err := c.Send(sdnotify.Ready(), sdnotify.Stopping()); err != nil {
		t.Error(err)
	}
	if err := c.Barrier(time.Hour); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestQueueFull lets the receiver read nothing: the sender must be told at once,
// and be heard again as soon as there is room.
func TestQueueFull(t *testing.T) {
	path := socketPath(t)
	r, c := listen(t, path), newClient(t, path)
	var err error
	var sent int
	within(t, 2*time.Second, func() {
		for err == nil && sent < 10000 {
			err = c.Send(sdnotify.Watchdog())
			sent++
		}
	})
	if !errors.Is(err, sdnotify.ErrFull) {
		t.Fatalf("after %d datagrams: got %v, want ErrFull", sent, err)
	}
	within(t, time.Second, func() {
		if err := c.Barrier(time.Hour); !errors.Is(err, sdnotify.ErrFull) {
			t.Errorf("barrier: got %v, want ErrFull", err)
		}
	})
	r.read()
	if err := c.Send(sdnotify.Ready()); err != nil {
		t.Errorf("with room: %v", err)
	}
}

func TestReceiverReplaced(t *testing.T) {
	path := socketPath(t)
	c := newClient(t, path)
	if err := c.Send(sdnotify.Ready()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("before: got %v, want ENOENT", err)
	}
	first := listen(t, path)
	if err := c.Send(sdnotify.Ready()); err != nil {
		t.Error(err)
	}
	first.close()
	if err := c.Send(sdnotify.Ready()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dead: got %v, want ECONNREFUSED", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second := listen(t, path)
	if err := c.Send(sdnotify.Watchdog()); err != nil {
		t.Error(err)
	}
	second.expect("WATCHDOG=1")
}

func TestBarrier(t *testing.T) {
	path := socketPath(t)
	r, c := listen(t, path), newClient(t, path)
	before := openFDs(t)
	done := make(chan error)
	go func() { done <- c.Barrier(10 * time.Second) }()
	if err := waitReadable(r.fd); err != nil {
		t.Fatal(err)
	}
	datagram, fds := r.read()
	if datagram != "BARRIER=1" || len(fds) != 1 {
		t.Fatalf("got %q with %d descriptors, want BARRIER=1 with one", datagram, len(fds))
	}
	select {
	case err := <-done:
		t.Fatalf("over before the descriptor was closed: %v", err)
	case <-time.After(20 * time.Millisecond): // a barrier that does not wait is over by now
	}
	unix.Close(fds[0])
	if err := <-done; err != nil {
		t.Error(err)
	}
	if after := openFDs(t); !reflect.DeepEqual(after, before) {
		t.Errorf("descriptors %v, before %v", after, before)
	}
}

func TestBarrierTimeout(t *testing.T) {
	path := socketPath(t)
	listen(t, path)
	c := newClient(t, path)
	before := openFDs(t)
	for _, timeout := range []time.Duration{-1, 0, 30 * time.Millisecond} {
		start := time.Now()
		if err := c.Barrier(timeout); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: got %v, want ErrDeadlineExceeded", timeout, err)
		}
		if d := time.Since(start); d < timeout {
			t.Errorf("over after %v, want %v", d, timeout)
		}
	}
	if after := openFDs(t); !reflect.DeepEqual(after, before) {
		t.Errorf("descriptors %v, before %v", after, before)
	}
}

// TestBarrierOfDeadReceiver is about a manager that dies with the pipe in its
// queue: the kernel closes it, and nobody is left to wait for.
func TestBarrierOfDeadReceiver(t *testing.T) {
	path := socketPath(t)
	r, c := listen(t, path), newClient(t, path)
	done := make(chan error)
	go func() { done <- c.Barrier(10 * time.Second) }()
	if err := waitReadable(r.fd); err != nil {
		t.Fatal(err)
	}
	r.close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := c.Barrier(10 * time.Second); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("got %v, want ECONNREFUSED", err)
	}
}

func TestClientSocket(t *testing.T) {
	before := openFDs(t)
	c := newClient(t, socketPath(t))
	var opened []int
	for fd := range openFDs(t) {
		if _, old := before[fd]; !old {
			n, _ := strconv.Atoi(fd)
			opened = append(opened, n)
		}
	}
	if len(opened) != 1 {
		t.Fatalf("opened %v, want one descriptor", opened)
	}
	fdFlags, _ := unix.FcntlInt(uintptr(opened[0]), unix.F_GETFD, 0)
	flFlags, _ := unix.FcntlInt(uintptr(opened[0]), unix.F_GETFL, 0)
	if fdFlags&unix.FD_CLOEXEC == 0 || flFlags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %#x, want close on exec and non-blocking", fdFlags, flFlags)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if after := openFDs(t); !reflect.DeepEqual(after, before) {
		t.Errorf("descriptors %v, before %v", after, before)
	}
	if err := c.Send(sdnotify.Ready()); !errors.Is(err, unix.EBADF) {
		t.Errorf("closed: got %v, want EBADF", err)
	}
}

func waitReadable(fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return errors.New("nothing to read")
		default:
			return nil
		}
	}
}
