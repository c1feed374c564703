// SPDX-License-Identifier: AGPL-3.0-or-later

// Package errandstest has descriptors whose close blocks, and what tests ask of who must
// not wait for it.
package errandstest

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/errands"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/policy"
)

// LingerFor is how long a close of a socket of lingering blocks: longer than a test
// lasts, and short enough that one that fails ends.
const LingerFor = 2 * testutil.Patience

// Lingering returns a function that makes sockets of which the last close blocks:
// they have sent what nobody reads. The caller has the only copy.
func Lingering(t testing.TB) func() int {
	t.Helper()
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listener, 100); err != nil {
		t.Fatal(err)
	}
	address, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { linux.CloseFD(&listener) }) // which resets who has not been accepted
	return func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, address); err != nil && err != unix.EINPROGRESS { //nolint:errorlint // a plain errno
			t.Fatal(err)
		}
		testutil.Eventually(t, "connected", func() bool {
			_, err := unix.Getpeername(fd)
			return err == nil
		})
		linger := unix.Linger{Onoff: 1, Linger: int32(LingerFor / time.Second)}
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &linger); err != nil {
			t.Fatal(err)
		}
		for chunk := make([]byte, 1<<16); err == nil; {
			_, err = unix.Write(fd, chunk)
		}
		return fd
	}
}

// Quick fails if something is waited for.
func Quick(t testing.TB, what string, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if took := time.Since(begin); took > LingerFor/10 {
		t.Errorf("%s: it took %s", what, took)
	}
}

// ProdAll prods as the loop does, each second, but faster.
func ProdAll(t testing.TB, d *errands.Pool) {
	t.Helper()
	testutil.Eventually(t, "all is dropped", func() bool {
		due := d.Due()
		d.Prod(due)
		return due == policy.Never
	})
}
