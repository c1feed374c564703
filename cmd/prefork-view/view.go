// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"github.com/decnet/prefork/cmd/internal/display"
	"github.com/decnet/prefork/supervisor/control"
)

// frame draws the view: at most height lines of at most width cells.
func (m *model) frame() string {
	if m.width < 1 || m.height < 1 {
		return ""
	}
	lines := m.body()
	if m.help {
		lines = m.helpPage()
	}
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], m.width, "")
	}
	text := strings.Join(lines, "\n")
	if m.plain {
		return ascii(text)
	}
	return text
}

// plan is how many lines each part of the view has.
type plan struct{ head, rule, columns, rows, detail, next, events, foot int }

func (p *plan) body() int {
	return p.head + p.rule + p.columns + p.rows + p.detail + p.next + p.events
}

// plan deals out the lines: what an operator needs most comes first, and each part
// grows when the others have what they need.
func (m *model) plan() plan {
	p := plan{}
	if m.height > 2 {
		p.foot = len(m.foot())
	}
	slots := len(m.rows())
	for _, grant := range []struct {
		part        *int
		least, most int // fewer are of no use; more are not needed yet
	}{
		{&p.head, 1, 1},
		{&p.rows, 1, min(slots, 1)},
		{&p.columns, 1, 1},
		{&p.rows, 1, min(slots, 3)},
		{&p.head, 1, 2},
		{&p.rule, 1, 1},
		{&p.detail, 2, 2},
		{&p.rows, 1, min(slots, 5)},
		{&p.next, 1, 1},
		{&p.events, 2, 3},
		{&p.head, 1, len(m.head())},
		{&p.detail, 1, 3},
		{&p.rows, 1, min(slots, 10)},
		{&p.events, 1, 7},
		{&p.rows, 1, slots},
		{&p.detail, 1, 4},
		{&p.events, 1, 1 + len(m.past)},
	} {
		if more := min(grant.most-*grant.part, m.height-p.foot-p.body()); more >= grant.least {
			*grant.part += more
		}
	}
	return p
}

func (m *model) body() (lines []string) {
	p, rows := m.plan(), m.rows()
	lines = append(lines, m.head()[:p.head]...)
	if p.rule > 0 {
		lines = append(lines, m.overview(rows, p.rows))
	}
	lines = append(lines, m.table(rows, p)...)
	lines = append(lines, m.detail(rows, p.detail)...)
	if p.next > 0 {
		lines = append(lines, m.next())
	}
	lines = append(lines, m.events(p.events)...)
	for len(lines) < m.height-p.foot {
		lines = append(lines, "")
	}
	return append(lines, m.foot()[:p.foot]...)
}

func (m *model) head() []string {
	f, trouble := m.fleet, m.trouble()
	if f == nil {
		return []string{bold.Styled(fit(m.name, m.width/2)) + "  " + bad.Styled(cmp.Or(trouble, "asking its master")), ""}
	}
	state, says := colourOf(f.ActiveState).Styled(f.ActiveState), fit(f.StatusText, m.width)
	if trouble != "" {
		state, says = "", bad.Styled(trouble)
	}
	first := join(slices.DeleteFunc([]string{bold.Styled(fit(f.Name, m.width)), state, says}, func(part string) bool { return part == "" }), "  ", 1<<10)
	floor := "no floor"
	if f.FloorPID > 0 {
		floor = fmt.Sprintf("floor %d, gen %d", f.FloorPID, f.Generation)
		if f.FloorMemory > 0 {
			floor += ", " + size(f.FloorMemory)
		}
	}
	restarts := uint64(0)
	for i := range f.Slots {
		restarts += uint64(f.Slots[i].NRestarts)
	}
	dropped := fmt.Sprintf("%d dropped", f.NotificationsDropped)
	if m.width >= wide {
		dropped = plural(f.NotificationsDropped, "notification") + " dropped"
	}
	if f.NotificationsDropped > 0 {
		dropped = between.Styled(dropped)
	}
	lines := []string{
		ansi.Truncate(first, m.width, "…"),
		join([]string{
			fmt.Sprintf("master %d", f.MainPID), floor, plural(uint64(f.Spares), "spare"), plural(restarts, "restart"), dropped,
		}, faint.Styled(" · "), m.width),
	}
	if len(f.Sockets) > 0 {
		lines = append(lines, m.queues())
	}
	return lines
}

