// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/text"
	"github.com/decnet/prefork/supervisor/policy"
)

// Log writes the master's lines: as entries of the journal, with the time and a coloured
// name in a terminal, in the format of the fleet file elsewhere, plain without one. Before the fleet has started, and where the
// journal does not take an entry, standard error is the stream to the journal
// that systemd made, with a priority prefix (sd-daemon(3)): what is said there
// belongs to the unit even if the process is gone when it is read.
type Log struct {
	*slog.Logger
	handler   *handler
	sink      sink          // a terminal or a feed; nil: lines are written to stderr
	stderr    *stderr       // nil if it is a terminal
	newFormat func() format // nil: there is none
}

// levelNotice lies between slog's Info and Warn.
const levelNotice = slog.LevelInfo + 2

// NewLog returns the log on standard error. With debug it tells every step.
func NewLog(env sdnotify.Environment, debug bool) *Log {
	h := &handler{level: slog.LevelInfo, priority: sdnotify.JournalStream(env, 2)}
	if debug {
		h.level = slog.LevelDebug
	}
	l := &Log{Logger: slog.New(h), handler: h}
	if isTerminal(2) {
		l.use(newTerminal(os.Stderr, columnsOf(2)))
	} else {
		l.stderr = newStderr()
		h.write = func(r *record) { l.stderr.write(r.line(h.priority), h.priority) }
	}
	return l
}

// LogTo returns a log that hands each line, with its priority prefix and its newline, to
// write.
func LogTo(write func(line []byte)) *Log {
	h := &handler{level: slog.LevelDebug, priority: true, write: func(r *record) { write(r.line(true)) }}
	return &Log{Logger: slog.New(h), handler: h}
}

// use writes lines to a sink from now on.
func (l *Log) use(to sink) {
	l.sink = to
	l.handler.write = func(r *record) {
		to.say(&message{
			at: time.Now(), author: master, level: r.level, text: []byte(text.Cut(r.text, maxRecord-1)),
			bare: text.Cut(r.bare, maxRecord-1), fields: r.attrs, entry: r.entry,
		})
	}
}

// Format gives lines a form from now on: "name" or "json", and "" for none. It is for pipes
// and files: a terminal has its own, and the journal needs none. It is to be called before
// anybody else writes to the log, and before [New].
func (l *Log) Format(name, fleet string) {
	if l.handler.priority || formatOf(name, fleet) == nil {
		return
	}
	l.newFormat = func() format { return formatOf(name, fleet) }
	if l.stderr != nil && takesLines(2) {
		// Whether it can be written to is told to nobody: that would be written there.
		l.use(newFeed(2, l.newFormat(), func(error) {}))
	}
}

// feeds reports whether standard error is a pipe or a file, and has lines with a format.
func (l *Log) feeds() bool {
	_, ok := l.sink.(*feed)
	return ok
}

// lost is how many lines were lost.
func (l *Log) lost() (n int64) {
	if l.stderr != nil {
		n = l.stderr.losses.all.Load()
	}
	if l.sink != nil {
		n += l.sink.lost()
	}
	return n
}

// UseJournal sends entries from now on, where standard error is the journal.
func (l *Log) UseJournal() {
	if !l.handler.priority {
		return
	}
	journal, err := sdnotify.OpenJournal(sdnotify.JournalDir(2))
	if err != nil {
		l.Warn(fmt.Sprintf("no entries in the journal, only lines: %v", err))
		return
	}
	l.handler.journal.Store(&journalWriter{journal: journal})
}

// EndJournal goes back to the stream: who ends cannot be looked up any more.
func (l *Log) EndJournal() {
	w := l.handler.journal.Swap(nil)
	if w == nil {
		return
	}
	_ = w.retry() // what the journal does not take is printed
	for _, e := range w.waiting {
		l.handler.write(&record{level: e.level, text: e.text})
	}
	w.journal.Close()
}

// journalRetry is how long an entry waits that the journal did not take.
const journalRetry = 100 * time.Millisecond

