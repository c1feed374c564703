// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/text"
)

// MaxMessage is the size in bytes of a receive buffer that holds every message
// of a zygote. A longer one is not of our making.
const MaxMessage = 1 << 13

// LoadRequest is what a zygote is told to load. Values must not hold NUL; a NUL is
// left out, so that no value can add a field.
type LoadRequest struct {
	Fleet        string
	Generation   int
	Title        string   // of the zygote's process
	Path         []string // put before sys.path, in this order
	Preload      []string // modules, imported in this order
	Setup        string   // "module:callable" or ""
	Warm         string   // the same, called after it
	Repack       bool     // the code that ran while it warmed up is copied side by side
	Immortal     bool     // what has been loaded is never freed, in no worker
	AllowThreads bool
	AllowFDs     bool
	GCFreeze     bool
	Entries      []string // "module:callable", what the workers will be asked to run
	Prctl        bool     // orders will need prctl(2)
}

// Encode returns the floor message, with [Module] in it. The kernel takes one
// of up to about 200 kB.
func (f LoadRequest) Encode() []byte {
	m := newMessage("floor")
	m.field("fleet", f.Fleet)
	m.field("generation", strconv.Itoa(f.Generation))
	m.field("title", f.Title)
	m.field("path", f.Path...)
	m.field("preload", f.Preload...)
	if f.Setup != "" {
		m.field("setup", f.Setup)
	}
	if f.Warm != "" {
		m.field("warm", f.Warm)
	}
	m.field("repack", flag(f.Repack))
	m.field("immortal", flag(f.Immortal))
	m.field("threads", guard(f.AllowThreads))
	m.field("fds", guard(f.AllowFDs))
	m.field("gc_freeze", flag(f.GCFreeze))
	m.field("entry", f.Entries...)
	m.field("prctl", flag(f.Prctl))
	m.field("module", Module)
	return m.bytes
}

// Fork asks the zygote at the other end of command for one worker. gate is the
// worker's end of its gate. procs is the cgroup.procs, open for writing, of the
// cgroup that the worker is to be born in, or negative: that of the zygote. If
// it cannot be entered, the text of the refusal begins with "cgroup: ". Both
// descriptors stay the caller's. It does not block: EAGAIN means that the zygote
// does not read.
func Fork(command int, id uint64, gate, procs int) error {
	fds := []int{gate}
	if procs >= 0 {
		fds = append(fds, procs)
	}
	return linux.Send(command, EncodeFork(id), fds...)
}

// EncodeFork returns the request for one worker; [Fork] sends it with its
// descriptors.
func EncodeFork(id uint64) []byte {
	return strconv.AppendUint([]byte("fork\x00"), id, 10)
}

// message is a message that is being put together.
type message struct{ bytes []byte }

func newMessage(name string) *message { return &message{[]byte(name)} }

// field adds one field for each value.
func (m *message) field(key string, values ...string) {
	for _, v := range values {
		m.bytes = append(m.bytes, 0)
		m.bytes = append(m.bytes, key...)
		m.bytes = append(m.bytes, '=')
		m.bytes = append(m.bytes, strings.ReplaceAll(v, "\x00", "")...)
	}
}

func guard(allow bool) string {
	if allow {
		return "allow"
	}
	return "refuse"
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// Kind tells the messages of a zygote apart. Its values are their names.
type Kind string

// The messages of a zygote.
const (
	Progress Kind = "progress" // Text says what it does
	Loaded   Kind = "loaded"   // it takes fork requests now
	Broken   Kind = "broken"   // Text says why; it exits
	Refused  Kind = "refused"  // there will be no worker for request ID
)

// Message is what a zygote said. The floor is user code and may write to the
// socket as it likes: Text is for display and ID is a claim.
type Message struct {
	Kind  Kind
	ID    uint64        // of Refused
	Errno syscall.Errno // of Refused
	Text  string        // one line of valid, printable UTF-8, at most 512 bytes
}

// Decode reads one message of a zygote. An error means that the sender is not
// to be relied on.
func Decode(b []byte) (Message, error) {
	name, rest, more := strings.Cut(string(b), "\x00")
	m := Message{Kind: Kind(name)}
	switch m.Kind {
	case Loaded:
		if more {
			return Message{}, errors.New("zygote: loaded must have no fields")
		}
	case Progress, Broken:
		if !more {
			return Message{}, fmt.Errorf("zygote: %s must have a text", m.Kind)
		}
		m.Text = text.OneLine(rest, gate.MaxText)
	case Refused:
		return decodeRefused(rest)
	default:
		return Message{}, fmt.Errorf("zygote: unknown message %q", text.OneLine(name, gate.MaxText))
	}
	return m, nil
}

func decodeRefused(rest string) (Message, error) {
	parts := strings.SplitN(rest, "\x00", 3)
	if len(parts) != 3 {
		return Message{}, errors.New("zygote: refused must have an id, an errno and a text")
	}
	id, err := strconv.ParseUint(parts[0], 10, 64)
	if err != nil {
		return Message{}, fmt.Errorf("zygote: refused: id: %v", err)
	}
	errno, err := strconv.ParseUint(parts[1], 10, 12)
	if err != nil {
		return Message{}, fmt.Errorf("zygote: refused: errno: %v", err)
	}
	return Message{Kind: Refused, ID: id, Errno: syscall.Errno(errno), Text: text.OneLine(parts[2], gate.MaxText)}, nil
}
