// SPDX-License-Identifier: AGPL-3.0-or-later

package slots

import (
	"slices"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// budget bounds the datagrams of one slot: what is beyond it waits in the
// kernel, where the slot alone feels it.
type budget struct {
	left float64
	at   policy.Instant // of left
}

const (
	maxBudget    = 256.0
	budgetPerSec = 1000.0
	budgetPause  = 100 * time.Millisecond // refills a part that is worth a turn
)

func fullBudget() budget { return budget{left: maxBudget} }

func (b *budget) take(now policy.Instant) bool {
	if b.at != 0 {
		b.left = min(maxBudget, b.left+now.Sub(b.at).Seconds()*budgetPerSec)
	}
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func (b *budget) giveBack() { b.left++ }

// maxHeld is how many descriptors of one slot may wait to be closed before it is not
// heard any more.
const maxHeld = 64

// mute leaves a slot's socket alone until then, and until enough of what it sent has
// been dropped.
func (t *Table) mute(s *Slot, until policy.Instant) {
	s.inbox.quiet = max(s.inbox.quiet, until)
	if !slices.Contains(t.muted, s) {
		_ = t.notices.Remove(s.inbox.server.FD()) // the poller has it: this cannot fail
		t.muted = append(t.muted, s)
	}
	t.unmuteAt = min(t.unmuteAt, s.inbox.quiet)
}

// UnmuteAt is when [Table.Unmute] is to be called; that is also whenever something has been
// dropped.
func (t *Table) UnmuteAt() policy.Instant { return t.unmuteAt }

// Unmute listens again to those for whom the time has come.
func (t *Table) Unmute(now policy.Instant) {
	t.unmuteAt = policy.Never
	t.muted = slices.DeleteFunc(t.muted, func(s *Slot) bool {
		switch {
		case now < s.inbox.quiet:
			t.unmuteAt = min(t.unmuteAt, s.inbox.quiet)
			return false
		case s.inbox.burdened && !s.inbox.errands.Idle(), s.inbox.errands.Holds() > maxHeld:
			return false // it wakes the loop
		}
		s.inbox.burdened, s.inbox.quiet = false, 0
		_ = t.notices.Add(s.inbox.server.FD(), uint64(s.ID)) // the poller had it before: this cannot fail
		return true
	})
}