// queues are what waits at the sockets, where most does first.
func (m *model) queues() string {
	sockets := byName(m.fleet.Sockets)
	slices.SortStableFunc(sockets, func(a, b control.SocketStatus) int {
		return cmp.Compare(b.Queue*max(a.QueueLimit, 1), a.Queue*max(b.QueueLimit, 1))
	})
	var parts []string
	for i := range sockets {
		s := &sockets[i]
		text, look := fit(s.Name, m.width)+" "+display.Queue(s), normal
		switch {
		case m.trouble() != "":
		case s.Queue > s.QueueLimit:
			look = bad
		case s.Queue > 0:
			look = between
		}
		if s.Drops > 0 {
			text += fmt.Sprintf(", %d dropped", s.Drops)
		}
		parts = append(parts, look.Styled(text))
	}
	parts[0] = "queues: " + parts[0]
	return join(parts, faint.Styled(" · "), m.width)
}

// byName has the sums of all addresses of each socket. What is not known of one is not
// known of them, but for the drops, of which some sockets have none.
func byName(all []control.SocketStatus) (sums []control.SocketStatus) {
	for _, s := range all {
		i := len(sums) - 1
		if i < 0 || sums[i].Name != s.Name {
			sums = append(sums, s)
			continue
		}
		sum := &sums[i]
		sum.Drops = max(sum.Drops, 0) + max(s.Drops, 0)
		if sum.Queue < 0 || s.Queue < 0 {
			sum.Queue, sum.QueueLimit = -1, -1
			continue
		}
		sum.Queue, sum.QueueLimit = sum.Queue+s.Queue, sum.QueueLimit+s.QueueLimit
	}
	return sums
}

// overview is what the table shows, and sums of it.
func (m *model) overview(rows []control.SlotStatus, shown int) string {
	if m.fleet == nil {
		return rule("", "", m.width)
	}
	title := fmt.Sprintf("%s, %s", plural(uint64(len(m.fleet.Slots)), "slot"), orders[m.order].title)
	slots := 0
	for i := range rows {
		if !isTask(&rows[i]) {
			slots++
		}
	}
	if slots < len(m.fleet.Slots) {
		title = fmt.Sprintf("%d of %d slots with %q, %s", slots, len(m.fleet.Slots), m.filter, orders[m.order].title)
	}
	if shown < len(rows) {
		m.scroll(rows, shown)
		title += fmt.Sprintf(", %d to %d", m.top+1, m.top+shown)
	}
	percent, private := 0.0, uint64(0)
	for i := range rows {
		percent += max(0, m.usage.of(&rows[i]))
		private += rows[i].MemoryPrivate
	}
	if private == 0 {
		return rule(title, "", m.width)
	}
	return rule(title, fmt.Sprintf("CPU %.1f%%, %s private %s, %s shared", percent, cold.Styled("█"), size(private), faint.Styled("░")), m.width)
}

// detail is what there is to say of the selected slot.
func (m *model) detail(rows []control.SlotStatus, lines int) []string {
	if lines == 0 {
		return nil
	}
	if len(rows) == 0 {
		return append([]string{rule("", "", m.width)}, make([]string, lines-1)...)
	}
	s := &rows[m.cursor(rows)]
	title := fmt.Sprintf("%s, %s for %s", s.Name, stateOf(s), long(m.age(s)))
	if s.FreezerState == frozen {
		title = fmt.Sprintf("%s, %s, %s", s.Name, s.State, frozen)
	}
	parts := []string{s.Reason}
	if beside := display.Beside(s); beside != "" {
		parts = append(parts, "it "+beside)
	}
	if s.Scaled {
		parts = append(parts, "as many slots as prefork scale said")
	}
	if s.StatusText != "" {
		parts = append(parts, fmt.Sprintf("it says: %s", s.StatusText))
	}
	if list := restartsOf(s); list != "" {
		parts = append(parts, list)
	}
	if s.Generation > 0 && s.Generation != m.fleet.Generation {
		parts = append(parts, fmt.Sprintf("forked from generation %d", s.Generation))
	}
	text := fold(strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), " · "), m.width, lines-1)
	return slices.Concat([]string{rule(title, "", m.width)}, text, make([]string, lines-1-len(text)))
}

// restartsOf counts the restarts of a slot by their reason.
func restartsOf(s *control.SlotStatus) string {
	if len(s.Restarts) == 0 {
		return ""
	}
	results := slices.SortedFunc(maps.Keys(s.Restarts), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.Restarts[b], s.Restarts[a]), cmp.Compare(a, b))
	})
	for i, result := range results {
		results[i] = fmt.Sprintf("%d after %s", s.Restarts[result], result)
	}
	return "restarts: " + strings.Join(results, ", ")
}

