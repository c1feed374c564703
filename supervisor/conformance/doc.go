// SPDX-License-Identifier: AGPL-3.0-or-later

// Package conformance plays the master for a zygote, prefork's own or any other program,
// and says which of the duties of prefork-zygote(7) it keeps. It is for whoever writes a
// zygote.
//
//	Run ──> one check after the other ──> Result
//	          master: shim ──> zygote ──fork──> worker at its gate ──go──> the test entry
//
// Each check has a zygote of its own, started as a master starts it, by the shim, and
// ends whatever is left of it. What can be seen from outside is looked at there (proc(5)),
// so that the test entry is small: see [Options.Entry].
//
// The calling process becomes a child subreaper, as a master is, and all its children are
// taken for what a check has left behind.
package conformance

import (
	"time"
)

// Options say what is tested.
type Options struct {
	// Zygote is the program and its arguments, as in floor.zygote; nil is prefork's own,
	// with Python as its interpreter.
	Zygote []string
	Python string

	// What the floor message names, as in [floor].
	Path, Preload []string
	Setup         string

	// Entry is called with one argument, a word:
	//
	//	state   writes "random N", N from the language's own generator, then NAME=VALUE
	//	        for each environment variable, then "ready", a line each, on standard
	//	        output, flushes that, and waits for ever
	//	return  returns
	//	exit    writes "bye" without a line feed, flushes nothing, and exits with status 7
	//	        as programs in that language do
	//	raise   ends by an error that nobody handles, which is told on standard error
	Entry string

	Thread string // a setup that starts a thread, which goes on; "": that is not tested
	Socket string // a setup that leaves a socket open; "": that is not tested

	Patience time.Duration // for each answer
}

// Outcome is what became of a check.
type Outcome int

// The outcomes.
const (
	Passed Outcome = iota
	Failed
	NotRun
)

// Result is that of one check. It is display text, whatever the zygote wrote.
type Result struct {
	Check   string // its name
	Duty    string // what is checked, in a line
	Outcome Outcome
	Why     string // it failed, or was not run
	Output  string // the last that a zygote said whose check failed
}
