// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
)

// Log writes the master's lines: with a priority prefix for the journal
// (sd-daemon(3)), with a coloured name in a terminal, plain elsewhere.
type Log struct {
	*slog.Logger
	terminal *terminal // nil unless standard error is a terminal
}

// levelNotice lies between slog's Info and Warn.
const levelNotice = slog.LevelInfo + 2

// NewLog returns the log on standard error. With debug it tells every step.
func NewLog(env sdnotify.Environment, debug bool) *Log {
	h := &handler{level: slog.LevelInfo, write: writeStderr}
	if debug {
		h.level = slog.LevelDebug
	}
	l := &Log{Logger: slog.New(h)}
	switch {
	case sdnotify.JournalStream(env, 2):
		h.priority = true
	case isTerminal(2):
		l.terminal = newTerminal(os.Stderr)
		h.write = func(line []byte) { l.terminal.line("prefork", line) }
	}
	return l
}

// Close writes what is still to be written to a terminal, for a moment.
func (l *Log) Close() {
	if l.terminal != nil {
		l.terminal.close()
	}
}

// Notice is for what an operator wants to see and need not act on.
func (l *Log) Notice(text string, attrs ...slog.Attr) {
	l.LogAttrs(context.Background(), levelNotice, text, attrs...)
}

func (l *Log) at(level fleet.Level, text string, attrs ...slog.Attr) {
	levels := map[fleet.Level]slog.Level{
		fleet.Err: slog.LevelError, fleet.Warning: slog.LevelWarn, fleet.Notice: levelNotice,
		fleet.Info: slog.LevelInfo, fleet.Debug: slog.LevelDebug,
	}
	l.LogAttrs(context.Background(), levels[level], text, attrs...)
}

// handler writes a record as one line: the text, then key=value. There is no
// time: the journal has it.
type handler struct {
	level    slog.Level
	priority bool
	write    func(line []byte)
	attrs    []slog.Attr
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	if h.priority {
		fmt.Fprintf(&b, "<%d>", priority(r.Level))
	}
	b.WriteString(flatten(r.Message))
	for _, a := range h.attrs {
		writeAttr(&b, a)
	}
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, a)
		return true
	})
	b.WriteByte('\n')
	h.write([]byte(b.String()))
	return nil
}

func writeAttr(b *strings.Builder, a slog.Attr) {
	value := flatten(a.Value.String())
	if strings.ContainsAny(value, " \"=") || value == "" {
		value = fmt.Sprintf("%q", value)
	}
	fmt.Fprintf(b, " %s=%s", a.Key, value)
}

// flatten keeps a record on one line, whatever an error or a worker put in.
func flatten(text string) string {
	return strings.NewReplacer("\n", "; ", "\r", " ").Replace(strings.TrimSpace(text))
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
	with := *h
	with.attrs = append(append([]slog.Attr{}, h.attrs...), attrs...)
	return &with
}

func (h *handler) WithGroup(string) slog.Handler { return h }

// lost counts lines that could not be written without blocking.
var lost atomic.Int64

// writeStderr never blocks on a journal that does not read: standard error is
// then a socket, and one description with the workers', so that O_NONBLOCK is
// not ours to set. A line that cannot be written now is counted, and the count
// is told with the next one that can.
func writeStderr(line []byte) {
	if n := lost.Load(); n > 0 {
		if tryStderr(fmt.Appendf(nil, "<4>%d lines could not be written before this one\n", n)) != nil {
			lost.Add(1)
			return
		}
		lost.Add(-n)
	}
	if tryStderr(line) != nil {
		lost.Add(1)
	}
}

func tryStderr(line []byte) error {
	_, err := unix.SendmsgN(2, line, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if !errors.Is(err, unix.ENOTSOCK) {
		return err
	}
	_, err = unix.Write(2, line)
	return err
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}