// next are the deadlines that are known: when slots start.
func (m *model) next() string {
	if m.fleet == nil {
		return rule("", "", m.width)
	}
	waiting := slices.DeleteFunc(withTasks(m.fleet.Slots), func(s control.SlotStatus) bool { return s.NextStartTimestamp == 0 })
	slices.SortStableFunc(waiting, func(a, b control.SlotStatus) int { return cmp.Compare(a.NextStartTimestamp, b.NextStartTimestamp) })
	if len(waiting) == 0 {
		return rule("next: nothing is due", "", m.width)
	}
	var starts []string
	for i := range waiting {
		starts = append(starts, waiting[i].Name+" starts "+until(display.Time(waiting[i].NextStartTimestamp), m.viewed()))
	}
	return rule("next: "+join(starts, ", ", m.width-12), "", m.width)
}

// events are the last ones, the newest first.
func (m *model) events(lines int) (all []string) {
	if lines == 0 {
		return nil
	}
	all = append(all, rule("events", "", m.width))
	name := m.nameWidth()
	for _, e := range m.past { // a task is told with its slot
		name = max(name, min(ansi.StringWidth(e.who), m.width/4))
	}
	for _, e := range slices.Backward(m.past) {
		if len(all) == lines {
			break
		}
		all = append(all, m.event(e, name))
	}
	return all
}

func (m *model) event(e event, name int) string {
	at := e.at.Format("15:04:05")
	if m.now.Sub(e.at) > 12*hour {
		at = e.at.Format("Jan _2  ")
	}
	change := ""
	switch {
	case e.to == "":
	case e.from == "":
		change = colourOf(e.to).Styled(e.to) + "  "
	case e.from == e.to: // by way of states that were not seen
		change = "→ " + colourOf(e.to).Styled(e.to) + "  "
	default:
		change = e.from + " → " + colourOf(e.to).Styled(e.to) + "  "
	}
	if space := len("listening > starting  ") - ansi.StringWidth(change); e.to != "" && m.width >= wide {
		change += strings.Repeat(" ", max(space, 0))
	}
	line := faint.Styled(at) + " " + pad(middle(e.who, name), name, false) + "  "
	return ansi.Truncate(line+change+fit(e.what, m.width), m.width, "…")
}

// foot is a question, what is typed, what came of the last order, or else help.
func (m *model) foot() []string {
	switch {
	case m.asking != nil:
		return []string{chosen.Styled(fit(" "+m.asking.String()+"? y/n ", m.width))}
	case m.typing:
		return []string{join([]string{bold.Styled("filter: ") + control.Printable(m.filter) + chosen.Styled(" "), faint.Styled("Enter keeps it, Esc shows all")}, "   ", m.width)}
	case m.note.text != "" && m.now.Before(m.note.until):
		look := bold
		if m.note.bad {
			look = bad
		}
		lines := fold(m.note.text, m.width, 2)
		for i := range lines {
			lines[i] = look.Styled(lines[i])
		}
		return lines
	default:
		return []string{m.hints()}
	}
}

// hints are as many keys as fit; how to leave, and how to learn the rest, always.
func (m *model) hints() string {
	hints := [][2]string{{"?", "help"}, {"q", "quit"}, {"s", "sort"}, {"/", "filter"}, {"r", "restart"}, {"x", "stop"}, {"S", "start"}}
	if m.fleet != nil && slices.ContainsFunc(m.fleet.Slots, func(s control.SlotStatus) bool { return s.ControlGroup != "" }) {
		hints = append(hints, [2]string{"f", "freeze"}, [2]string{"t", "thaw"})
	}
	hints = append(hints, [2]string{"↑↓", "select"})
	var parts []string
	for _, h := range hints {
		parts = append(parts, bold.Styled(h[0])+" "+h[1])
	}
	return join(parts, "   ", m.width)
}

func (m *model) helpPage() []string {
	lines := []string{rule("prefork top", "", m.width)}
	for _, row := range [][2]string{
		{"↑ ↓ PgUp PgDn", "select a slot; Home: whichever is first"},
		{"s", "sort: " + orders[(m.order+1)%len(orders)].title + " is next"},
		{"/", "show slots by name, state or result"},
		{"Esc", "show all slots"},
		{"Enter", "show its tasks, or fold them"},
		{"r  x  S", "restart, stop or start it, after a question"},
		{"f  t", "freeze or thaw it, in control groups"},
		{"Ctrl-Z", "suspend"},
		{"q", "quit"},
		{"", ""},
		{"CPU", "of one processor, in the last second"},
		{"PRIVATE  █", "memory that is free when the slot ends"},
		{"SHARED   ░", "memory that others have too: the floor"},
		{"queues", "connections that nobody has accepted"},
	} {
		lines = append(lines, bold.Styled(pad(row[0], 15, false))+fit(row[1], m.width-15))
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	if len(lines) >= m.height {
		lines = lines[:m.height-1]
	}
	return append(lines, faint.Styled(fit("any key goes back", m.width)))
}
