// SPDX-License-Identifier: AGPL-3.0-or-later

// Package floorreport writes what was found out about a floor for people.
package floorreport

import (
	"fmt"
	"slices"
	"strings"

	"github.com/decnet/prefork/cmd/internal/display"
	"github.com/decnet/prefork/supervisor/examine"
)

// Text is the report in lines of a width.
func Text(r *examine.Report, width int) string {
	p := &page{width: width}
	p.head(r)
	p.modules(r)
	p.findings(r)
	p.changes(r)
	p.entries(r)
	p.memory(r)
	p.advice(r)
	return p.String()
}

func (p *page) head(r *examine.Report) {
	verdict := "the fleet would use this floor"
	if !r.Usable {
		verdict = "the fleet would refuse this floor: " + r.Cause
	}
	p.para("", "%s: %s", r.Fleet, verdict)
	python := ""
	if r.Python != "" {
		python = "CPython " + r.Python + ", "
	}
	p.para("  ", "%s, %sloaded by %s in %s", r.File, python, r.User, r.Directory)
	for _, note := range r.Notes {
		p.para("  ", "note: %s", note)
	}
	if len(r.Stuck) > 0 {
		p.para("  ", "it was here when its time was over:")
		for _, at := range r.Stuck {
			p.para("    ", "%s", at)
		}
	}
}

// shown is from what share of the whole on a module has a line.
const shown = 0.02

func (p *page) modules(r *examine.Report) {
	if len(r.Modules) == 0 {
		return
	}
	var all examine.Module
	for i := range r.Modules {
		all.Seconds += r.Modules[i].Seconds
		all.Memory += r.Modules[i].Memory
		all.Count += r.Modules[i].Count
	}
	p.title("Modules")
	p.line("%8s %9s %8s  %s", "seconds", "memory", "modules", "")
	for i := range r.Modules {
		p.module(&r.Modules[i], &all, 0)
	}
	p.line("%8.3f %9s %8d  in all", all.Seconds, examine.Size(all.Memory), all.Count)
}

func (p *page) module(m, all *examine.Module, depth int) {
	const deepest = 6
	if m.Count == 0 && depth == 0 && m.Seconds == 0 && m.Memory == 0 {
		return
	}
	failed := ""
	if m.Failed {
		failed = "  (not to its end)"
	}
	p.line("%8.3f %9s %8d  %*s%s%s", m.Seconds, examine.Size(m.Memory), m.Count, 2*depth, "", m.Name, failed)
	if depth == deepest {
		return
	}
	for i := range m.Modules {
		c := &m.Modules[i]
		if c.Failed || c.Seconds > shown*all.Seconds || float64(c.Memory) > shown*float64(all.Memory) {
			p.module(c, all, depth+1)
		}
	}
}

func (p *page) findings(r *examine.Report) {
	p.title("What the floor holds")
	before := p.Len()
	for _, t := range r.Threads {
		p.item(t.Origin, "thread %s", t.Name)
	}
	ofLoops := map[string][]string{} // by who made them
	for _, d := range r.Descriptors {
		if isOfLoop(r, &d) {
			ofLoops[d.During] = append(ofLoops[d.During], fmt.Sprint(d.Number))
		} else if d.Verdict != examine.Fine {
			what := map[string]string{examine.Shared: "workers cannot share it", examine.Spoiled: "workers would write over each other"}[d.Verdict]
			if d.Locked {
				what = "locked: the lock would be that of all workers"
			}
			p.item(d.Origin, "fd %d, %s: %s", d.Number, d.Target, what)
		}
	}
	for _, l := range r.Loops {
		how := "an event loop"
		switch {
		case l.Running:
			how = "an event loop that runs"
		case l.Closed:
			continue
		}
		fds := ""
		if numbers := ofLoops[l.During]; len(numbers) > 0 {
			fds = ", and what belongs to it: fd " + strings.Join(numbers, ", ")
			delete(ofLoops, l.During)
		}
		p.item(l.Origin, "%s, %s%s", how, l.Class, fds)
	}
	for _, c := range r.Processes {
		p.item(c.Origin, "started a process: %s", c.Command)
	}
	for _, d := range r.Devices {
		p.item(d.Origin, "%s is mapped: what it has started on a processor survives no fork; use it in workers alone", d.Path)
	}
	if p.Len() == before {
		p.line("  no threads, sockets, locks, event loops or processes")
	}
	p.harmless(r)
	p.hooks(r)
}

