// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"errors"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// listening is a socket with that backlog.
func listening(t *testing.T, domain, kind, backlog int, at unix.Sockaddr) int {
	t.Helper()
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, at); err != nil {
		t.Fatal(err)
	}
	if kind != unix.SOCK_DGRAM {
		if err := unix.Listen(fd, backlog); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

// connectTo does not wait until somebody accepts.
func connectTo(t *testing.T, fd, domain, kind int) (client int) {
	t.Helper()
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	client, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(client) })
	if err := unix.Connect(client, at); err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	return client
}

var loopback = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}

func wantQueue(t *testing.T, of string, length, limit uint32, err error, wantLength, wantLimit uint32) {
	t.Helper()
	if err != nil || length != wantLength || limit != wantLimit {
		t.Errorf("%s: got %d of %d, %v; want %d of %d", of, length, limit, err, wantLength, wantLimit)
	}
}

func TestAcceptQueues(t *testing.T) {
	diag, err := OpenUnixDiag()
	if err != nil {
		t.Fatal(err)
	}
	defer diag.Close()
	path := func(name string) unix.Sockaddr { return &unix.SockaddrUnix{Name: filepath.Join(t.TempDir(), name)} }
	for _, c := range []struct {
		name         string
		domain, kind int
		at           unix.Sockaddr
		ask          func(int) (uint32, uint32, error)
	}{
		{"TCP", unix.AF_INET, unix.SOCK_STREAM, loopback, AcceptQueue},
		{"TCP over IPv6", unix.AF_INET6, unix.SOCK_STREAM, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}, AcceptQueue},
		{"Unix stream", unix.AF_UNIX, unix.SOCK_STREAM, path("stream"), diag.AcceptQueue},
		{"Unix seqpacket", unix.AF_UNIX, unix.SOCK_SEQPACKET, path("seqpacket"), diag.AcceptQueue},
		{"Unix abstract", unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: "@" + t.TempDir()}, diag.AcceptQueue},
	} {
		fd := listening(t, c.domain, c.kind, 7, c.at)
		other := listening(t, unix.AF_INET, unix.SOCK_STREAM, 1, loopback)
		connectTo(t, other, unix.AF_INET, unix.SOCK_STREAM)
		for n := range uint32(3) {
			length, limit, err := c.ask(fd)
			wantQueue(t, c.name, length, limit, err, n, 7)
			connectTo(t, fd, c.domain, c.kind)
		}
		accepted, _, err := unix.Accept(fd)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(accepted)
		length, limit, err := c.ask(fd)
		wantQueue(t, c.name, length, limit, err, 2, 7)
	}
}

// What does not listen has no such queue, and is not given one.
func TestNoAcceptQueue(t *testing.T) {
	diag, err := OpenUnixDiag()
	if err != nil {
		t.Fatal(err)
	}
	defer diag.Close()
	tcp := listening(t, unix.AF_INET, unix.SOCK_STREAM, 7, loopback)
	client := connectTo(t, tcp, unix.AF_INET, unix.SOCK_STREAM)
	datagrams := listening(t, unix.AF_UNIX, unix.SOCK_DGRAM, 0, &unix.SockaddrUnix{Name: filepath.Join(t.TempDir(), "d")})
	for _, fd := range []int{client, datagrams, 0, -1} {
		if length, limit, err := AcceptQueue(fd); err == nil {
			t.Errorf("AcceptQueue(%d): %d of %d", fd, length, limit)
		}
		if length, limit, err := diag.AcceptQueue(fd); err == nil {
			t.Errorf("UnixDiag.AcceptQueue(%d): %d of %d", fd, length, limit)
		}
	}
	if length, limit, err := diag.AcceptQueue(tcp); err == nil {
		t.Errorf("a TCP socket is a Unix socket with %d of %d", length, limit)
	}
}

// A socket of another network namespace has its queue told if it is of TCP; that of a Unix
// socket is not known.
func TestQueuesOfAnotherNamespace(t *testing.T) {
	diag, err := OpenUnixDiag()
	if err != nil {
		t.Fatal(err)
	}
	defer diag.Close()
	type there struct {
		tcp, unix int
		err       error
	}
	made := make(chan there)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- there{err: err}
			return
		}
		made <- there{
			tcp:  listening(t, unix.AF_INET, unix.SOCK_STREAM, 5, &unix.SockaddrInet4{}),
			unix: listening(t, unix.AF_UNIX, unix.SOCK_STREAM, 5, &unix.SockaddrUnix{Name: filepath.Join(t.TempDir(), "s")}),
		}
	}()
	got := <-made
	if got.err != nil {
		t.Skipf("no other network namespace: %v", got.err)
	}
	length, limit, err := AcceptQueue(got.tcp)
	wantQueue(t, "TCP", length, limit, err, 0, 5)
	if length, limit, err := diag.AcceptQueue(got.unix); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Unix: got %d of %d, %v", length, limit, err)
	}
}

// A handshake that finds the queue full is dropped, and so is a datagram that finds no room.
func TestDropsAreCounted(t *testing.T) {
	tcp := listening(t, unix.AF_INET, unix.SOCK_STREAM, 1, loopback)
	if m, err := MemoryOf(tcp); err != nil || m.Drops != 0 {
		t.Fatalf("got %+v, %v", m, err)
	}
	for range 8 {
		connectTo(t, tcp, unix.AF_INET, unix.SOCK_STREAM)
	}
	length, limit, err := AcceptQueue(tcp)
	wantQueue(t, "full", length, limit, err, 2, 1)
	if m, err := MemoryOf(tcp); err != nil || m.Drops == 0 {
		t.Errorf("got %+v, %v", m, err)
	}
	udp := listening(t, unix.AF_INET, unix.SOCK_DGRAM, 0, loopback)
	if err := unix.SetsockoptInt(udp, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096); err != nil {
		t.Fatal(err)
	}
	client := connectTo(t, udp, unix.AF_INET, unix.SOCK_DGRAM)
	for range 100 {
		if _, err := unix.Write(client, make([]byte, 512)); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := MemoryOf(udp); err != nil || m.Drops == 0 || m.Received == 0 || m.Limit != 8192 {
		t.Errorf("got %+v, %v", m, err)
	}
}
