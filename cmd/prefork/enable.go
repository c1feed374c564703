// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/reach"
)

func newEnable() *cobra.Command {
	return enabler("enable", "Have a fleet start with the machine",
		`Have systemd start a fleet with the machine, as systemctl enable prefork@FLEET does.
start = "boot" in the fleet file does the same.`,
		func(ctx context.Context, c *systemd.Conn, unit string) error {
			_, _, err := c.EnableUnitFilesContext(ctx, []string{unit}, false, false)
			return err
		})
}

func newDisable() *cobra.Command {
	return enabler("disable", "Do not start a fleet with the machine",
		`Take back what enable did, as systemctl disable prefork@FLEET does. A fleet whose
file says start = "boot" starts nevertheless.`,
		func(ctx context.Context, c *systemd.Conn, unit string) error {
			_, err := c.DisableUnitFilesContext(ctx, []string{unit}, false)
			return err
		})
}

func enabler(name, short, long string, do func(context.Context, *systemd.Conn, string) error) *cobra.Command {
	return &cobra.Command{
		Use:               name + " FLEET",
		Short:             short,
		Long:              long,
		Args:              oneFleet,
		ValidArgsFunction: completeFleet,
		RunE: func(_ *cobra.Command, args []string) error {
			return reach.OnUnit(args[0], name, nil, func(ctx context.Context, c *systemd.Conn, unit string, done chan<- string) error {
				if err := do(ctx, c, unit); err != nil {
					return err
				}
				done <- reach.JobDone
				return c.ReloadContext(ctx)
			})
		},
	}
}
