// SPDX-License-Identifier: AGPL-3.0-or-later

package conformance

import (
	"errors"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/text"
)

// check is one duty.
type check struct {
	name  string
	duty  string
	needs string // the check without which this one means nothing
	run   func(m *master) error
}

// skipped is why a check was not run.
type skipped string

func (s skipped) Error() string { return string(s) }

// checks are all of them, in the order of a process's life. They are made at each call:
// the program that this is part of starts again as each shim.
func checks() []check {
	return slices.Concat(floorChecks(), birthChecks(), orderChecks(), endChecks())
}

// Checks returns the name and the duty of each check, in their order.
func Checks() (list [][2]string) {
	for _, c := range checks() {
		list = append(list, [2]string{c.name, c.duty})
	}
	return list
}

// Known reports whether there is a check of that name.
func Known(name string) bool {
	return slices.ContainsFunc(checks(), func(c check) bool { return c.name == name })
}

// Run runs all checks, or those that are named and what they need, and reports each when
// it is done. It returns whether none has failed.
func Run(o Options, only []string, report func(Result)) (ok bool, err error) {
	if err := linux.SetChildSubreaper(); err != nil {
		return false, err
	}
	// What this process was started with must not be taken for what a zygote left open.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return false, os.NewSyscallError("close_range", err)
	}
	outcomes := map[string]Outcome{}
	ok = true
	for _, c := range checks() {
		if len(only) > 0 && !wanted(c.name, only) {
			continue
		}
		r := Result{Check: c.name, Duty: c.duty}
		if outcome, known := outcomes[c.needs]; known && outcome != Passed {
			r.Outcome, r.Why = NotRun, "it needs "+c.needs
		} else {
			r = one(&o, c, r)
		}
		outcomes[c.name] = r.Outcome
		ok = ok && r.Outcome != Failed
		report(r)
	}
	return ok, nil
}

// wanted reports whether a check is named, or one is that needs it.
func wanted(name string, only []string) bool {
	return slices.Contains(only, name) || slices.ContainsFunc(checks(), func(c check) bool {
		return c.needs == name && wanted(c.name, only)
	})
}

func one(o *Options, c check, r Result) Result {
	m, err := newMaster(o)
	if err == nil {
		err = c.run(m)
	}
	var why skipped
	switch {
	case errors.As(err, &why):
		r.Outcome, r.Why = NotRun, string(why)
	case err != nil:
		r.Outcome, r.Why, r.Output = Failed, text.OneLine(err.Error(), 1000), m.tail()
	}
	m.end()
	return r
}
