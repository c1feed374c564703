// SPDX-License-Identifier: AGPL-3.0-or-later

package examine

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/text"
)

// maxText is the size in bytes of the longest text of a floor that is shown.
const maxText = gate.MaxText

// line is one that a floor writes which is watched, see watch.py. What is in lists has no
// names there: the floor writes thousands of them.
type line struct {
	Do      string  `json:"do"` // begin, which says nothing more, enter, leave, end, left, device
	Name    string  `json:"name"`
	Seconds float64 `json:"s"`
	KB      int64   `json:"kB"`

	Threads json.RawMessage `json:"threads"` // [id, name, where], at the end ids
	Opened  [][]any         `json:"opened"`  // [number, target, sharing, locked, where]
	Changed [][]any         `json:"changed"` // [what, before, after, where]
	Started [][]any         `json:"started"` // [command, where]

	Python      string   `json:"python"`
	Descriptors []int    `json:"descriptors"`
	Children    []string `json:"children"`
	Hooks       [][]any  `json:"hooks"` // [module, kind, where, seconds]
	Pools       []string `json:"pools"`
	Loops       [][]any  `json:"loops"` // [class, running, closed, descriptor]
}

// reading is what is understood of the lines of a floor so far.
type reading struct {
	report   *Report
	stack    []*Module // what runs, the outermost first
	changes  map[string]*Change
	order    []string // of changes
	pools    []string // variables that keep threads from starting
	children int      // that run when all has been loaded
	ended    bool     // what was left was told
}

// read understands what a floor has written. It believes nothing: a line that is none is
// left out, and all text is made fit to be shown.
func read(written []byte, report *Report) *reading {
	r := &reading{report: report, changes: map[string]*Change{}}
	root := &Module{}
	r.stack = []*Module{root}
	for text := range bytes.Lines(written) {
		var l line
		if err := json.Unmarshal(text, &l); err == nil && l.Do != "" {
			r.take(&l)
			continue
		}
		r.stuck(string(text))
	}
	for len(r.stack) > 1 { // it has not come to their end
		r.stack[len(r.stack)-1].Failed = true
		r.pop()
	}
	report.Modules = append(report.Modules, steps(root.Modules)...)
	r.concludeChanges()
	return r
}

func (r *reading) take(l *line) {
	if r.ended {
		return
	}
	top := r.stack[len(r.stack)-1]
	if l.Do == "device" {
		r.report.Devices = append(r.report.Devices, Device{clean(l.Name), r.origin("")})
		return
	}
	top.OwnSeconds += l.Seconds
	top.OwnMemory += l.KB << 10
	if l.Do == "left" {
		r.left(l)
		return
	}
	r.found(l)
	switch l.Do {
	case "enter":
		const deepest = 500
		if len(r.stack) < deepest {
			r.stack = append(r.stack, &Module{Name: clean(l.Name), Count: 1, Modules: []Module{}})
		}
	case "leave":
		if len(r.stack) > 1 {
			r.pop()
		}
	}
}

// pop ends the module that runs: what it has taken is that of who imported it, too.
func (r *reading) pop() {
	last := len(r.stack) - 1
	done, above := r.stack[last], r.stack[last-1]
	done.sum()
	above.Modules = append(above.Modules, *done)
	r.stack = r.stack[:last]
}

func (m *Module) sum() {
	m.Seconds, m.Memory = m.OwnSeconds, m.OwnMemory
	for i := range m.Modules {
		child := &m.Modules[i]
		m.Seconds += child.Seconds
		m.Memory += child.Memory
		m.Count += child.Count
	}
}

// found takes what has changed while the module ran that runs.
func (r *reading) found(l *line) {
	var threads [][]any
	_ = json.Unmarshal(l.Threads, &threads) // none
	for _, t := range threads {
		r.report.Threads = append(r.report.Threads, Thread{integer(t, 0), str(t, 1), r.origin(str(t, 2))})
	}
	for _, d := range l.Opened {
		verdicts := []string{Fine, Spoiled, Shared} // as in looks.py
		r.report.Descriptors = append(r.report.Descriptors, Descriptor{
			Number: integer(d, 0), Target: str(d, 1), Verdict: verdicts[max(0, min(integer(d, 2), 2))],
			Locked: truth(d, 3), Origin: r.origin(str(d, 4)),
		})
	}
	for _, p := range l.Started {
		r.report.Processes = append(r.report.Processes, Process{str(p, 0), r.origin(str(p, 1))})
	}
	for _, c := range l.Changed {
		what := str(c, 0)
		known := r.changes[what]
		if known == nil {
			known = &Change{What: what, Before: str(c, 1), Kept: !takenBack(what)}
			r.changes[what] = known
			r.order = append(r.order, what)
		}
		known.After, known.Origin = str(c, 2), r.origin(str(c, 3))
	}
}

// takenBack reports whether workers have what was before, see prepare.py and floor.py.
func takenBack(what string) bool {
	kind, _, _ := strings.Cut(what, " ")
	return what == "umask" || what == "working directory" || what == "nice" || kind == "signal" || kind == "blocked" || kind == "timer"
}

func (r *reading) concludeChanges() {
	for _, what := range r.order {
		c := r.changes[what]
		if c.Before == c.After {
			continue // it was taken back
		}
		if strings.HasPrefix(what, "environment ") { // what stands for a value is none
			for _, value := range []*string{&c.Before, &c.After} {
				if *value != "" {
					*value = "set"
				}
			}
		}
		r.report.Changes = append(r.report.Changes, *c)
	}
}

