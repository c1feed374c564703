// SPDX-License-Identifier: AGPL-3.0-or-later

package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Class is what it costs to change a key of the fleet file.
type Class int

// The classes.
const (
	Live  Class = iota + 1 // nothing: only the master uses it
	Limit                  // a control group is told: nothing is replaced
	Birth                  // a process is born with it, and must be replaced
	Start                  // the master is: it takes effect when the fleet is started again
)

// Key is one key of a table, with the sum of its value: two that have the same sum are the
// same.
type Key struct {
	Name  string
	Class Class
	Sum   uint64
}

// Socket is one socket of a Config.
type Socket struct {
	Name string
	Keys []Key
}

// Step is what becomes of a part of the fleet.
type Step int

// The steps.
const (
	Keep   Step = iota
	Update      // its keys change where it is
	Roll        // its processes are replaced
	Add
	Remove
)

var stepNames = [...]string{"keep", "update", "roll", "add", "remove"}

func (s Step) String() string { return stepNames[s] }

// Plan is what a change does. Nothing that is not in it is touched.
type Plan struct {
	Keys    []string // of the fleet that change at once
	Waits   []string // keys that wait for the next start of the fleet
	Floor   PartPlan // Roll: a new one is loaded, beside the one that there is
	Sockets []PartPlan
	Workers []WorkerPlan
}

// PartPlan is what becomes of the floor, or of a socket. Keys are those that cause it.
type PartPlan struct {
	Name string
	Step Step
	Keys []string
}

// WorkerPlan is what becomes of a worker. If From is not To, it gets more slots or fewer.
type WorkerPlan struct {
	PartPlan
	From, To int
}

// Empty reports whether nothing would change.
func (p *Plan) Empty() bool {
	kept := func(part PartPlan) bool { return part.Step == Keep }
	return len(p.Keys) == 0 && len(p.Waits) == 0 && kept(p.Floor) &&
		!slices.ContainsFunc(p.Sockets, func(s PartPlan) bool { return !kept(s) }) &&
		!slices.ContainsFunc(p.Workers, func(w WorkerPlan) bool { return !kept(w.PartPlan) || w.From != w.To })
}

// String says it in one line: "roll web (exec), add api, resize mail from 2 to 4".
func (p *Plan) String() string {
	var all []string
	add := func(keys []string, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if len(keys) > 0 {
			text += " (" + strings.Join(keys, ", ") + ")"
		}
		all = append(all, text)
	}
	if len(p.Keys) > 0 {
		add(p.Keys, "update the fleet")
	}
	if len(p.Waits) > 0 {
		add(p.Waits, "leave to the next start")
	}
	if p.Floor.Step != Keep {
		add(p.Floor.Keys, "%s the floor", p.Floor.Step)
	}
	for _, s := range p.Sockets {
		if s.Step != Keep {
			add(s.Keys, "%s socket %s", s.Step, s.Name)
		}
	}
	for _, w := range p.Workers {
		if w.Step != Keep {
			add(w.Keys, "%s %s", w.Step, w.Name)
		}
		if w.Step != Add && w.Step != Remove && w.From != w.To {
			add(nil, "resize %s from %d to %d", w.Name, w.From, w.To)
		}
	}
	if len(all) == 0 {
		return "nothing changes"
	}
	return strings.Join(all, ", ")
}

// Difference is what has to be done so that a fleet of old is one of next. What has the
// same name is the same; the hosts are not compared.
func Difference(old, next Config) Plan {
	keys := changed(old.Keys, next.Keys)
	plan := Plan{Keys: keys.of(Live, Limit, Birth), Waits: keys.of(Start), Floor: floorPlan(&old, &next)}
	sockets := map[string]bool{} // whose descriptors are others
	for _, part := range parts(old.Sockets, next.Sockets, func(s *Socket) string { return s.Name }) {
		p := PartPlan{Name: part.name, Step: part.step}
		if p.Step == Keep {
			keys := changed(part.old.Keys, part.next.Keys)
			for _, name := range keys.of(Start) {
				plan.Waits = append(plan.Waits, "socket."+p.Name+"."+name)
			}
			p.Step, p.Keys = keys.but(Start).step()
		}
		sockets[p.Name] = p.Step == Roll
		plan.Sockets = append(plan.Sockets, p)
	}
	for _, part := range parts(old.Workers, next.Workers, func(w *Worker) string { return w.Name }) {
		plan.Workers = append(plan.Workers, workerPlan(part, plan.Floor.Step == Roll, sockets))
	}
	return plan
}

// Again is the plan of a restart: whatever stays is replaced; with fresh on a new floor.
func Again(old, next Config, fresh bool) Plan {
	plan := Difference(old, next)
	again := func(p *PartPlan) {
		if p.Step == Keep || p.Step == Update {
			p.Step = Roll
		}
	}
	if fresh && next.HasEntries() {
		again(&plan.Floor)
	}
	for i := range plan.Workers {
		again(&plan.Workers[i].PartPlan)
	}
	return plan
}

// Scale is a number of slots that an operator wants of a worker; FromFile is that of the
// file.
type Scale struct {
	Worker string
	Count  int
}

// FromFile is the count of a Scale that ends what another one said.
const FromFile = -1

// Rescale is a fleet with another number of slots of one worker.
func Rescale(cfg Config, s Scale) Config {
	cfg.Workers = slices.Clone(cfg.Workers)
	for i := range cfg.Workers {
		w := &cfg.Workers[i]
		if w.Name != s.Worker {
			continue
		}
		inFile := w.Count
		if w.Scaled {
			inFile = w.InFile
		}
		w.Count, w.InFile = s.Count, inFile
		if s.Count == FromFile {
			w.Count = inFile
		}
		w.Scaled = w.Count != inFile
	}
	return cfg
}

