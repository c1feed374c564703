// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"slices"
	"strings"
	"sync"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/envfile"
	"github.com/decnet/prefork/supervisor/internal/errands"
	"github.com/decnet/prefork/supervisor/slots"
)

// reader reads environment files, each worker's by a thread of its own: a file system that
// does not answer costs that worker its start, by the slot's own deadline, and nobody else
// anything.
type reader struct {
	pool    *errands.Pool
	threads map[fleet.WorkerID]*errands.Owner
	waiting map[fleet.Proc]*slots.Slot // processes at their gates

	mu   sync.Mutex
	done []environment
}

// environment is what the files of a process hold.
type environment struct {
	proc         fleet.Proc
	env, ignored []string
	err          error
}

func newReader(pool *errands.Pool) *reader {
	return &reader{pool: pool, threads: map[fleet.WorkerID]*errands.Owner{}, waiting: map[fleet.Proc]*slots.Slot{}}
}

// read begins to read the files of a slot; a wakeup tells when to take what they hold.
func (r *reader) read(id fleet.Proc, s *slots.Slot) {
	thread := r.threads[s.Worker]
	if thread == nil {
		thread = r.pool.Owner()
		r.threads[s.Worker] = thread
	}
	r.waiting[id] = s
	files := s.Config.EnvironmentFiles
	thread.Do(func() {
		env, ignored, err := envfile.Read(files)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.done = append(r.done, environment{id, env, ignored, err})
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

// Resume goes on with the processes whose environment files have been read. It is to be
// called after a wakeup.
func (l *Launcher) Resume() (events []fleet.Event) {
	for _, e := range l.reader.take() {
		s, waits := l.reader.waiting[e.proc]
		if !waits {
			continue // it has ended
		}
		delete(l.reader.waiting, e.proc)
		if e.err != nil {
			events = append(events, fleet.SpawnFailed{Proc: e.proc, Why: e.err.Error()})
			continue
		}
		l.warn(s, e)
		events = append(events, l.send(l.procs.Of(e.proc), s, e.env)...)
	}
	return events
}

// warn says which lines of the files mean nothing.
func (l *Launcher) warn(s *slots.Slot, e environment) {
	lines := e.ignored
	if s.Config.Entry != "" {
		lines = append(lines, withoutEffect(e.env, append(list(l.book.file.Floor.Env), l.book.base...))...)
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
