// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"errors"
	"fmt"
	"slices"
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

// Protocol is the version of the messages here and of those of package gate. A zygote
// says with loaded which one it speaks. A new field is no new version: a zygote ignores
// what it does not know. A new duty is.
const Protocol = 1

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
	AllowThreads bool
	AllowFDs     bool
	Entries      []string // "module:callable", what the workers will be asked to run
	Prctl        bool     // orders will need prctl(2)
	Python       *Python  // for the zygote of this package; nil: it is another program
}

// Python is what only the zygote of this package is told.
type Python struct {
	Repack   bool // the code that ran while it warmed up is copied side by side
	Immortal bool // what has been loaded is never freed, in no worker
	GCFreeze bool
	Tasks    bool // some of the workers are of tasks
	Capable  bool // it may have capabilities for some of its workers: each keeps its own
	// Calls are the callables that the file names, each after the place where it does and
	// a space, which tells of one that a module of the floor does not have.
	Calls []string
}

// requestField is one field of the floor message: none, or one for each of its values.
type requestField struct {
	name   string
	python bool // for the zygote of this package alone
	values func(f *LoadRequest) []string
}

// requestFields are all fields, in the order in which they are sent.
var requestFields = []requestField{
	{"fleet", false, func(f *LoadRequest) []string { return []string{f.Fleet} }},
	{"generation", false, func(f *LoadRequest) []string { return []string{strconv.Itoa(f.Generation)} }},
	{"title", false, func(f *LoadRequest) []string { return []string{f.Title} }},
	{"path", false, func(f *LoadRequest) []string { return f.Path }},
	{"preload", false, func(f *LoadRequest) []string { return f.Preload }},
	{"setup", false, func(f *LoadRequest) []string { return given(f.Setup) }},
	{"warm", false, func(f *LoadRequest) []string { return given(f.Warm) }},
	{"threads", false, func(f *LoadRequest) []string { return guard(f.AllowThreads) }},
	{"fds", false, func(f *LoadRequest) []string { return guard(f.AllowFDs) }},
	{"entry", false, func(f *LoadRequest) []string { return f.Entries }},
	{"prctl", false, func(f *LoadRequest) []string { return flag(f.Prctl) }},
	{"repack", true, func(f *LoadRequest) []string { return flag(f.Python.Repack) }},
	{"immortal", true, func(f *LoadRequest) []string { return flag(f.Python.Immortal) }},
	{"gc_freeze", true, func(f *LoadRequest) []string { return flag(f.Python.GCFreeze) }},
	{"has_tasks", true, func(f *LoadRequest) []string { return flag(f.Python.Tasks) }},
	{"capabilities", true, func(f *LoadRequest) []string { return flag(f.Python.Capable) }},
	{"calls", true, func(f *LoadRequest) []string { return f.Python.Calls }},
	{"tasks", true, func(*LoadRequest) []string { return []string{Tasks()} }},
	{"module", true, func(*LoadRequest) []string { return []string{Module} }},
}

// RequestKeys are the fields of the floor message that any zygote gets.
func RequestKeys() (names []string) {
	for _, field := range requestFields {
		if !field.python {
			names = append(names, field.name)
		}
	}
	return names
}

// Encode returns the floor message, with [Module] and [Tasks] in it for the zygote of
// this package. The kernel takes one of up to about 200 kB.
func (f LoadRequest) Encode() []byte {
	b := []byte("floor")
	for _, field := range requestFields {
		if field.python && f.Python == nil {
			continue
		}
		for _, v := range field.values(&f) {
			b = appendField(b, field.name, v)
		}
	}
	return b
}

func appendField(b []byte, name, value string) []byte {
	b = append(append(append(b, 0), name...), '=')
	return append(b, strings.ReplaceAll(value, "\x00", "")...)
}

// Fork asks the zygote at the other end of command for workers, no more at a time than it
// has said. gates are their ends of their gates. groups are the cgroup.procs, open for
// writing, of the cgroups that they are to be born in, or none: that of the zygote. If one
// cannot be entered, the text of the refusal begins with "cgroup: ". The descriptors stay
// the caller's. It does not block: EAGAIN means that the zygote does not read.
func Fork(command int, ids []uint64, gates, groups []int) error {
	return linux.Send(command, EncodeFork(ids...), slices.Concat(gates, groups)...)
}

// EncodeFork returns the request for workers; [Fork] sends it with its descriptors.
func EncodeFork(ids ...uint64) []byte {
	b := []byte("fork")
	for _, id := range ids {
		b = strconv.AppendUint(append(b, 0), id, 10)
	}
	return b
}

func given(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

func guard(allow bool) []string {
	if allow {
		return []string{"allow"}
	}
	return []string{"refuse"}
}

func flag(on bool) []string {
	if on {
		return []string{"1"}
	}
	return []string{"0"}
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
	Kind     Kind
	Protocol int           // of Loaded: what it speaks, see [Protocol]
	Forks    int           // of Loaded: how many workers it can be asked for at a time
	Stacks   int           // of Loaded: the signal by which a worker writes its stacks; 0: there is none
	ID       uint64        // of Refused
	Errno    syscall.Errno // of Refused
	Text     string        // one line of valid, printable UTF-8, at most 512 bytes
}

// Decode reads one message of a zygote. An error means that the sender is not
// to be relied on.
func Decode(b []byte) (Message, error) {
	name, rest, more := strings.Cut(string(b), "\x00")
	m := Message{Kind: Kind(name)}
	switch m.Kind {
	case Loaded:
		return decodeLoaded(rest)
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

// decodeLoaded: all numbers but the first may be missing. The signal is a real-time one:
// no other can mean what this does.
func decodeLoaded(rest string) (Message, error) {
	m := Message{Kind: Loaded, Forks: 1}
	numbers := strings.Split(rest, "\x00")
	n, err := strconv.ParseUint(numbers[0], 10, 31)
	if err != nil {
		return Message{}, errors.New("zygote: loaded must have a number, the protocol that it speaks")
	}
	m.Protocol = int(n)
	if len(numbers) > 1 {
		if n, err = strconv.ParseUint(numbers[1], 10, 31); err != nil || n == 0 {
			return Message{}, errors.New("zygote: the second number of loaded must be how many workers it takes a request for, 1 or more")
		}
		m.Forks = int(n)
	}
	if len(numbers) > 2 {
		if n, err = strconv.ParseUint(numbers[2], 10, 31); err != nil || n != 0 && (n < firstRealTime || n > lastRealTime) || len(numbers) > 3 {
			return Message{}, fmt.Errorf("zygote: the third and last number of loaded must be the signal by which a worker writes its stacks, %d to %d, or 0",
				firstRealTime, lastRealTime)
		}
		m.Stacks = int(n)
	}
	return m, nil
}

// The real-time signals that are not the C library's (signal(7)).
const firstRealTime, lastRealTime = 34, 64

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
