// SPDX-License-Identifier: AGPL-3.0-or-later

package peer

import (
	"os/exec"
	"path/filepath"
	"syscall"
)

// polling is what people write by hand. It cannot replace workers but by a
// restart of everything.
type polling struct{}

func (polling) start(s *System) error {
	return s.command(exec.Command("python3", filepath.Join(Dir, "polling.py")))
}

func (polling) masters(s *System) []int { return []int{s.pid} }

func (polling) stop(s *System) error { return s.ended(syscall.SIGTERM, Patience) }
