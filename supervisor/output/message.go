// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/policy"
)

// Author is the process that says something.
type Author struct {
	Name   string // of its slot, or "floor"
	Worker string // "" for a floor
	PID    int
}

// master is the author of the master's own lines.
var master = Author{Name: "prefork"}

// message is one line, or a piece of one that is too long, with who says it.
type message struct {
	at      time.Time
	author  Author
	stream  string     // stdout or stderr; "" for the master's own
	level   slog.Level // of the master's own
	text    []byte     // without the end of the line; of the master's own with what fields says
	bare    string     // of the master's own: the text alone
	fields  []slog.Attr
	entry   Entry
	partial bool // the line goes on with the next message of this author and stream
	follows bool // it is not the beginning of its line
}

// sink takes messages, and writes them beside the loop.
type sink interface {
	// say queues a message. It does not block: it returns false if there is no room,
	// and the message is lost and counted.
	say(m *message) bool

	// busy reports whether messages of processes should be held back: who was set by
	// whenDrained is called when not. The rest of the queue is for the master's own.
	busy() bool

	whenDrained(call func())

	// heldUntil is when what is held back is lost rather than waited for.
	heldUntil() policy.Instant

	// close must come after the last message. It blocks for a second at most.
	close()

	// lost is how many messages were lost in all.
	lost() int64
}

// losses are messages that were lost.
type losses struct {
	untold atomic.Int64 // since it was last said
	all    atomic.Int64
}

func (l *losses) add(n int64) {
	l.untold.Add(n)
	l.all.Add(n)
}

// levelWord is how a level is written: the words of RFC 5424, which systemd shortens.
func levelWord(level fleet.Level) string { return levelWords[level] }

var levelWords = [...]string{"emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"}
