// SPDX-License-Identifier: AGPL-3.0-or-later

package peer

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// gunicorn has an HTTP server of its own.
type gunicorn struct{ preload bool }

func (d gunicorn) start(s *System) error {
	args := []string{
		"--config", filepath.Join(Dir, "gunicorn.conf.py"), "--chdir", Dir,
		"--workers", strconv.Itoa(s.Count), "--bind", fmt.Sprintf("127.0.0.1:%d", s.Port), "--timeout", "0",
	}
	if d.preload {
		args = append(args, "--preload")
	}
	return s.command(exec.Command("gunicorn", append(args, "wsgi")...))
}

func (gunicorn) masters(s *System) []int { return []int{s.pid} }

func (gunicorn) stop(s *System) error { return s.ended(syscall.SIGTERM, Patience) }

func (gunicorn) roll(s *System, _ func() error) error { return s.cmd.Process.Signal(syscall.SIGHUP) }
