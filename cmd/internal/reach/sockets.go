// SPDX-License-Identifier: AGPL-3.0-or-later

package reach

import (
	"context"
	"fmt"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
)

// socketUnits are the socket units of a fleet's service that are active.
func socketUnits(ctx context.Context, c *systemd.Conn, service string) ([]systemd.UnitStatus, error) {
	all, err := c.ListUnitsByPatternsContext(ctx, []string{"active"}, []string{"prefork-" + fleetOfUnit(service) + ":*.socket"})
	if err != nil {
		return nil, fmt.Errorf("its socket units: %w", err)
	}
	return all, nil
}

// StopSockets stops those socket units of a fleet's service that are wanted, and waits until
// they are; wanted gets the name of the [socket.NAME] table, "" if the unit has no file any
// more.
func StopSockets(ctx context.Context, c *systemd.Conn, service string, wanted func(socket string) bool) error {
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
		if result := <-done; result != JobDone {
			return fmt.Errorf("%s: %s", u.Name, result)
		}
	}
	return nil
}

// OpenSockets tells which sockets will start a fleet again that is stopped, "" if there are
// none, or none can be seen.
func OpenSockets(ctx context.Context, c *systemd.Conn, service string) string {
	all, err := socketUnits(ctx, c, service)
	if err != nil || len(all) == 0 {
		return ""
	}
	var names []string
	for _, u := range all {
		names = append(names, u.Name)
	}
	return fmt.Sprintf("%s: the next connection starts the fleet again; to close that, too: prefork stop --sockets %s",
		strings.Join(names, ", "), fleetOfUnit(service))
}
