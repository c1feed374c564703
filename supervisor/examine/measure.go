// SPDX-License-Identifier: AGPL-3.0-or-later

package examine

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/memory"
)

// measure looks at the workers of a floor that was loaded, and of others like it.
func (r *run) measure(s *scratch, base variant, loaded time.Duration) error {
	defer func() { s.close() }()
	entries := r.entries()
	if len(entries) == 0 {
		r.note("no worker has an entry: nothing is forked from the floor")
		return nil
	}
	r.Progress("importing the entries")
	for _, w := range entries {
		for _, name := range w.Callables() {
			r.report.Entries = append(r.report.Entries, r.entry(s, w, name))
		}
	}
	m := &Memory{Worker: r.most().Name, Samples: samples}
	for _, w := range entries {
		m.Slots += w.Count
	}
	r.report.Memory = m
	for _, v := range r.variants(base) {
		row := rowOf(v)
		row.AsFile = v == base
		if v != base {
			s.close()
			r.Progress("loading it " + row.Words())
			began := time.Now()
			var broken string
			var err error
			if s, broken, err = r.start(v, false); err != nil {
				return err
			}
			loaded = time.Since(began)
			if row.Error = strings.TrimSuffix(strings.TrimPrefix(broken, "floor.immortal: "), "; remove the key"); broken != "" {
				m.Rows = append(m.Rows, row)
				continue
			}
		}
		row.Seconds = loaded.Seconds()
		r.row(s, &row)
		m.Rows = append(m.Rows, row)
	}
	return nil
}

// entries are the workers that are forked from the floor.
func (r *run) entries() (workers []*fleetfile.Worker) {
	for i := range r.file.Workers {
		if r.file.Workers[i].Forked() {
			workers = append(workers, &r.file.Workers[i])
		}
	}
	return workers
}

// most is the worker that has the most slots: memory is measured with its entry.
func (r *run) most() *fleetfile.Worker {
	return slices.MaxFunc(r.entries(), func(a, b *fleetfile.Worker) int { return a.Count - b.Count })
}

// together loads the floor with all that is advised, and measures that: what was only
// measured one by one is then known to work.
func (r *run) together() error {
	v := r.asFile()
	floor := r.file.Floor
	some := false
	for _, a := range r.report.Advice {
		switch {
		case a.Saves == 0:
		case a.Key == keyImmortal:
			v.immortal, some = true, true
		case a.Key == keyRepack:
			v.repack, some = true, true
		case a.Key == keyFreeze:
			v.freeze, some = true, true
		case a.Key == keyPreload:
			floor.Preload, some = a.preload, true // those before it, too
		}
	}
	if !some {
		return nil
	}
	r.Progress("loading it as is advised")
	began := time.Now()
	s, broken, err := r.start(v, false)
	if err != nil {
		return err
	}
	defer s.close()
	row := rowOf(v)
	row.Advised, row.Seconds, row.Error = true, time.Since(began).Seconds(), broken
	if broken == "" {
		r.row(s, &row)
	}
	r.report.Memory.Rows = append(r.report.Memory.Rows, row)
	r.adviseTogether(&row)
	return nil
}

// variants are the ways to load the floor: that of the file comes first.
func (r *run) variants(base variant) []variant {
	all := []variant{base}
	add := func(v variant) {
		if !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	for _, warm := range []bool{false, true} {
		for _, immortal := range []bool{false, true} {
			if !warm || r.file.Floor.Warm != "" {
				add(variant{immortal, warm, warm && base.repack, base.freeze})
			}
		}
	}
	if base.warm {
		add(variant{base.immortal, true, !base.repack, base.freeze})
	}
	if !base.freeze {
		add(variant{base.immortal, base.warm, base.repack, true})
	}
	return all
}

func rowOf(v variant) Row {
	return Row{Immortal: v.immortal, Warm: v.warm, Repack: v.repack, GCFreeze: v.freeze}
}

// entry sees what a worker imports that the floor does not have.
func (r *run) entry(s *scratch, w *fleetfile.Worker, name string) Entry {
	e := Entry{Worker: w.Name, Entry: name, Slots: w.Count, Modules: []string{}}
	module, _, _ := strings.Cut(name, ":")
	err := r.withWorker(s, w, r.loud, func(worker *spare) error {
		if _, err := worker.step(r.file.TimeoutStart, "resolve"); err != nil { // nothing: it has obeyed
			return err
		}
		before := worker.private()
		said, err := worker.step(r.file.TimeoutStart, "resolve", r.imports(name)...)
		if err != nil {
			return err
		}
		e.Seconds, _ = strconv.ParseFloat(slices.Concat(said, []string{""})[0], 64) // 0 else
		e.Threads, e.Count = number(said, 1), number(said, 2)
		if len(said) > 3 {
			e.Modules = said[3:]
		}
		if e.Count > 0 {
			e.Memory = max(worker.private()-before, 0)
		}
		e.Preloaded = !slices.Contains(e.Modules, module)
		return nil
	})
	if err != nil {
		e.Error = err.Error()
	}
	return e
}

// imports are what a worker resolves before something of its own is called.
func (r *run) imports(own ...string) []string {
	if hook := r.file.Floor.AfterFork; hook != "" {
		return append([]string{hook}, own...)
	}
	return own
}

// row takes the figures of one floor. What cannot be taken stays 0.
func (r *run) row(s *scratch, row *Row) {
	of := r.most()
	r.Progress("measuring workers")
	if use, err := memory.Of(s.pid); err == nil {
		row.Floor = int64(use.Private + use.Shared)
	}
	var workers []*spare
	defer func() {
		for _, w := range workers {
			w.close()
		}
	}()
	for range samples { // all of them live: what one has not written, it shares with others
		w, err := s.fork(r.file.TimeoutStart)
		if err != nil {
			r.note("the memory of workers could not be measured: %v", err)
			return
		}
		workers = append(workers, w)
	}
	row.Birth = private(workers)
	for _, w := range workers {
		if err := r.become(w, of, r.mute); err != nil {
			r.note("the memory of workers could not be measured: %v", err)
			return
		}
	}
	each := func(name string, modules ...string) error {
		for _, w := range workers {
			if _, err := w.step(r.file.TimeoutStart, name, modules...); err != nil {
				return err
			}
		}
		return nil
	}
	if err := each("resolve", r.imports(of.Callables()...)...); err != nil {
		return // it is told with the entry
	}
	row.Entry = private(workers)
	if each("collect") != nil {
		return
	}
	row.Collected = private(workers)
	if r.file.Floor.Warm == "" {
		return
	}
	if err := each("call", r.file.Floor.Warm); err != nil {
		row.WorkError = err.Error()
		return
	}
	row.Worked = private(workers)
	if each("collect") == nil {
		row.WorkedCollected = private(workers)
	}
}

// private is the median of the private memory of workers.
func private(workers []*spare) int64 {
	var sizes []int64
	for _, w := range workers {
		sizes = append(sizes, w.private())
	}
	slices.Sort(sizes)
	return sizes[len(sizes)/2]
}
