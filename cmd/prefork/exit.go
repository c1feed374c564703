// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/decnet/prefork/supervisor"
)

// The exit statuses. exitConfig is that of sysexits.h for a bad fleet file.
const (
	exitFailed = 1
	exitUsage  = 2
	exitConfig = supervisor.ExitConfig
)

// failure is an error that ends the program with an exit status.
type failure struct {
	code  int
	text  string // "" if it has been said already
	place bool   // the text begins with the place of its cause: a fleet file, for example
}

func (f *failure) Error() string { return f.text }

// failed is for what could not be done.
func failed(format string, args ...any) error {
	return &failure{code: exitFailed, text: fmt.Sprintf(format, args...)}
}

// misused is for a command that is not one.
func misused(format string, args ...any) error {
	return &failure{code: exitUsage, text: fmt.Sprintf(format, args...)}
}

// located is for an error that begins with its place.
func located(code int, err error) error { return &failure{code: code, text: err.Error(), place: true} }

// silent is for what somebody else has said already.
func silent(code int) error { return &failure{code: code} }

// execute runs a command, and returns the exit status.
func execute(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return 0
	}
	end := (*failure)(nil)
	if !errors.As(err, &end) { // the command line's own parser says it
		end = &failure{code: exitUsage, text: err.Error()}
	}
	switch {
	case end.text == "":
	case end.place:
		fmt.Fprintln(os.Stderr, end.text)
	default:
		fmt.Fprintln(os.Stderr, "prefork: "+strings.ReplaceAll(end.text, "\n", "\nprefork: "))
	}
	if end.code == exitUsage && end.text != "" {
		fmt.Fprintln(os.Stderr, "Try 'prefork help'.")
	}
	return end.code
}

// exitOf is the exit status that an error ends the program with.
func exitOf(err error) int {
	if end := (*failure)(nil); errors.As(err, &end) {
		return end.code
	}
	return exitFailed
}
