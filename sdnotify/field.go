// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// maxDatagram is the size in bytes of the largest datagram that is sent.
// systemd drops what does not fit its buffer of 4096 bytes, all of it.
const maxDatagram = 4095

// Field is one assignment of a notification. Only the functions of this
// package make fields, so a value never holds a newline of the user's.
type Field struct {
	key, value string
}

// Ready says that start-up, or a reload, is complete.
func Ready() Field { return Field{"READY", "1"} }

// Stopping says that this process is on its way out. It cannot be taken back:
// systemd arms the unit's stop timeout and sends no signal.
func Stopping() Field { return Field{"STOPPING", "1"} }

// Reloading says that a reload has begun, now: the field carries the monotonic
// clock, without which systemd waits for a later one. [Ready] ends the reload
// and must follow on every path, a failed reload included.
func Reloading() Field {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // every kernel has this clock
	usec := now.Nano() / int64(time.Microsecond)
	return Field{"RELOADING", "1\nMONOTONIC_USEC=" + strconv.FormatInt(usec, 10)}
}

// Watchdog is the keep-alive. Send it at half the interval that
// [Environment.Watchdog] reports.
func Watchdog() Field { return Field{"WATCHDOG", "1"} }

// RestartReset sets systemd's count of restarts of this unit back to zero
// (systemd 258; older ones ignore it).
func RestartReset() Field { return Field{"RESTART_RESET", "1"} }

// ExtendTimeout asks for d more, from now, of the start, stop or run time that
// is being counted. It is rounded up to microseconds; systemd ignores zero, and
// so a negative d.
func ExtendTimeout(d time.Duration) Field {
	usec := int64(max(d, 0) / time.Microsecond)
	if d > 0 && d%time.Microsecond != 0 {
		usec++
	}
	return Field{"EXTEND_TIMEOUT_USEC", strconv.FormatInt(usec, 10)}
}

// Errno names the cause of a failure. Send it together with [Status] before an
// exit that is not 0.
func Errno(errno syscall.Errno) Field { return Field{"ERRNO", strconv.Itoa(int(errno))} }

// ExitStatus tells the exit status in advance. The system manager ignores it;
// it is for managers of containers and virtual machines.
func ExitStatus(status int) Field { return Field{"EXIT_STATUS", strconv.Itoa(status)} }

// Status is the one line that systemctl status shows; an empty text clears it.
// Line breaks and control characters become spaces and what is not valid text
// becomes U+FFFD, because systemd ignores a status that is not valid UTF-8. A
// text that is too long for a datagram is cut between two characters.
func Status(text string) Field { return Field{"STATUS", clean(text)} }

func clean(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case unicode.IsControl(r), r == '\u2028', r == '\u2029':
			r = ' '
		case nonCharacter(r):
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > maxDatagram {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// nonCharacter reports the code points that are valid UTF-8 for Go but that
// systemd's unichar_is_valid refuses.
func nonCharacter(r rune) bool {
	return r&0xFFFE == 0xFFFE || r >= 0xFDD0 && r <= 0xFDEF
}

// encode makes one datagram: the state first and the status last, so that
// nothing but the status is ever cut.
func encode(fields []Field) ([]byte, error) {
	fields = slices.Clone(fields)
	slices.SortStableFunc(fields, func(a, b Field) int { return a.rank() - b.rank() })
	if err := check(fields); err != nil {
		return nil, err
	}
	var b []byte
	for _, f := range fields {
		if len(b) > 0 {
			b = append(b, '\n')
		}
		b = append(b, f.key...)
		b = append(b, '=')
		b = append(b, cut(f.value, maxDatagram-len(b))...)
	}
	return b, nil
}

// check refuses what systemd reads in different ways: of two states in one
// datagram version 252 takes the last, later ones the most final.
func check(sorted []Field) error {
	if len(sorted) == 0 {
		return errors.New("a notification must have a field")
	}
	seen := make(map[string]bool, len(sorted))
	for i, f := range sorted {
		switch {
		case f.key == "":
			return errors.New("a field must be made by its function")
		case seen[f.key]:
			return fmt.Errorf("a notification cannot have %s twice", f.key)
		case i > 0 && f.rank() == rankState:
			return fmt.Errorf("a notification cannot have both %s and %s", sorted[0].key, f.key)
		}
		seen[f.key] = true
	}
	return nil
}

const (
	rankState = iota
	rankOther
	rankStatus
)

func (f Field) rank() int {
	switch f.key {
	case "READY", "STOPPING", "RELOADING":
		return rankState
	case "STATUS":
		return rankStatus
	}
	return rankOther
}

// cut returns at most n bytes of valid UTF-8, whole runes only.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
