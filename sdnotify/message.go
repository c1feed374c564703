// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MessageMax is the size in bytes of the longest datagram that is read, which is
// systemd's NOTIFY_BUFFER_MAX.
const MessageMax = 4096

const (
	maxStatus  = 512 // bytes of a status that are kept
	maxPrivate = 16  // assignments
	maxName    = 255 // bytes of a descriptor's name (sd_pid_notify_with_fds(3))
)

// Message is what one datagram says, with the meaning of sd_notify(3). Of
// READY, RELOADING and STOPPING at most one is set: STOPPING is final, and READY
// ends a reload.
type Message struct {
	Ready, Reloading, Stopping bool

	HasStatus bool
	Status    string // one line of valid UTF-8, printable, at most 512 bytes

	Errno      int // 0: not said
	BusError   string
	ExitStatus int // 0: not said, or success

	Watchdog         bool          // WATCHDOG=1
	Trigger          bool          // WATCHDOG=trigger
	WatchdogInterval time.Duration // WATCHDOG_USEC=; 0: not said
	Extend           time.Duration // EXTEND_TIMEOUT_USEC=; 0: not said

	Barrier     bool
	Store       bool   // FDSTORE=1
	StoreRemove bool   // FDSTOREREMOVE=1
	FDName      string // FDNAME=, "stored" if there is none that is valid
	FDPoll      bool   // false for FDPOLL=0

	// Recycle is X_PREFORK_RECYCLE=, which is prefork's own: "asked" or "requests", "" if
	// it is not said.
	Recycle string
	// Private are the assignments whose names begin with X_, which sd_notify(3) leaves to
	// both ends: the first 16 with valid text, each value one line as a Status is.
	Private []Assignment
}

// Assignment is one line of a message.
type Assignment struct{ Name, Value string }

// The reasons for which a datagram is not read, all of it. They are systemd's.
var (
	errEmpty = errors.New("the message is empty")
	errLong  = errors.New("the message is longer than 4096 bytes")
	errNUL   = errors.New("the message holds a NUL byte")
)

// ParseMessage reads a datagram as systemd does: lines of VARIABLE=VALUE, of
// which those that are unknown, or that have no value of their kind, mean
// nothing. One NUL at the end is no error.
func ParseMessage(b []byte) (Message, error) {
	if len(b) > MessageMax {
		return Message{}, errLong
	}
	b = bytes.TrimSuffix(b, []byte{0})
	switch {
	case len(b) == 0:
		return Message{}, errEmpty
	case bytes.IndexByte(b, 0) >= 0:
		return Message{}, errNUL
	}
	m := Message{FDName: "stored", FDPoll: true}
	for line := range strings.SplitSeq(string(b), "\n") {
		if name, value, ok := strings.Cut(line, "="); ok {
			m.set(name, value)
		}
	}
	m.Ready = m.Ready && !m.Stopping
	m.Reloading = m.Reloading && !m.Ready && !m.Stopping
	return m, nil
}

func (m *Message) set(name, value string) {
	switch name {
	case "READY":
		m.Ready = m.Ready || value == "1"
	case "RELOADING":
		m.Reloading = m.Reloading || value == "1"
	case "STOPPING":
		m.Stopping = m.Stopping || value == "1"
	case "STATUS":
		if utf8.ValidString(value) {
			m.HasStatus, m.Status = true, oneLine(value)
		}
	case "ERRNO":
		setNumber(&m.Errno, value, 1, math.MaxInt32)
	case "BUSERROR":
		m.BusError = oneLine(strings.ToValidUTF8(value, ""))
	case "EXIT_STATUS":
		setNumber(&m.ExitStatus, value, 0, 255)
	case "WATCHDOG":
		m.Watchdog = m.Watchdog || value == "1"
		m.Trigger = m.Trigger || value == "trigger"
	case "WATCHDOG_USEC":
		setMicroseconds(&m.WatchdogInterval, value)
	case "EXTEND_TIMEOUT_USEC":
		setMicroseconds(&m.Extend, value)
	case "BARRIER":
		m.Barrier = value == "1"
	case "FDSTORE":
		m.Store = m.Store || value == "1"
	case "FDSTOREREMOVE":
		m.StoreRemove = m.StoreRemove || value == "1"
	case "FDNAME":
		if validFDName(value) {
			m.FDName = value
		}
	case "X_PREFORK_RECYCLE":
		if value == "asked" || value == "requests" {
			m.Recycle = value
		}
	case "FDPOLL":
		m.FDPoll = value != "0"
	default:
		if strings.HasPrefix(name, "X_") && utf8.ValidString(value) && len(m.Private) < maxPrivate {
			m.Private = append(m.Private, Assignment{name, oneLine(value)})
		}
	}
}

// oneLine keeps what can be printed. The cut does not split a character.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxStatus {
		cut := maxStatus
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut]
	}
	return strings.TrimSpace(text)
}

func setNumber(to *int, text string, least, most int) {
	if n, err := strconv.Atoi(text); err == nil && n >= least && n <= most {
		*to = n
	}
}

func setMicroseconds(to *time.Duration, text string) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err == nil && n > 0 && n <= math.MaxInt64/uint64(time.Microsecond) {
		*to = time.Duration(n) * time.Microsecond
	}
}

// validFDName is systemd's rule: printable ASCII without a colon, which separates
// the names in LISTEN_FDNAMES.
func validFDName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c < ' ' || c >= 127 || c == ':' {
			return false
		}
	}
	return true
}
