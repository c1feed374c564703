// SPDX-License-Identifier: AGPL-3.0-or-later

// Prefork is a prefork supervisor for Linux, made for systemd. See README.md.
package main

import (
	"os"
	"path/filepath"
	"runtime"

	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/units"
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
