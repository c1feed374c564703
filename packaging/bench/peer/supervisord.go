// SPDX-License-Identifier: AGPL-3.0-or-later

package peer

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// supervisord starts a program for each worker.
type supervisord struct{}

func (supervisord) start(s *System) error {
	text := fmt.Sprintf(`[supervisord]
nodaemon = true
user = root
logfile = %[1]s
pidfile = %[2]s
[unix_http_server]
file = %[3]s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl = unix://%[3]s
[fcgi-program:w]
socket = tcp://127.0.0.1:%[4]d
socket_backlog = 4096
command = python3 %[5]s/run.py 0
process_name = %%(process_num)d
numprocs = %[6]d
stderr_logfile = NONE
stdout_logfile = NONE
`, s.path(".super.log"), s.path(".pid"), s.path(".ctl"), s.Port, Dir, s.Count)
	if s.Restart {
		// Debian's default, but also after an exit that it would call expected.
		text += "autorestart = true\n"
	}
	if err := os.WriteFile(s.path(".conf"), []byte(text), 0o644); err != nil {
		return err
	}
	return s.command(exec.Command("supervisord", "--configuration", s.path(".conf")))
}

func (supervisord) masters(s *System) []int { return []int{s.pid} }

func (supervisord) stop(s *System) error { return s.ended(syscall.SIGTERM, Patience) }

func (supervisord) roll(s *System, born func() error) error {
	for i := range s.Count {
		if err := run("supervisorctl", "-c", s.path(".conf"), "restart", fmt.Sprintf("w:%d", i)); err != nil {
			return err
		}
		if err := born(); err != nil {
			return err
		}
	}
	return nil
}
