// SPDX-License-Identifier: AGPL-3.0-or-later

package slots

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/errands/errandstest"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// pass sends one datagram with descriptors, of which it closes its own copies.
func pass(t *testing.T, to int, text string, fds ...int) {
	t.Helper()
	sendTo(t, to, text, fds...)
	for _, fd := range fds {
		_ = unix.Close(fd) // not the last: one is on its way
	}
}

// Whatever a slot sends, the loop does not wait for it. The slot is not heard until
// that is dropped, and others are.
func TestNoDescriptorBlocksTheLoop(t *testing.T) {
	linger := errandstest.Lingering(t)
	for name, attack := range map[string]func(m *world){
		"refused":         func(m *world) { pass(t, m.fd, "READY=1\x00", linger(), linger()) },
		"empty":           func(m *world) { pass(t, m.fd, "", linger()) },
		"nobody asked":    func(m *world) { pass(t, m.fd, "READY=1", linger()) },
		"a barrier":       func(m *world) { pass(t, m.fd, "BARRIER=1", linger()) },
		"several at once": func(m *world) { pass(t, m.fd, "BARRIER=1", linger(), linger()) },
		"with a removal":  func(m *world) { pass(t, m.fd, "FDSTOREREMOVE=1\nFDNAME=x", linger()) },
		"of a stranger": func(m *world) {
			m.s.process.PID++
			pass(t, m.fd, "READY=1", linger())
		},
		"no store": func(m *world) {
			m.s.store.max = 0
			pass(t, m.fd, "FDSTORE=1", linger())
		},
		"stored and removed": func(m *world) {
			pass(t, m.fd, "FDSTORE=1\nFDNAME=x", linger())
			pass(t, m.fd, "FDSTOREREMOVE=1\nFDNAME=x")
		},
		"no room": func(m *world) {
			pass(t, m.fd, "FDSTORE=1", linger(), linger(), linger(), linger())
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newWorld(t, notifyMain())
			attack(m)
			pass(t, m.fd, "READY=1")
			errandstest.Quick(t, "to hear it", func() {
				m.read(m.s)
				m.Flush()
				m.read(m.s)
			})
			if m.s.inbox.errands.Idle() {
				t.Error("nothing is being dropped")
			}
			if m.s.inbox.burdened {
				errandstest.Quick(t, "a turn", func() { m.Unmute(poll.Now()) })
				if got := m.poller.Wait(0, 1); len(got) != 0 {
					t.Errorf("what it said is heard before that: %v", got)
				}
			}
			errandstest.ProdAll(t, m.errands)
			m.Unmute(poll.Now())
			m.read(m.s)
			if m.s.inbox.burdened || len(m.muted) > 0 {
				t.Error("the slot is not heard again")
			}
		})
	}
}

// The end of a fleet waits for nothing that its processes have sent or stored.
func TestTheEndWaitsForNoDescriptor(t *testing.T) {
	linger := errandstest.Lingering(t)
	m := newWorld(t, notifyMain())
	pass(t, m.fd, "FDSTORE=1", linger())
	m.read(m.s)
	if len(m.s.store.fds) != 1 {
		t.Fatal("nothing is stored")
	}
	for range 3 {
		pass(t, m.fd, "BARRIER=1", linger())
	}
	errandstest.Quick(t, "the end", m.Close)
	errandstest.ProdAll(t, m.errands)
}

// A slot that has too much to be closed is not heard, one that has a little is.
func TestASlotWithTooMuchToCloseIsMuted(t *testing.T) {
	m := newWorld(t, notifyMain())
	begun, proceed := make(chan struct{}), make(chan struct{})
	m.s.inbox.errands.Do(func() {
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
	for range maxHeld {
		m.drop(m.s, spare())
	}
	if len(m.muted) != 0 {
		t.Error("it is muted too early")
	}
	m.drop(m.s, spare())
	m.Unmute(poll.Now())
	if len(m.muted) != 1 {
		t.Error("it is not muted")
	}
	close(proceed)
	testutil.Eventually(t, "all is closed", m.s.inbox.errands.Idle)
	m.Unmute(poll.Now())
	if len(m.muted) != 0 {
		t.Error("it is muted for ever")
	}
}
