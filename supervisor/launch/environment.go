// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/envfile"
	"github.com/decnet/prefork/supervisor/internal/errands"
	"github.com/decnet/prefork/supervisor/revisions"
	"github.com/decnet/prefork/supervisor/slots"
)

// reader reads environment files, each worker's by a thread of its own: a file system that
// does not answer costs that worker its start, by the slot's own deadline, and nobody else
// anything. One read of a worker is under way at a time, and serves all who have waited
// when it began; who comes later waits for the next.
type reader struct {
	pool    *errands.Pool
	threads map[*fleetfile.Worker]*errands.Owner
	waiting map[fleet.Proc]*waiter // processes at their gates

	mu   sync.Mutex
	done []environment
}

// waiter is a process that waits for its environment files.
type waiter struct {
	slot   *slots.Slot
	worker *fleetfile.Worker
	begun  bool // the read that serves it
}

// environment is what the files of a worker hold.
type environment struct {
	worker       *fleetfile.Worker
	env, ignored []string
	err          error
}

func newReader(pool *errands.Pool) *reader {
	return &reader{pool: pool, threads: map[*fleetfile.Worker]*errands.Owner{}, waiting: map[fleet.Proc]*waiter{}}
}

// read has the files of a slot read; a wakeup tells when to take what they hold.
func (r *reader) read(id fleet.Proc, s *slots.Slot) {
	r.waiting[id] = &waiter{slot: s, worker: s.Config}
	if r.threads[s.Config] == nil {
		r.begin(s.Config)
	}
}

// begin reads the files of a worker, of which no read is under way.
func (r *reader) begin(worker *fleetfile.Worker) {
	for _, w := range r.waiting {
		w.begun = w.begun || w.worker == worker
	}
	thread := r.pool.Owner()
	r.threads[worker] = thread
	thread.Do(func() {
		env, ignored, err := envfile.Read(worker.EnvironmentFiles)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.done = append(r.done, environment{worker, env, ignored, err})
	})
}

// take returns what has been read.
func (r *reader) take() []environment {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := r.done
	r.done = nil
	return done
}

// served takes the processes that a read serves, in the order of their requests, and
// begins the next read if some have come since.
func (r *reader) served(worker *fleetfile.Worker) (ids []fleet.Proc, by map[fleet.Proc]*slots.Slot) {
	delete(r.threads, worker)
	by = map[fleet.Proc]*slots.Slot{}
	late := false
	for id, w := range r.waiting {
		switch {
		case w.worker != worker:
		case w.begun:
			by[id] = w.slot
			delete(r.waiting, id)
		default:
			late = true
		}
	}
	if late {
		r.begin(worker)
	}
	return slices.Sorted(maps.Keys(by)), by
}

// Resume goes on with the processes whose environment files have been read. It is to be
// called after a wakeup.
func (l *Launcher) Resume() (events []fleet.Event) {
	for _, e := range l.reader.take() {
		ids, by := l.reader.served(e.worker) // none: all of them have ended
		for _, id := range ids {
			s := by[id]
			if e.err != nil {
				events = append(events, fleet.SpawnFailed{Proc: id, Why: e.err.Error()})
				continue
			}
			l.warn(s, e)
			s.BornWith(revisions.StampOf(e.env))
			events = append(events, l.send(l.procs.Of(id), s, slices.Clone(e.env))...)
		}
	}
	return events
}

// gaveUp says of a process that has ended what it was waiting for.
func (l *Launcher) gaveUp(id fleet.Proc) {
	w := l.reader.waiting[id]
	if w == nil {
		return
	}
	delete(l.reader.waiting, id)
	var paths []string
	for _, file := range w.worker.EnvironmentFiles {
		paths = append(paths, file.Path)
	}
	l.log.Warn(fmt.Sprintf("%s: ended before environment_file could be read: does the file system answer? %s", w.slot.Name, strings.Join(paths, ", ")))
}

// warn says which lines of the files mean nothing.
func (l *Launcher) warn(s *slots.Slot, e environment) {
	lines := slices.Clone(e.ignored)
	if s.Config.Forked() {
		lines = append(lines, withoutEffect(e.env, append(list(s.Revision.File.Floor.Env), l.book.base...))...)
	}
	for _, line := range lines {
		l.log.Warn(s.Name + ": environment_file: " + line)
	}
}

// withoutEffect says of which variables an entry of a floor that has others is past.
func withoutEffect(env, floor []string) (lines []string) {
	for _, variable := range env {
		name, _, _ := strings.Cut(variable, "=")
		if fleetfile.Early(name) && !slices.Contains(floor, variable) {
			lines = append(lines, name+" has no effect in a worker that is forked: it is read before; write it into floor.env")
		}
	}
	return lines
}
