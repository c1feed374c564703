// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/quantity"
)

// fleetAnd wants a FLEET and so many of something else.
func fleetAnd(what string, least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if n := len(args) - 1; n < least || n > most {
			return misused("%s takes a FLEET and a %s: prefork %s", cmd.Name(), what, cmd.Use)
		}
		return nil
	}
}

// mustExist refuses a name that is not that of a fleet.
func mustExist(fleet string) error {
	_, err := fleetfile.Resolve(fleet)
	if faults := fleetfile.Errors(nil); errors.As(err, &faults) {
		return located(exitFailed, err)
	}
	if err != nil {
		return misused("%v", err)
	}
	return nil
}

func oneFleet(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return misused("%s takes one FLEET: a name, or the path of a fleet file", cmd.Name())
	}
	return nil
}

func span(flag, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := quantity.ParseTimeSpan(text)
	if err != nil || d <= 0 {
		return 0, misused(`%s %q: must be a time span above 0, such as "5s" or "1min 30s"`, flag, text)
	}
	return d, nil
}
