// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// lingerFor is how long a close of a socket of lingering blocks: longer than a test
// lasts, and short enough that one that fails ends.
const lingerFor = 2 * testutil.Patience

// lingering returns a function that makes sockets of which the last close blocks:
// they have sent what nobody reads. The caller has the only copy. sendTo closes it.
func lingering(t *testing.T) func() int {
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
		linger := unix.Linger{Onoff: 1, Linger: int32(lingerFor / time.Second)}
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &linger); err != nil {
			t.Fatal(err)
		}
		for chunk := make([]byte, 1<<16); err == nil; {
			_, err = unix.Write(fd, chunk)
		}
		return fd
	}
}

// pass sends one datagram with descriptors, of which it closes its own copies.
func pass(t *testing.T, to int, text string, fds ...int) {
	t.Helper()
	sendTo(t, to, text, fds...)
	for _, fd := range fds {
		_ = unix.Close(fd) // not the last: one is on its way
	}
}

// quick fails if something is waited for.
func quick(t *testing.T, what string, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if took := time.Since(begin); took > lingerFor/10 {
		t.Errorf("%s: it took %s", what, took)
	}
}

// prodAll prods as the loop does, each second, but faster.
func prodAll(t *testing.T, d *disposal) {
	t.Helper()
	testutil.Eventually(t, "all is dropped", func() bool {
		due := d.due()
		d.prod(due)
		return due == fleet.Never
	})
}

// Whatever a slot sends, the loop does not wait for it. The slot is not heard until
// that is dropped, and others are.
func TestNoDescriptorBlocksTheLoop(t *testing.T) {
	linger := lingering(t)
	for name, attack := range map[string]func(m *master, s *slot, fd int){
		"refused":         func(_ *master, _ *slot, fd int) { pass(t, fd, "READY=1\x00", linger(), linger()) },
		"empty":           func(_ *master, _ *slot, fd int) { pass(t, fd, "", linger()) },
		"nobody asked":    func(_ *master, _ *slot, fd int) { pass(t, fd, "READY=1", linger()) },
		"a barrier":       func(_ *master, _ *slot, fd int) { pass(t, fd, "BARRIER=1", linger()) },
		"several at once": func(_ *master, _ *slot, fd int) { pass(t, fd, "BARRIER=1", linger(), linger()) },
		"with a removal":  func(_ *master, _ *slot, fd int) { pass(t, fd, "FDSTOREREMOVE=1\nFDNAME=x", linger()) },
		"of a stranger": func(_ *master, s *slot, fd int) {
			s.process.pid++
			pass(t, fd, "READY=1", linger())
		},
		"no store": func(_ *master, s *slot, fd int) {
			s.store.most = 0
			pass(t, fd, "FDSTORE=1", linger())
		},
		"stored and removed": func(_ *master, _ *slot, fd int) {
			pass(t, fd, "FDSTORE=1\nFDNAME=x", linger())
			pass(t, fd, "FDSTOREREMOVE=1\nFDNAME=x")
		},
		"no room": func(_ *master, _ *slot, fd int) {
			pass(t, fd, "FDSTORE=1", linger(), linger(), linger(), linger())
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, s, _, fd := newHearingMaster(t, notifyMain())
			attack(m, s, fd)
			pass(t, fd, "READY=1")
			quick(t, "to hear it", func() {
				m.hear(s)
				m.skipBurdens()
				m.hear(s)
			})
			if s.errands.idle() {
				t.Error("nothing is being dropped")
			}
			if s.burdened {
				quick(t, "a turn", func() { m.unmute(m.now()) })
				if got := m.poller.Wait(0, 1); len(got) != 0 {
					t.Errorf("what it said is heard before that: %v", got)
				}
			}
			prodAll(t, m.disposal)
			m.unmute(m.now())
			m.hear(s)
			if s.burdened || len(m.muted) > 0 {
				t.Error("the slot is not heard again")
			}
		})
	}
}

// The end of a fleet waits for nothing that its processes have sent or stored.
func TestTheEndWaitsForNoDescriptor(t *testing.T) {
	linger := lingering(t)
	m, s, _, fd := newHearingMaster(t, notifyMain())
	pass(t, fd, "FDSTORE=1", linger())
	m.hear(s)
	if len(s.store.fds) != 1 {
		t.Fatal("nothing is stored")
	}
	for range 3 {
		pass(t, fd, "BARRIER=1", linger())
	}
	quick(t, "the end", s.close)
	prodAll(t, m.disposal)
}

// A slot that has too much to be closed is not heard, one that has a little is.
func TestASlotWithTooMuchToCloseIsMuted(t *testing.T) {
	m, s, _, _ := newHearingMaster(t, notifyMain())
	begun, proceed := make(chan struct{}), make(chan struct{})
	s.errands.do(func() {
		close(begun)
		<-proceed
	})
	<-begun
	spare := func() int {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	for range mostHeld {
		m.drop(s, spare())
	}
	if len(m.muted) != 0 {
		t.Error("it is muted too early")
	}
	m.drop(s, spare())
	m.unmute(m.now())
	if len(m.muted) != 1 {
		t.Error("it is not muted")
	}
	close(proceed)
	testutil.Eventually(t, "all is closed", s.errands.idle)
	m.unmute(m.now())
	if len(m.muted) != 0 {
		t.Error("it is muted for ever")
	}
}

// So many owners are served at once; the rest wait in order. Each has what it gave
// done in order.
func TestPlacesAreBounded(t *testing.T) {
	d := newDisposal(polltest.NewWake(t, polltest.New(t).Source(wakeups)))
	var begun sync.WaitGroup
	proceed := make(chan struct{})
	begun.Add(mostDisposers)
	for range mostDisposers {
		d.owner().do(func() {
			begun.Done()
			<-proceed
		})
	}
	begun.Wait()
	var mu sync.Mutex
	var order []int
	first, second := d.owner(), d.owner()
	for i := range 10 {
		e := first
		if i >= 5 {
			e = second
		}
		e.do(func() {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, i)
		})
	}
	if len(d.waiting) != 2 || first.idle() {
		t.Errorf("%d owners wait, want 2", len(d.waiting))
	}
	proceed <- struct{}{} // one place
	testutil.Eventually(t, "their turn", second.idle)
	if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}; !slices.Equal(order, want) {
		t.Errorf("done in the order %v", order)
	}
	close(proceed)
	testutil.Eventually(t, "the end of all", func() bool { return d.due() == fleet.Never })
}
