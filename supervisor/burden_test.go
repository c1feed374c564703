// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/disposal/disposaltest"
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
	linger := disposaltest.Lingering(t)
	for name, attack := range map[string]func(m *master, s *slot, fd int){
		"refused":         func(_ *master, _ *slot, fd int) { pass(t, fd, "READY=1\x00", linger(), linger()) },
		"empty":           func(_ *master, _ *slot, fd int) { pass(t, fd, "", linger()) },
		"nobody asked":    func(_ *master, _ *slot, fd int) { pass(t, fd, "READY=1", linger()) },
		"a barrier":       func(_ *master, _ *slot, fd int) { pass(t, fd, "BARRIER=1", linger()) },
		"several at once": func(_ *master, _ *slot, fd int) { pass(t, fd, "BARRIER=1", linger(), linger()) },
		"with a removal":  func(_ *master, _ *slot, fd int) { pass(t, fd, "FDSTOREREMOVE=1\nFDNAME=x", linger()) },
		"of a stranger": func(_ *master, s *slot, fd int) {
			s.process.PID++
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
			disposaltest.Quick(t, "to hear it", func() {
				m.hear(s)
				m.skipBurdens()
				m.hear(s)
			})
			if s.errands.Idle() {
				t.Error("nothing is being dropped")
			}
			if s.burdened {
				disposaltest.Quick(t, "a turn", func() { m.unmute(m.now()) })
				if got := m.poller.Wait(0, 1); len(got) != 0 {
					t.Errorf("what it said is heard before that: %v", got)
				}
			}
			disposaltest.ProdAll(t, m.disposal)
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
	linger := disposaltest.Lingering(t)
	m, s, _, fd := newHearingMaster(t, notifyMain())
	pass(t, fd, "FDSTORE=1", linger())
	m.hear(s)
	if len(s.store.fds) != 1 {
		t.Fatal("nothing is stored")
	}
	for range 3 {
		pass(t, fd, "BARRIER=1", linger())
	}
	disposaltest.Quick(t, "the end", s.close)
	disposaltest.ProdAll(t, m.disposal)
}

// A slot that has too much to be closed is not heard, one that has a little is.
func TestASlotWithTooMuchToCloseIsMuted(t *testing.T) {
	m, s, _, _ := newHearingMaster(t, notifyMain())
	begun, proceed := make(chan struct{}), make(chan struct{})
	s.errands.Do(func() {
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
	testutil.Eventually(t, "all is closed", s.errands.Idle)
	m.unmute(m.now())
	if len(m.muted) != 0 {
		t.Error("it is muted for ever")
	}
}
