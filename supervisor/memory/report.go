// SPDX-License-Identifier: AGPL-3.0-or-later

package memory

// Report is a fleet's memory at one time, as prefork memory --json prints it. Sizes are
// bytes, of which 0 may mean that they are not known.
type Report struct {
	Fleet     string        `json:"fleet"`
	Timestamp uint64        `json:"timestamp"` // microseconds of CLOCK_REALTIME
	Floors    []FloorReport `json:"floors"`
	Slots     []SlotReport  `json:"slots"`
	Total     Total         `json:"total"`
}

// FloorReport is one floor.
type FloorReport struct {
	Generation uint32 `json:"generation"`
	PID        uint32 `json:"pid"`
	Base
	Charged uint64 `json:"charged"`           // to its control group
	Problem string `json:"problem,omitempty"` // why nothing else is known
}

// SlotReport is a slot, or a spare.
type SlotReport struct {
	Name       string `json:"name"`  // "spare", too
	State      string `json:"state"` // "spare" of one
	PID        uint32 `json:"pid"`   // 0: it has no process
	Generation uint32 `json:"generation"`
	Share
	Charged uint64 `json:"charged"`
	Problem string `json:"problem,omitempty"`
	Why     *Why   `json:"why,omitempty"`
}

// Total is what the slots and spares of a report that were forked from its floors have
// together.
type Total struct {
	Slots    int    `json:"slots"`
	Forked   int    `json:"forked"`   // the slots, and the spares
	Once     uint64 `json:"once"`     // the anonymous memory of their floors
	Separate uint64 `json:"separate"` // the same, as often as there are slots
	Written  uint64 `json:"written"`
	Own      uint64 `json:"own"`
}

// Spare is the name and the state of a process that is no slot yet.
const Spare = "spare"

// Sum fills in the total.
func (r *Report) Sum() {
	r.Total = Total{}
	for _, floor := range r.Floors {
		for i := range r.Slots {
			s := &r.Slots[i]
			if s.PID == 0 || s.Generation != floor.Generation || s.Problem != "" || floor.Problem != "" {
				continue
			}
			r.Total.Forked++
			r.Total.Written += s.Written
			r.Total.Own += s.Own
			if s.State != Spare {
				r.Total.Slots++
				r.Total.Separate += floor.Anonymous
			}
		}
		r.Total.Once += floor.Anonymous
	}
}