// left takes what is there in the end: what is not, was closed or has ended.
func (r *reading) left(l *line) {
	var threads []int
	_ = json.Unmarshal(l.Threads, &threads) // none
	r.ended = true
	r.report.Python, r.pools, r.children = clean(l.Python), l.Pools, len(l.Children)
	r.report.Threads = slices.DeleteFunc(r.report.Threads, func(t Thread) bool { return !slices.Contains(threads, t.ID) })
	last := map[int]int{} // of each number the last that was opened
	for i, d := range r.report.Descriptors {
		last[d.Number] = i
	}
	open := []Descriptor{}
	for i, d := range r.report.Descriptors {
		if last[d.Number] == i && slices.Contains(l.Descriptors, d.Number) {
			open = append(open, d)
		}
	}
	r.report.Descriptors = open
	slices.SortFunc(open, func(a, b Descriptor) int { return cmp.Compare(a.Number, b.Number) })
	for _, loop := range l.Loops {
		of := Origin{}
		for _, d := range open {
			if d.Number == integer(loop, 3) {
				of = d.Origin
			}
		}
		r.report.Loops = append(r.report.Loops, Loop{str(loop, 0), truth(loop, 1), truth(loop, 2), of})
	}
	r.hooks(l.Hooks)
}

// hooks takes the hooks of forks, module by module.
func (r *reading) hooks(all [][]any) {
	r.report.ForkHooks = []ForkHook{}
	for _, h := range all {
		module := str(h, 0)
		i := slices.IndexFunc(r.report.ForkHooks, func(f ForkHook) bool { return f.Module == module })
		if i < 0 {
			i = len(r.report.ForkHooks)
			r.report.ForkHooks = append(r.report.ForkHooks, ForkHook{Module: module, Where: str(h, 2)})
		}
		f := &r.report.ForkHooks[i]
		switch str(h, 1) {
		case "before":
			f.Before, f.BeforeSeconds = f.Before+1, f.BeforeSeconds+float(h, 3)
		case "after_in_parent":
			f.Parent, f.ParentSeconds = f.Parent+1, f.ParentSeconds+float(h, 3)
		case "after_in_child":
			f.Child, f.ChildSeconds = f.Child+1, f.ChildSeconds+float(h, 3)
		}
	}
}

// hooksFrom takes what a worker knows of the hooks.
func (r *reading) hooksFrom(said []string) {
	var all [][]any
	for _, text := range said {
		var hook []any
		if json.Unmarshal([]byte(text), &hook) == nil {
			all = append(all, hook)
		}
	}
	r.hooks(all)
}

// stuck takes a line of Python's stacks, which faulthandler writes: of the thread that
// runs, the innermost first.
func (r *reading) stuck(said string) {
	said = clean(said)
	const most = 12
	ours := strings.Contains(said, "<prefork zygote>") || strings.Contains(said, "<frozen importlib") || strings.Contains(said, `"<string>"`)
	if strings.HasPrefix(said, "File ") && !ours && len(r.report.Stuck) < most {
		r.report.Stuck = append(r.report.Stuck, said)
	}
}

// during is the way to the module that runs.
func (r *reading) during() string {
	var names []string
	for _, m := range r.stack[1:] {
		name := strings.TrimPrefix(m.Name, importing)
		if len(names) > 0 && names[len(names)-1] == name {
			continue // the step of a module and the module
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return "starting python"
	}
	const shown = 4
	if len(names) > shown {
		names = slices.Concat(names[:1], []string{"…"}, names[len(names)-shown+2:])
	}
	return strings.Join(names, " > ")
}

func (r *reading) origin(where string) Origin { return Origin{r.during(), where} }

// importing begins the name of a step that imports a module of floor.preload.
const importing = "importing "

// isStep reports whether a name is that of a step of the load, see load in floor.py.
func isStep(name string) bool {
	for _, prefix := range []string{importing, "setup ", "warm "} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// steps makes of each step that imports a module that module: it is all that the step
// does, unless another has imported it before.
func steps(all []Module) []Module {
	all = slices.DeleteFunc(all, func(m Module) bool { return !isStep(m.Name) }) // the zygote's own
	for i, step := range all {
		name, ok := strings.CutPrefix(step.Name, importing)
		if !ok {
			continue
		}
		at := slices.IndexFunc(step.Modules, func(m Module) bool { return m.Name == name })
		if at < 0 || len(step.Modules) > 1 {
			step.Name = name // the parents of what another had imported
			step.Count--
		} else {
			own, ownMemory := step.OwnSeconds, step.OwnMemory
			failed := step.Failed
			step = step.Modules[0]
			step.Seconds, step.OwnSeconds = step.Seconds+own, step.OwnSeconds+own
			step.Memory, step.OwnMemory = step.Memory+ownMemory, step.OwnMemory+ownMemory
			step.Failed = step.Failed || failed
		}
		all[i] = step
	}
	return all
}

func clean(s string) string { return text.OneLine(s, maxText) }

func str(list []any, i int) string {
	if i >= len(list) || list[i] == nil {
		return ""
	}
	return clean(fmt.Sprint(list[i]))
}

func float(list []any, i int) float64 {
	if i >= len(list) {
		return 0
	}
	f, _ := list[i].(float64) // 0 else
	return f
}

func integer(list []any, i int) int { return int(float(list, i)) }

func truth(list []any, i int) bool {
	if i >= len(list) {
		return false
	}
	b, _ := list[i].(bool) // false else
	return b
}
