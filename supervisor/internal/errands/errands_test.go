// SPDX-License-Identifier: AGPL-3.0-or-later

package errands_test

import (
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/errands"
	"github.com/decnet/prefork/supervisor/internal/errands/errandstest"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/policy"
)

// So many owners are served at once; the rest wait in order. Each has what it gave
// done in order.
func TestPlacesAreBounded(t *testing.T) {
	d := errands.New(polltest.New(t).Wake())
	var begun sync.WaitGroup
	proceed := make(chan struct{})
	begun.Add(errands.MaxPlaces)
	for range errands.MaxPlaces {
		d.Owner().Do(func() {
			begun.Done()
			<-proceed
		})
	}
	begun.Wait()
	var mu sync.Mutex
	var order []int
	first, second := d.Owner(), d.Owner()
	for i := range 10 {
		e := first
		if i >= 5 {
			e = second
		}
		e.Do(func() {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, i)
		})
	}
	if d.Waiting() != 2 || first.Idle() {
		t.Errorf("%d owners wait, want 2", d.Waiting())
	}
	proceed <- struct{}{} // one place
	testutil.Eventually(t, "their turn", second.Idle)
	if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}; !slices.Equal(order, want) {
		t.Errorf("done in the order %v", order)
	}
	close(proceed)
	testutil.Eventually(t, "the end of all", func() bool { return d.Due() == policy.Never })
}

// A last close that blocks is nobody's but the pool's, and a prod ends it.
func TestWhatBlocksIsProdded(t *testing.T) {
	poller := polltest.New(t)
	d := errands.New(poller.Wake())
	owner, linger := d.Owner(), errandstest.Lingering(t)
	errandstest.Quick(t, "two that block", func() { owner.Close(linger(), linger()) })
	if owner.Idle() || owner.Holds() != 2 || d.Due() == policy.Never {
		t.Errorf("%d are held, to be prodded at %d", owner.Holds(), d.Due())
	}
	errandstest.ProdAll(t, d)
	if !owner.Idle() || owner.Holds() != 0 {
		t.Errorf("%d are held in the end", owner.Holds())
	}
	if ready := poller.Wait(poll.Now().Add(testutil.Patience), poll.Now()); len(ready) != 1 {
		t.Errorf("nobody is told: %v", ready)
	}
}

// A socket in which a stranger's descriptor waits is not closed by who calls, and is
// waited for no more; another is closed at once.
func TestSocketsAreClosedWithWhatIsInThem(t *testing.T) {
	testutil.WantNoLeak(t)
	poller := polltest.New(t)
	d, source := errands.New(poller.Wake()), poller.Source(1)
	for _, blocks := range []bool{false, true} {
		ours, theirs, err := linux.Seqpacket()
		if err != nil {
			t.Fatal(err)
		}
		if err := source.Add(ours, 1); err != nil {
			t.Fatal(err)
		}
		if blocks {
			_ = unix.SetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 1) // as before Linux 6.16
			fd := errandstest.Lingering(t)()
			if err := unix.Sendmsg(theirs, []byte("x"), unix.UnixRights(fd), nil, 0); err != nil {
				t.Fatal(err)
			}
			linux.CloseFD(&fd)
		}
		errandstest.Quick(t, "the close", func() { d.CloseSocket(source, &ours) })
		if pending := d.Due() != policy.Never; ours != -1 || pending != blocks {
			t.Errorf("blocks: %t; it is %d, and something is being closed: %t", blocks, ours, pending)
		}
		linux.CloseFD(&theirs)
		for _, ready := range poller.Wait(0, 1) {
			if ready.Kind == 1 {
				t.Error("it is still waited for")
			}
		}
	}
	errandstest.ProdAll(t, d)
}