// KeepScale lets what operators have scaled be as it is, unless the file has another count
// than before.
func KeepScale(running, next Config) Config {
	next.Workers = slices.Clone(next.Workers)
	for i := range next.Workers {
		w := &next.Workers[i]
		for _, old := range running.Workers {
			if old.Name == w.Name && old.Scaled && old.InFile == w.Count {
				w.Count, w.InFile, w.Scaled = old.Count, old.InFile, true
			}
		}
	}
	return next
}

func floorPlan(old, next *Config) PartPlan {
	p := PartPlan{Name: "floor"}
	switch had, has := old.HasEntries(), next.HasEntries(); {
	case !had && has:
		p.Step = Add
	case had && !has:
		p.Step = Remove
	case has:
		p.Step, p.Keys = changed(old.FloorKeys, next.FloorKeys).step()
		if next.Descriptors > old.Descriptors {
			p.Step, p.Keys = Roll, append(p.Keys, "descriptors")
		}
	}
	return p
}

// HasEntries reports whether something is to be forked from a floor.
func (c *Config) HasEntries() bool {
	return slices.ContainsFunc(c.Workers, func(w Worker) bool { return w.Entry && w.Count > 0 })
}

func workerPlan(part part[Worker], newFloor bool, sockets map[string]bool) WorkerPlan {
	p := WorkerPlan{PartPlan: PartPlan{Name: part.name, Step: part.step}}
	if part.old != nil {
		p.From = part.old.Count
	}
	if part.next != nil {
		p.To = part.next.Count
	}
	if p.Step != Keep {
		return p
	}
	p.Step, p.Keys = changed(part.old.Keys, part.next.Keys).step()
	p.Keys = slices.DeleteFunc(p.Keys, func(name string) bool { return name == "count" })
	if part.next.Counted && p.From != p.To {
		p.Step, p.Keys = Roll, append(p.Keys, "count")
	}
	if p.Step == Update && len(p.Keys) == 0 {
		p.Step = Keep // it is resized
	}
	for _, name := range part.next.Sockets {
		if sockets[name] {
			p.Step, p.Keys = Roll, append(p.Keys, "socket."+name)
		}
	}
	if newFloor && part.next.Entry {
		p.Step, p.Keys = Roll, append(p.Keys, "floor")
	}
	return p
}

// part is one of the old and the new fleet; nil where it is not.
type part[T any] struct {
	name      string
	step      Step
	old, next *T
}

// parts pairs by name: those of next in their order, then what is not there any more.
func parts[T any](old, next []T, name func(*T) string) (all []part[T]) {
	find := func(in []T, wanted string) *T {
		i := slices.IndexFunc(in, func(t T) bool { return name(&t) == wanted })
		if i < 0 {
			return nil
		}
		return &in[i]
	}
	for i := range next {
		p := part[T]{name: name(&next[i]), old: find(old, name(&next[i])), next: &next[i]}
		if p.old == nil {
			p.step = Add
		}
		all = append(all, p)
	}
	for i := range old {
		if n := name(&old[i]); find(next, n) == nil {
			all = append(all, part[T]{name: n, step: Remove, old: &old[i]})
		}
	}
	return all
}

// keys are those that differ.
type keys []Key

// changed compares the keys of one table.
func changed(old, next []Key) (all keys) {
	same := func(in []Key, k Key) bool { return slices.Contains(in, k) }
	has := func(in []Key, k Key) bool {
		return slices.ContainsFunc(in, func(o Key) bool { return o.Name == k.Name })
	}
	for _, k := range next {
		if !same(old, k) {
			all = append(all, k)
		}
	}
	for _, k := range old {
		if !has(next, k) {
			all = append(all, k)
		}
	}
	return all
}

func (ks keys) of(classes ...Class) (names []string) {
	for _, k := range ks {
		if slices.Contains(classes, k.Class) {
			names = append(names, k.Name)
		}
	}
	return names
}

func (ks keys) but(class Class) keys {
	return slices.DeleteFunc(slices.Clone(ks), func(k Key) bool { return k.Class == class })
}

// asStarted gives keys that wait for the next start the sums that they have had since the
// last.
func asStarted(running, next []Key) []Key {
	waits := func(k Key) bool { return k.Class == Start }
	kept := slices.DeleteFunc(slices.Clone(running), func(k Key) bool { return !waits(k) })
	return append(kept, slices.DeleteFunc(slices.Clone(next), waits)...)
}

// StartedAs is what a fleet is when it has become next, but for what waits for its next
// start: that is still to be done then.
func StartedAs(running, next Config) Config {
	next.Keys = asStarted(running.Keys, next.Keys)
	next.Sockets = slices.Clone(next.Sockets)
	for i := range next.Sockets {
		s := &next.Sockets[i]
		if was := slices.IndexFunc(running.Sockets, func(o Socket) bool { return o.Name == s.Name }); was >= 0 {
			s.Keys = asStarted(running.Sockets[was].Keys, s.Keys)
		}
	}
	return next
}

// step is the least that these keys need, and their names.
func (ks keys) step() (Step, []string) {
	names := ks.of(Live, Limit, Birth, Start)
	switch {
	case len(ks) == 0:
		return Keep, nil
	case len(ks.of(Birth)) > 0:
		return Roll, names
	default:
		return Update, names
	}
}
