// SPDX-License-Identifier: AGPL-3.0-or-later

package reach

import (
	"context"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

// Unit is the service that runs a fleet by its name.
func Unit(fleet string) string { return "prefork@" + fleet + ".service" }

// fleetOfUnit is the fleet whose service a unit is.
func fleetOfUnit(unit string) string {
	return strings.TrimSuffix(strings.TrimPrefix(unit, "prefork@"), ".service")
}

// JobDone is the result of a job of systemd's that has done its work.
const JobDone = "done"

// Job has systemd do something to a unit. It sends the result to done, or has systemd send
// it, unless it returns an error.
type Job func(ctx context.Context, c *systemd.Conn, unit string, done chan<- string) error

// Systemd connects to the system's manager. The caller closes the connection.
func Systemd(ctx context.Context, fleet string) (*systemd.Conn, error) {
	conn, err := systemd.NewSystemConnectionContext(ctx)
	if err != nil {
		return nil, exit.Failed("systemd, which runs fleets by their names, cannot be reached: %v; to run one here: prefork run %s", err, fleet)
	}
	return conn, nil
}

// OnUnit does a job to the unit of a fleet, for the command of that name, and waits until
// systemd has done it: without bound, for a fleet may take its time to start.
func OnUnit(fleet, command string, do Job) error {
	if fleetfile.IsPath(fleet) {
		return exit.Misused("%s: systemd runs fleets by their names; %s runs one here: prefork run %s, which Ctrl-C or SIGTERM ends",
			command, fleet, fleet)
	}
	if err := Known(fleet); err != nil && (command != "stop" || exit.Status(err) == exit.Usage) {
		return err // what runs can be stopped even if its file is gone
	}
	ctx := context.Background()
	conn, err := Systemd(ctx, fleet)
	if err != nil {
		return err
	}
	defer conn.Close()
	done := make(chan string, 1) // without room the library would wait for ever
	if err := do(ctx, conn, Unit(fleet), done); err != nil {
		return exit.Failed("%s %s: %v", command, Unit(fleet), err)
	}
	if result := <-done; result != JobDone {
		return exit.Failed("%s %s: %s; see why: prefork logs %s", command, Unit(fleet), result, fleet)
	}
	return nil
}
