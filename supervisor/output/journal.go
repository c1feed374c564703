// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"cmp"
	"errors"
	"log/slog"
	"strconv"
	"sync"

	"github.com/decnet/prefork/sdnotify"
)

// Entry is what a line has for the journal alone: fields that can be searched for
// (systemd.journal-fields(7)). It travels as an attribute of the line.
type Entry []sdnotify.EntryField

// Attr is the attribute of the line.
func (e Entry) Attr() slog.Attr { return slog.Any("journal", e) }

// isEntry reports whether an attribute is not for the line of text.
func isEntry(a slog.Attr) (Entry, bool) {
	if a.Value.Kind() != slog.KindAny {
		return nil, false
	}
	e, ok := a.Value.Any().(Entry)
	return e, ok
}

// Add adds a field, unless its value is empty.
func (e *Entry) Add(name, value string) {
	if value != "" {
		*e = append(*e, sdnotify.EntryField{Name: name, Value: value})
	}
}

// Number adds a field, unless its value is 0.
func (e *Entry) Number(name string, n int64) {
	if n != 0 {
		e.Add(name, strconv.FormatInt(n, 10))
	}
}

// journalWriter sends records to the journal in its own protocol, which never
// blocks. What a busy journal does not take waits here, in order: a worker that
// floods the journal must not cost the master an entry.
type journalWriter struct {
	journal *sdnotify.Journal
	mu      sync.Mutex
	waiting []waitingEntry // at most maxWaiting
}

// waitingEntry has the line of text too, for when the journal never takes it.
type waitingEntry struct {
	level  slog.Level
	text   string
	fields Entry
}

const maxWaiting = 256

func (w *journalWriter) send(level slog.Level, text string, e Entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	fields := Entry{
		{Name: "MESSAGE", Value: cmp.Or(text, "(empty)")},
		{Name: "PRIORITY", Value: strconv.Itoa(int(priority(level)))},
		{Name: "SYSLOG_IDENTIFIER", Value: "prefork"},
	}
	fields = append(fields, e...)
	err := w.retry()
	if err == nil {
		err = w.journal.Send(fields...)
	}
	if errors.Is(err, sdnotify.ErrFull) && len(w.waiting) < maxWaiting {
		w.waiting = append(w.waiting, waitingEntry{level, text, fields})
		return nil
	}
	return err
}

// retry sends what waits, as far as the journal takes it.
func (w *journalWriter) retry() error {
	for len(w.waiting) > 0 {
		if err := w.journal.Send(w.waiting[0].fields...); err != nil {
			return err
		}
		w.waiting = w.waiting[1:]
	}
	w.waiting = nil
	return nil
}
