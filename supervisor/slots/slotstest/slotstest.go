// SPDX-License-Identifier: AGPL-3.0-or-later

// Package slotstest has the slots of fleet files, for tests.
package slotstest

import (
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/revisions"
	"github.com/decnet/prefork/supervisor/sockets"
)

// Revision is one of a file whose sockets are not open.
func Revision(file *fleetfile.File) *revisions.Revision {
	return &revisions.Revision{ID: 1, File: file, Sockets: &sockets.Set{}}
}

// Infos are the slots that a fleet gives the workers of a file.
func Infos(file *fleetfile.File) []fleet.SlotInfo {
	var config policy.Config
	for _, w := range file.Workers {
		config.Workers = append(config.Workers, policy.Worker{Name: w.Name, Count: w.Count})
	}
	return fleet.New(config).Slots()
}
