// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

// fleetOfUnit is the fleet whose service a unit is.
func fleetOfUnit(unit string) string {
	return strings.TrimSuffix(strings.TrimPrefix(unit, "prefork@"), ".service")
}

// socketUnits are the socket units of a fleet's service that are active.
func socketUnits(ctx context.Context, c *systemd.Conn, service string) ([]systemd.UnitStatus, error) {
	all, err := c.ListUnitsByPatternsContext(ctx, []string{"active"}, []string{"prefork-" + fleetOfUnit(service) + ":*.socket"})
	if err != nil {
		return nil, fmt.Errorf("its socket units: %w", err)
	}
	return all, nil
}

// stopSockets stops those socket units of a fleet's service that are wanted; wanted gets
// the name of the [socket.NAME] table, "" if the unit has no file any more.
func stopSockets(ctx context.Context, c *systemd.Conn, service string, wanted func(socket string) bool) error {
	all, err := socketUnits(ctx, c, service)
	if err != nil {
		return err
	}
	for _, u := range all {
		name, _ := strings.CutPrefix(strings.TrimSuffix(u.Name, ".socket"), "prefork-"+fleetOfUnit(service)+":")
		name, _, _ = strings.Cut(name, ":") // of NAME:ipv6
		if u.LoadState == "not-found" {
			name = ""
		}
		if !wanted(name) {
			continue
		}
		done := make(chan string, 1)
		if _, err := c.StopUnitContext(ctx, u.Name, "replace", done); err != nil {
			return fmt.Errorf("%s: %w", u.Name, err)
		}
		if result := <-done; result != jobDone {
			return fmt.Errorf("%s: %s", u.Name, result)
		}
	}
	return nil
}

// tellSockets says which sockets will start a fleet again that is stopped.
func tellSockets(ctx context.Context, out io.Writer, c *systemd.Conn, service string) {
	all, err := socketUnits(ctx, c, service)
	if err != nil || len(all) == 0 {
		return
	}
	var names []string
	for _, u := range all {
		names = append(names, u.Name)
	}
	fleet := fleetOfUnit(service)
	fmt.Fprintf(out, "%s: the next connection starts the fleet again; to close that, too: prefork stop --sockets %s\n", // the stop itself went well
		strings.Join(names, ", "), fleet)
}

// restartUnit stops a fleet and starts it again, if nothing of it is known to be bad. What
// its file wants otherwise of systemd's sockets is taken up; the others stay open.
func restartUnit(out io.Writer, fleet string) error {
	if fleetfile.IsPath(fleet) {
		return onUnit(fleet, "restart --now", startAnew)
	}
	if !runs(fleet) {
		if _, err := load(fleet); err != nil {
			return err
		}
		return onUnit(fleet, "restart", startAnew)
	}
	if err := change(out, fleet, wait{}, func(m *master, ctx context.Context) (uint64, error) { return m.Try(ctx) }); err != nil {
		return err
	}
	others, err := changedSockets(fleet)
	if err != nil {
		return err
	}
	return onUnit(fleet, "restart", func(ctx context.Context, c *systemd.Conn, unit string, done chan<- string) error {
		if err := c.ReloadContext(ctx); err != nil { // the generator makes its sockets
			return err
		}
		stop := func(socket string) bool { return socket == "" || slices.Contains(others, socket) }
		if err := stopSockets(ctx, c, unit, stop); err != nil {
			return err
		}
		_, err := c.RestartUnitContext(ctx, unit, "replace", done)
		return err
	})
}

// changedSockets are the names of those that systemd holds otherwise than the file says.
func changedSockets(fleet string) ([]string, error) {
	m, err := connect(fleet)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	steps, err := m.Plan(ctx)
	if err != nil {
		return nil, notChanged(fleet, err)
	}
	names := strings.Fields(m.status.OutdatedSockets)
	for _, key := range waiting(steps) {
		if parts := strings.Split(key, "."); parts[0] == "socket" && len(parts) == 3 && !slices.Contains(names, parts[1]) {
			names = append(names, parts[1])
		}
	}
	return names, nil
}

// waiting are the keys of a plan that wait for the next start.
func waiting(steps []control.PlanStep) (keys []string) {
	for _, s := range steps {
		if s.Step == "wait" {
			keys = append(keys, s.Keys...)
		}
	}
	return keys
}