// RetryJournal sends what waits for the journal, and returns when to do so again.
func (l *Log) RetryJournal(now policy.Instant) policy.Instant {
	w := l.handler.journal.Load()
	if w == nil {
		return policy.Never
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.retry() == nil {
		return policy.Never
	}
	return now.Add(journalRetry)
}

// Close writes what is still to be written, for a moment.
func (l *Log) Close() {
	if l.sink != nil {
		l.sink.close()
	}
}

// Notice is for what an operator wants to see and need not act on.
func (l *Log) Notice(text string, attrs ...slog.Attr) {
	l.LogAttrs(context.Background(), levelNotice, text, attrs...)
}

var slogLevels = map[fleet.Level]slog.Level{
	fleet.Err: slog.LevelError, fleet.Warning: slog.LevelWarn, fleet.Notice: levelNotice,
	fleet.Info: slog.LevelInfo, fleet.Debug: slog.LevelDebug,
}

// Shows reports whether lines of that importance are written at all.
func (l *Log) Shows(level fleet.Level) bool {
	return l.Enabled(context.Background(), slogLevels[level])
}

// At writes a line of that importance.
func (l *Log) At(level fleet.Level, text string, attrs ...slog.Attr) {
	l.LogAttrs(context.Background(), slogLevels[level], text, attrs...)
}

// handler writes a record as one line: the text, then key=value. There is no
// time: the journal has it.
type handler struct {
	level    slog.Level
	priority bool
	write    func(r *record)
	journal  atomic.Pointer[journalWriter] // nil: write it is
	attrs    []slog.Attr
}

// record is one line of the master's own.
type record struct {
	level slog.Level
	text  string // with its attributes
	bare  string // without
	attrs []slog.Attr
	entry Entry
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *handler) Handle(_ context.Context, given slog.Record) error {
	r := &record{level: given.Level, bare: flatten(given.Message), attrs: slices.Clone(h.attrs)}
	given.Attrs(func(a slog.Attr) bool {
		if e, ok := isEntry(a); ok {
			r.entry = e
		} else {
			r.attrs = append(r.attrs, a)
		}
		return true
	})
	var b strings.Builder
	b.WriteString(r.bare)
	for _, a := range r.attrs {
		writeAttr(&b, a)
	}
	r.text = b.String()
	if w := h.journal.Load(); w != nil && w.send(r.level, r.text, r.entry) == nil {
		return nil
	}
	h.write(r)
	return nil
}

// line is the record as one line.
func (r *record) line(withPriority bool) []byte {
	line := r.text
	if withPriority {
		line = fmt.Sprintf("<%d>%s", priority(r.level), line)
	}
	return []byte(text.Cut(line, maxRecord-1) + "\n")
}

// maxRecord is the size in bytes of the longest line: a pipe and the journal's
// socket take one of that size whole or not at all (PIPE_BUF, pipe(7)).
const maxRecord = 4096

func writeAttr(b *strings.Builder, a slog.Attr) {
	value := flatten(a.Value.String())
	if strings.ContainsAny(value, " \"=") || value == "" {
		value = fmt.Sprintf("%q", value)
	}
	fmt.Fprintf(b, " %s=%s", a.Key, value)
}

// flatten keeps a record on one line of printable text, whatever an error or a
// worker put in.
func flatten(record string) string {
	return text.Printable(strings.ReplaceAll(strings.TrimSpace(record), "\n", "; "))
}

func priority(level slog.Level) fleet.Level {
	switch {
	case level >= slog.LevelError:
		return fleet.Err
	case level >= slog.LevelWarn:
		return fleet.Warning
	case level >= levelNotice:
		return fleet.Notice
	case level >= slog.LevelInfo:
		return fleet.Info
	default:
		return fleet.Debug
	}
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := &handler{level: h.level, priority: h.priority, write: h.write, attrs: append(slices.Clone(h.attrs), attrs...)}
	with.journal.Store(h.journal.Load())
	return with
}

func (h *handler) WithGroup(string) slog.Handler { return h }
