// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"slices"
	"sync"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/policy"
)

// maxHistory is how many lines about a slot are kept, for those who ask where
// there is no journal.
const maxHistory = 8

// history has the last lines about each slot.
type history struct {
	mu    sync.Mutex
	lines map[string][]line
}

type line struct {
	at   policy.Instant
	text string
}

func (h *history) add(now policy.Instant, slot, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	lines := h.lines[slot]
	if len(lines) >= maxHistory {
		lines = slices.Delete(lines, 0, len(lines)-maxHistory+1)
	}
	h.lines[slot] = append(lines, line{now, text})
}

// of returns the lines about a slot, never nil.
func (h *history) of(slot string) []control.HistoryEntry {
	clock := NewClock()
	h.mu.Lock()
	defer h.mu.Unlock()
	all := []control.HistoryEntry{}
	for _, l := range h.lines[slot] {
		all = append(all, control.HistoryEntry{Timestamp: clock.At(l.at), Text: l.text})
	}
	return all
}
