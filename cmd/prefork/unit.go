// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

// jobDone is the result of a job of systemd's that has done its work.
const jobDone = "done"

// toSystemd connects to the system's manager. The caller closes the connection.
func toSystemd(ctx context.Context, fleet string) (*systemd.Conn, error) {
	conn, err := systemd.NewSystemConnectionContext(ctx)
	if err != nil {
		return nil, failed("systemd, which runs fleets by their names, cannot be reached: %v; to run one here: prefork run %s", err, fleet)
	}
	return conn, nil
}

// onUnit has systemd do something to the unit of a fleet, and waits until it has.
func onUnit(fleet, name string, do func(context.Context, *systemd.Conn, string, chan<- string) error) error {
	if fleetfile.IsPath(fleet) {
		return misused("%s: systemd runs fleets by their names; %s runs one here: prefork run %s, which Ctrl-C or SIGTERM ends",
			name, fleet, fleet)
	}
	if err := mustExist(fleet); err != nil && (name != "stop" || exitOf(err) == exitUsage) {
		return err // what runs can be stopped even if its file is gone
	}
	ctx := context.Background() // a fleet may take its time to start
	conn, err := toSystemd(ctx, fleet)
	if err != nil {
		return err
	}
	defer conn.Close()
	done := make(chan string, 1) // without room the library would wait for ever
	if err := do(ctx, conn, unitOf(fleet), done); err != nil {
		return failed("%s %s: %v", name, unitOf(fleet), err)
	}
	if result := <-done; result != jobDone {
		return failed("%s %s: %s; see why: prefork logs %s", name, unitOf(fleet), result, fleet)
	}
	return nil
}

// unitFleets are the fleets of which systemd has a unit, by name, as it sees them:
// what does not run, and why. Where systemd cannot be asked there are none.
func unitFleets() map[string]control.Status {
	fleets := map[string]control.Status{}
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	conn, err := systemd.NewSystemConnectionContext(ctx)
	if err != nil {
		return fleets
	}
	defer conn.Close()
	units, err := conn.ListUnitsByPatternsContext(ctx, nil, []string{unitOf("*")})
	if err != nil {
		return fleets
	}
	for i := range units {
		u := &units[i]
		name := strings.TrimSuffix(strings.TrimPrefix(u.Name, "prefork@"), ".service")
		fleets[name] = withoutMaster(name, u.ActiveState, whyNot(ctx, conn, u))
	}
	return fleets
}

// whyNot says in a line what systemd knows of a unit without a master.
func whyNot(ctx context.Context, conn *systemd.Conn, u *systemd.UnitStatus) string {
	props, err := conn.GetUnitTypePropertiesContext(ctx, u.Name, "Service")
	if err != nil {
		return u.SubState
	}
	result, _ := props["Result"].(string)
	text, _ := props["StatusText"].(string) // a process of the fleet may have said it
	if u.ActiveState == inactive && result == "success" {
		return ""
	}
	parts := []string{u.SubState}
	if result != "" && result != "success" {
		parts[0] += " (" + result + ")"
	}
	if text != "" {
		parts = append(parts, control.Printable(text))
	}
	return strings.Join(parts, ": ")
}
