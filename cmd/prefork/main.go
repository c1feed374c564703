// SPDX-License-Identifier: AGPL-3.0-or-later

// Prefork is a prefork supervisor for Linux, made for systemd. See README.md.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/decnet/prefork/supervisor"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/units"
)

// The exit statuses. exitConfig is that of sysexits.h for a bad fleet file.
const (
	exitFailed = 1
	exitUsage  = 2
	exitConfig = supervisor.ExitConfig
)

// The main thread makes every fork: a parent-death signal belongs to the thread
// that was the parent (PR_SET_PDEATHSIG(2const)).
func init() { runtime.LockOSThread() }

func main() {
	if os.Args[0] == gate.ShimName {
		gate.RunShim()
	}
	if filepath.Base(os.Args[0]) == units.GeneratorName {
		os.Exit(units.RunGenerator(os.Args[1:]))
	}
	os.Exit(execute(os.Args[1:]))
}

// status is an error that ends the program with this exit status; it has been
// reported already if text is empty.
type status struct {
	code int
	text string
}

func (s *status) Error() string { return s.text }

func execute(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return 0
	}
	code, text := exitUsage, err.Error()
	if s := (*status)(nil); errors.As(err, &s) {
		code, text = s.code, s.text
	}
	switch {
	case text == "":
	case code == exitUsage:
		fmt.Fprintf(os.Stderr, "prefork: %s\nTry 'prefork help'.\n", text)
	default:
		fmt.Fprintln(os.Stderr, text)
	}
	return code
}

// load reads the fleet file that FLEET names.
func load(arg string) (*fleetfile.File, error) {
	path, err := fleetfile.Resolve(arg)
	if faults := fleetfile.Errors(nil); errors.As(err, &faults) {
		return nil, &status{exitConfig, err.Error()}
	}
	if err != nil {
		return nil, &status{exitUsage, err.Error()}
	}
	file, err := fleetfile.Load(path)
	if err != nil {
		return nil, &status{exitConfig, err.Error()}
	}
	return file, nil
}
