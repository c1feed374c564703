// SPDX-License-Identifier: AGPL-3.0-or-later

package examine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// What a worker must save at least for an advice to be given.
const (
	worthBytes   = 100 << 10
	worthSeconds = 0.05
)

// The keys that are tried together.
const (
	keyImmortal = "floor.immortal"
	keyRepack   = "floor.repack"
	keyFreeze   = "floor.gc_freeze"
	keyPreload  = "floor.preload"
)

// Size writes a number of bytes for people: "812 kB", "2.1 MB", "1.20 GB".
func Size(n int64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%s%.2f GB", sign, float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%s%.1f MB", sign, float64(n)/(1<<20))
	default:
		return fmt.Sprintf("%s%d kB", sign, n>>10)
	}
}

// Workers writes how many they are.
func Workers(n int) string {
	if n == 1 {
		return "1 worker"
	}
	return fmt.Sprintf("%d workers", n)
}

func (r *run) give(a Advice) { r.report.Advice = append(r.report.Advice, a) }

// advise says what to do, of what was found and measured and of nothing else.
func (r *run) advise() {
	r.adviseThreads()
	r.adviseDescriptors()
	for i := range r.report.Entries {
		r.adviseEntry(&r.report.Entries[i])
	}
	r.adviseMemory()
}

func (o *Origin) text() string {
	if o.Where == "" {
		return o.During
	}
	return o.During + ", " + o.Where
}

func (r *run) adviseThreads() {
	if r.file.Floor.Threads == fleetfile.Allow || r.pooled {
		return
	}
	for i := range r.report.Threads {
		if t := &r.report.Threads[i]; t.Where != "" || strings.HasSuffix(t.Name, "(threading)") { // those of C libraries start by themselves
			r.give(Advice{
				Key:  "floor.after_fork",
				Text: fmt.Sprintf("Start the thread %s there, in each worker, and not when the floor is loaded (%s).", t.Name, t.text()),
			})
		}
	}
}

func (r *run) adviseDescriptors() {
	if r.sharesFDs {
		return
	}
	loops := map[string]bool{} // what opens those descriptors is the loop
	for i := range r.report.Loops {
		l := &r.report.Loops[i]
		if l.Closed || loops[l.During] {
			continue
		}
		loops[l.During] = true
		r.give(Advice{
			Key:  "floor.after_fork",
			Text: fmt.Sprintf("Make the event loop there or in the entry, and not when the floor is loaded (%s).", l.text()),
		})
	}
	for i := range r.report.Descriptors {
		d := &r.report.Descriptors[i]
		where := fmt.Sprintf("fd %d, %s (%s)", d.Number, d.Target, d.text())
		switch {
		case loops[d.During] && d.Where == "":
		case d.Locked:
			r.give(Advice{Key: "floor.after_fork", Text: "Take the lock there: it would be that of all workers, and the next floor would meet it: " + where + "."})
		case d.Verdict == Shared:
			r.give(Advice{Key: "floor.after_fork", Text: "Open it there, in each worker: " + where + "."})
		case d.Verdict == Spoiled:
			r.give(Advice{Key: "floor.after_fork", Text: "Open it there, or for appending: workers share its position: " + where + "."})
		}
	}
}

// adviseEntry has a module be preloaded that workers import for themselves.
func (r *run) adviseEntry(e *Entry) {
	if e.Error != "" {
		r.give(Advice{
			Key: "worker." + e.Worker + "." + r.keyOf(e), Worker: e.Worker,
			Text: fmt.Sprintf("Mend it: no worker of %s could start: %s.", e.Worker, e.Error),
		})
	}
	if e.Count == 0 || e.Memory < worthBytes && e.Seconds < worthSeconds {
		return
	}
	module, _, _ := strings.Cut(e.Entry, ":")
	if e.Preloaded {
		if hook := r.file.Floor.AfterFork; hook == "" {
			return // what it imports is its own affair
		} else if module, _, _ = strings.Cut(hook, ":"); !slices.Contains(e.Modules, module) {
			return
		}
	}
	a := Advice{Key: keyPreload, Worker: e.Worker, Saves: e.Memory, preload: r.preloadWith(module)}
	a.Value = tomlList(a.preload)
	a.Text = fmt.Sprintf("Add %q: each worker of %s imports it for itself, %s, %s. In the floor it would save that: %s in %s.",
		module, e.Worker, Modules(e.Count), Size(e.Memory), Size(e.Memory*int64(e.Slots)), Workers(e.Slots))
	if e.Threads > 0 {
		a.Saves = 0 // a floor must not have them
		a.Text = fmt.Sprintf("Add %q if its threads can be started elsewhere: each worker of %s imports it for itself, %s, %s, "+
			"and it starts %s when it is imported, which keeps it out of a floor.",
			module, e.Worker, Modules(e.Count), Size(e.Memory), threads(e.Threads))
	}
	r.give(a)
}

// keyOf is the key that names what could not be imported.
func (r *run) keyOf(e *Entry) string {
	if slices.ContainsFunc(r.file.Workers, func(w fleetfile.Worker) bool { return w.Name == e.Worker && w.Entry == "" }) {
		return "tasks"
	}
	return "entry"
}

// preloadWith is floor.preload with what is advised already, and a module.
func (r *run) preloadWith(module string) []string {
	list := slices.Clone(r.file.Floor.Preload)
	for _, a := range r.report.Advice {
		if a.Key == keyPreload && a.Saves > 0 {
			list = slices.Clone(a.preload)
		}
	}
	if slices.Contains(list, module) {
		return list // another worker has the same
	}
	return append(list, module)
}

// tomlList writes names of modules, which have nothing to escape.
func tomlList(names []string) string { return `["` + strings.Join(names, `", "`) + `"]` }

