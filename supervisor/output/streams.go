// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"fmt"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

// streams give each name a stream of its own to the journal that the master's
// standard error goes to. The master opens them and writes to none: what a
// worker says never passes through it, and a journal that does not read stops
// only who talks. A stream is kept for the next process of that name.
type streams struct {
	log    *Log
	dir    string // of the journal's sockets
	own    string // JOURNAL_STREAM of the master's standard error; "": it is not the journal
	stdout bool   // standard output is the journal, too
	byName map[string]journalStream
	failed bool // and that was said
}

type journalStream struct {
	fd int
	id string // JOURNAL_STREAM
}

func newStreams(env sdnotify.Environment, log *Log) *streams {
	t := &streams{log: log, byName: map[string]journalStream{}}
	if sdnotify.JournalStream(env, 2) {
		t.own, t.dir = env.JournalStream, sdnotify.JournalDir(2)
		t.stdout = sdnotify.JournalStream(env, 1)
	}
	return t
}

// of returns the stream of a name. Without one the process inherits the
// master's: fd is -1. The descriptor stays the table's.
func (t *streams) of(name string) journalStream {
	none := journalStream{fd: -1, id: t.own}
	if t.own == "" {
		return none
	}
	if s, ok := t.byName[name]; ok {
		if sdnotify.StreamAlive(s.fd) {
			return s
		}
		linux.CloseFD(&s.fd)
		delete(t.byName, name)
	}
	s, err := t.open(name)
	if err != nil {
		if !t.failed {
			t.failed = true
			t.log.Warn(fmt.Sprintf("%s: no journal stream of its own, it shares the master's: %v", name, err))
		}
		return none
	}
	t.failed = false
	t.byName[name] = s
	return s
}

func (t *streams) open(name string) (s journalStream, err error) {
	if s.fd, err = sdnotify.OpenStream(t.dir, name, int(fleet.Info)); err != nil {
		return s, err
	}
	if s.id, err = sdnotify.StreamID(s.fd); err != nil {
		linux.CloseFD(&s.fd)
	}
	return s, err
}

func (t *streams) close() {
	for _, s := range t.byName {
		linux.CloseFD(&s.fd)
	}
}
