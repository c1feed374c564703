// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/decnet/prefork/cmd/internal/display"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/verb"
)

// model is all that the view knows. It changes by what it is told (a sample, a
// loss, a key, a size, the time), asks no clock and no master, and is drawn by
// frame.
type model struct {
	name          string // FLEET, as it was given
	width, height int
	now           time.Time

	sight
	list

	asking *operation // waits for y or n
	note   note       // what came of the last
	help   bool
	plain  bool // the terminal shows ASCII only
}

// sight is what is known of the fleet.
type sight struct {
	fleet *control.Status // as it was last seen; nil: never yet
	asked time.Time       // when that was, or the view began
	lost  string          // why there is nothing newer; "": it may yet come
	usage usage
	past  []event // the newest comes last
}

// list is how the slots are shown.
type list struct {
	order    int             // into orders
	filter   string          // shows slots with this text only
	typing   bool            // the filter is being typed
	selected string          // a slot or a task; "": the first, whichever it is
	top      int             // the first slot that is shown
	folds    map[string]bool // slots whose tasks are folded, or not, because a key has said so
}

// operation is something to do to a slot.
type operation struct {
	verb verb.Name
	slot string
}

func (o operation) String() string { return string(o.verb) + " " + o.slot }

// note is a line that stands where the help does, for a while.
type note struct {
	text  string
	bad   bool
	until time.Time
}

const noteTime = 10 * time.Second

// order is one way to sort slots.
type order struct {
	title   string
	column  string // that it goes by; "": none
	compare func(m *model, a, b control.SlotStatus) int
}

var orders = []order{
	{"worst first", "STATE", func(_ *model, a, b control.SlotStatus) int { return display.WorseFirst(a, b) }},
	{"by name", "SLOT", func(*model, control.SlotStatus, control.SlotStatus) int { return 0 }}, // they come so
	{"by CPU", "CPU", func(m *model, a, b control.SlotStatus) int { return cmp.Compare(m.usage.of(&b), m.usage.of(&a)) }},
	{"by private memory", "PRIVATE", func(_ *model, a, b control.SlotStatus) int { return cmp.Compare(b.MemoryPrivate, a.MemoryPrivate) }},
	{"by restarts", "RESTARTS", func(_ *model, a, b control.SlotStatus) int { return cmp.Compare(b.NRestarts, a.NRestarts) }},
	{"latest change first", "SINCE", func(_ *model, a, b control.SlotStatus) int { return cmp.Compare(b.StateTimestamp, a.StateTimestamp) }},
}

// see takes a sample.
func (m *model) see(f *control.Status, at time.Time) {
	m.remember(f, at)
	m.usage.add(f, at)
	m.fleet, m.asked, m.lost = f, at, ""
}

// lose takes that the master could not be asked. The last view stays.
func (m *model) lose(why string, at time.Time) {
	if m.fleet != nil && m.lost == "" {
		m.happened(event{at: at, who: "master", what: why})
	}
	m.lost = why
}

// late is how long the master may be silent before the view says so.
const late = 3 * time.Second

// trouble says why the view is old, or nothing.
func (m *model) trouble() string {
	silent := m.now.Sub(m.asked)
	switch {
	case m.lost == gone:
		return "the master has been gone for " + short(silent)
	case m.lost != "" && m.lost != stuck:
		return m.lost
	case m.lost == stuck || silent > late:
		return "the master has not answered for " + short(silent)
	default:
		return ""
	}
}

// viewed is the time of what is shown: now or, if that is old, when it was seen.
func (m *model) viewed() time.Time {
	if m.trouble() != "" {
		return m.asked
	}
	return m.now
}

// age is how long a slot has been in its state.
func (m *model) age(s *control.SlotStatus) time.Duration {
	return m.viewed().Sub(display.Time(s.StateTimestamp))
}

// rows are the slots that are shown, in their order, with those tasks that are.
func (m *model) rows() (rows []control.SlotStatus) {
	if m.fleet == nil {
		return nil
	}
	want := strings.ToLower(m.filter)
	for i := range m.fleet.Slots {
		s := &m.fleet.Slots[i]
		if strings.Contains(strings.ToLower(s.Name+" "+stateOf(s)+" "+s.Result), want) {
			rows = append(rows, *s)
		}
	}
	slices.SortStableFunc(rows, func(a, b control.SlotStatus) int { return orders[m.order].compare(m, a, b) })
	return m.unfolded(rows)
}

// cursor is where the selected slot is. One that is not shown any more gives way
// to the first.
func (m *model) cursor(rows []control.SlotStatus) int {
	return max(0, slices.IndexFunc(rows, func(s control.SlotStatus) bool { return s.Name == m.selected }))
}

// move selects another slot. A selection stays with its slot, wherever that goes.
func (m *model) move(by int) {
	rows := m.rows()
	if len(rows) > 0 {
		m.selected = rows[min(max(m.cursor(rows)+by, 0), len(rows)-1)].Name
	}
}

// stateOf is the state, or that the slot is frozen in it.
func stateOf(s *control.SlotStatus) string {
	if s.FreezerState == frozen {
		return frozen
	}
	return s.State
}

const frozen = "frozen"

// usage is how much of a processor slots take. A sample soon after another would
// measure noise: the mark, from which is counted, moves once a second.
type usage struct {
	mark    time.Time
	spent   map[string]spent
	percent map[string]float64
}

// spent is what a process had spent at the mark.
type spent struct {
	pid  uint32
	nsec uint64
}

const leastMeasure = 900 * time.Millisecond

func (u *usage) add(f *control.Status, at time.Time) {
	passed := at.Sub(u.mark)
	if passed < leastMeasure {
		return
	}
	percent, now := map[string]float64{}, map[string]spent{}
	for i := range f.Slots {
		s := &f.Slots[i]
		if s.CPUUsageNSec == 0 || s.MainPID == 0 { // not known
			continue
		}
		before, ok := u.spent[s.Name]
		if ok && before.pid == s.MainPID && before.nsec <= s.CPUUsageNSec {
			percent[s.Name] = 100 * float64(s.CPUUsageNSec-before.nsec) / float64(passed)
		}
		now[s.Name] = spent{s.MainPID, s.CPUUsageNSec}
	}
	u.mark, u.spent, u.percent = at, now, percent
}

// of is a percentage of one processor; -1: not known.
func (u *usage) of(s *control.SlotStatus) float64 {
	if percent, ok := u.percent[s.Name]; ok {
		return percent
	}
	return -1
}
