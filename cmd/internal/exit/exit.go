// SPDX-License-Identifier: AGPL-3.0-or-later

// Package exit has the errors that end a command of prefork, each with its exit status.
// A command returns one; main alone tells it, and exits.
package exit

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/decnet/prefork/supervisor"
)

// The exit statuses, apart from 0. Config is that of sysexits.h for a bad fleet file; those
// of is-active are systemctl's.
const (
	Failure   = 1
	Usage     = 2
	NotActive = 3
	NoSuch    = 4
	NoFleet   = supervisor.ExitNoFleet
	Config    = supervisor.ExitConfig
)

// Error is an error that ends the program with an exit status.
type Error struct {
	status int
	text   string // "" if it has been said already
	place  bool   // the text begins with the place of its cause: a fleet file, for example
	cause  error  // nil if the text is all
}

// Unwrap returns the cause, if there is more to it than its text.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) Error() string { return e.text }

// Failed is for what could not be done.
func Failed(format string, args ...any) error {
	return &Error{status: Failure, text: fmt.Sprintf(format, args...)}
}

// Misused is for a command that is not one.
func Misused(format string, args ...any) error {
	return &Error{status: Usage, text: fmt.Sprintf(format, args...)}
}

// Located is for an error that begins with its place, as those of a fleet file do: it is
// told without the name of the program before it.
func Located(status int, err error) error {
	return &Error{status: status, text: err.Error(), place: true, cause: err}
}

// Silent is for what somebody else has said already.
func Silent(status int) error { return &Error{status: status} }

// Status is the exit status that an error ends the program with; 0 without one.
func Status(err error) int {
	end := (*Error)(nil)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &end):
		return end.status
	default:
		return Failure
	}
}

// Tell says why a command line has failed, if it has, and returns the exit status. Any
// other error than those of this package is taken for one of the command line's parser.
func Tell(to io.Writer, err error) int {
	if err == nil {
		return 0
	}
	end := (*Error)(nil)
	if !errors.As(err, &end) {
		end = &Error{status: Usage, text: err.Error()}
	}
	switch {
	case end.text == "":
	case end.place:
		fmt.Fprintln(to, end.text)
	default:
		fmt.Fprintln(to, "prefork: "+strings.ReplaceAll(end.text, "\n", "\nprefork: "))
	}
	if end.status == Usage && end.text != "" {
		fmt.Fprintln(to, "Try 'prefork help'.")
	}
	return end.status
}