// isOfLoop reports whether a descriptor is one that an open event loop has for itself: what
// it waits in, and the sockets that wake it.
func isOfLoop(r *examine.Report, d *examine.Descriptor) bool {
	return d.Where == "" && d.Verdict == examine.Shared &&
		(d.Target == "anon_inode:[eventpoll]" || strings.HasPrefix(d.Target, "socket:")) &&
		slices.ContainsFunc(r.Loops, func(l examine.Loop) bool { return !l.Closed && l.During == d.During })
}

// harmless lists what workers have open, too, and can share.
func (p *page) harmless(r *examine.Report) {
	const most = 8
	n := 0
	for _, d := range r.Descriptors {
		if d.Verdict != examine.Fine {
			continue
		}
		if n++; n <= most {
			p.item(d.Origin, "fd %d, %s: workers have it, too, which does no harm", d.Number, d.Target)
		}
	}
	if n > most {
		p.line("  and %d more like that: see --json", n-most)
	}
}

func (p *page) hooks(r *examine.Report) {
	if len(r.ForkHooks) == 0 {
		return
	}
	p.title("Hooks that run at each fork")
	const longest = 40
	rows := [][]string{{"  MODULE", "BEFORE", "PARENT", "CHILD", "MICROSECONDS"}}
	for _, h := range r.ForkHooks {
		took := "-"
		if sum := h.BeforeSeconds + h.ParentSeconds + h.ChildSeconds; sum > 0 {
			took = fmt.Sprintf("%.0f", sum*1e6)
		}
		rows = append(rows, []string{"  " + display.CutTo(h.Module, longest), number(h.Before), number(h.Parent), number(h.Child), took})
	}
	p.table(rows)
}

func number(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func (p *page) changes(r *examine.Report) {
	if len(r.Changes) == 0 {
		return
	}
	p.title("What it changed in the process")
	for _, c := range r.Changes {
		workers := "workers have it so"
		if !c.Kept {
			workers = "workers have it as before"
		}
		p.item(c.Origin, "%s: %s, now %s; %s", c.What, orNone(c.Before), orNone(c.After), workers)
	}
}

func orNone(s string) string {
	const longest = 60
	if s == "" {
		return "not set"
	}
	return display.CutTo(s, longest)
}

func (p *page) entries(r *examine.Report) {
	if len(r.Entries) == 0 {
		return
	}
	p.title("What entries still import")
	nothing := map[string]int{} // of how many of a worker that is to be said
	for _, e := range r.Entries {
		if e.Error == "" && e.Count == 0 {
			nothing[e.Worker]++
		}
	}
	for _, e := range r.Entries {
		switch {
		case e.Error != "":
			p.para("  ", "%s, %s: %s", e.Worker, e.Entry, e.Error)
		case e.Count == 0 && nothing[e.Worker] == 1:
			p.para("  ", "%s, %s: nothing", e.Worker, e.Entry)
		case e.Count == 0 && nothing[e.Worker] > 1:
			p.para("  ", "%s, for %d of its tasks and lifespan: nothing", e.Worker, nothing[e.Worker])
			nothing[e.Worker] = 0
		case e.Count == 0:
		default:
			p.para("  ", "%s, %s: %s, %s, %.3f s in each worker: %s", e.Worker, e.Entry, examine.Modules(e.Count), examine.Size(e.Memory), e.Seconds, few(e.Modules))
		}
	}
}

// few names the first of a list.
func few(names []string) string {
	const most = 6
	text := ""
	for i, name := range names {
		if i == most {
			return text + ", …"
		}
		if i > 0 {
			text += ", "
		}
		text += name
	}
	return text
}