// Modules writes how many they are.
func Modules(n int) string {
	if n == 1 {
		return "1 module"
	}
	return fmt.Sprintf("%d modules", n)
}

func threads(n int) string {
	if n == 1 {
		return "1 thread"
	}
	return fmt.Sprintf("%d threads", n)
}

// settled is the figure that a way to load the floor is judged by: that of a worker that
// has worked, if that was measured.
func (row *Row) settled() int64 {
	if row.WorkedCollected > 0 {
		return row.WorkedCollected
	}
	return row.Collected
}

// state says what a figure of settled is of.
func (row *Row) state() string {
	if row.WorkedCollected > 0 {
		return "after work"
	}
	return "after a collection"
}

func (r *run) adviseMemory() {
	m := r.report.Memory
	if m == nil || len(m.Rows) == 0 || m.Rows[0].settled() == 0 {
		return
	}
	base := &m.Rows[0]
	other := func(v variant) *Row {
		for i := range m.Rows {
			row := &m.Rows[i]
			if (variant{row.Immortal, row.Warm, row.Repack, row.GCFreeze}) == v && row.settled() > 0 {
				return row
			}
		}
		return nil
	}
	r.adviseImmortal(base, other(variant{!base.Immortal, base.Warm, base.Repack, base.GCFreeze}))
	if row := other(variant{base.Immortal, base.Warm, base.Repack, true}); row != nil && !base.GCFreeze {
		if saves := base.settled() - row.settled(); saves >= worthBytes {
			r.give(Advice{
				Key: keyFreeze, Value: "true", Saves: saves,
				Text: fmt.Sprintf("Would save %s in each worker %s (%s).", Size(saves), row.state(), r.inAll(saves)),
			})
		}
	}
	r.adviseRepack(base, other(variant{base.Immortal, base.Warm, !base.Repack, base.GCFreeze}))
	r.adviseWarm(base, other(variant{base.Immortal, false, false, base.GCFreeze}))
}

func (r *run) adviseImmortal(base, row *Row) {
	if row == nil {
		return
	}
	saves := base.settled() - row.settled() // what the other one does
	grows := row.Floor - base.Floor
	switch {
	case base.Immortal && -saves < worthBytes:
		r.give(Advice{
			Key: keyImmortal, Value: "false",
			Text: fmt.Sprintf("Saves nothing that counts here, %s in each worker %s. Remove it: it has its price.", Size(max(-saves, 0)), base.state()),
		})
	case !base.Immortal && saves >= worthBytes && saves*int64(r.report.Memory.Slots) > grows:
		r.give(Advice{
			Key: keyImmortal, Value: "true", Saves: saves,
			Text: fmt.Sprintf("Would save %s in each worker %s (%s). Its price: the floor has %s more, once, "+
				"and what a worker drops of the floor's objects is never freed.",
				Size(saves), row.state(), r.inAll(saves), Size(max(grows, 0))),
		})
	}
}

func (r *run) adviseRepack(base, row *Row) {
	if row == nil || base.Worked == 0 || row.Worked == 0 {
		return
	}
	switch saves := base.settled() - row.settled(); {
	case base.Repack && -saves < worthBytes:
		r.give(Advice{
			Key: keyRepack, Value: "false",
			Text: fmt.Sprintf("Saves nothing that counts here, %s in each worker %s. Remove it: floor.warm runs twice for it.", Size(max(-saves, 0)), base.state()),
		})
	case !base.Repack && saves >= worthBytes:
		r.give(Advice{
			Key: keyRepack, Value: "true", Saves: saves,
			Text: fmt.Sprintf("Would save %s in each worker %s (%s). Its price: floor.warm runs twice when the floor is loaded, "+
				"and who was given a function's code before has the old.", Size(saves), row.state(), r.inAll(saves)),
		})
	}
}

func (r *run) adviseWarm(base, cold *Row) {
	const example = `def warm(): prefork.warm_wsgi(application, ["/", "/login"])`
	switch {
	case r.file.Floor.Warm == "":
		r.give(Advice{
			Key: "floor.warm",
			Text: "Is not set, so that nothing is known of a worker that works: what the first requests write is then each worker's own. " +
				"Write a function that uses what workers will use, for a web application " + example + ", and look here again.",
		})
	case base.WorkError != "" || cold == nil || base.Worked == 0:
	case cold.settled()-base.settled() < worthBytes:
		r.give(Advice{
			Key: "floor.warm",
			Text: fmt.Sprintf("Saves nothing that counts here, %s in each worker %s. Let it use what workers use, as they do, or remove it.",
				Size(max(cold.settled()-base.settled(), 0)), base.state()),
		})
	}
}

// adviseTogether says what all of it saves, or that it does not work.
func (r *run) adviseTogether(row *Row) {
	base := &r.report.Memory.Rows[0]
	switch saves := base.settled() - row.settled(); {
	case row.Error != "":
		r.give(Advice{Key: "all of that", Text: "Does not work together: the floor was tried so, and was refused: " + row.Error + "."})
	case row.settled() == 0:
	default:
		r.give(Advice{
			Key: "all of that", Saves: saves, Worker: r.report.Memory.Worker,
			Text: fmt.Sprintf("Was tried together: a worker of %s then has %s of its own %s, not %s; the floor has %s, not %s.",
				r.report.Memory.Worker, Size(row.settled()), row.state(), Size(base.settled()), Size(row.Floor), Size(base.Floor)),
		})
	}
}

// inAll is what all workers of the floor save together.
func (r *run) inAll(saves int64) string {
	n := r.report.Memory.Slots
	return fmt.Sprintf("%s: %s", Workers(n), Size(saves*int64(n)))
}
