// SPDX-License-Identifier: AGPL-3.0-or-later

package peer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// uwsgi has an HTTP server of its own, without a process in between.
type uwsgi struct{ lazy bool }

func (d uwsgi) start(s *System) error {
	args := []string{
		"--plugin", "python3", "--master", "--die-on-term", "--need-app", "--disable-logging",
		"--processes", strconv.Itoa(s.Count), "--http-socket", fmt.Sprintf("127.0.0.1:%d", s.Port),
		"--chdir", Dir, "--wsgi-file", filepath.Join(Dir, "wsgi_uwsgi.py"),
		"--master-fifo", s.path(".fifo"),
	}
	if d.lazy {
		args = append(args, "--lazy-apps")
	}
	return s.command(exec.Command("uwsgi", args...))
}

func (uwsgi) masters(s *System) []int { return []int{s.pid} }

// stop: not all of its workers always end. What was measured is not wrong because of that.
func (uwsgi) stop(s *System) error {
	_ = s.ended(syscall.SIGTERM, uwsgiPatience)
	return nil
}

const uwsgiPatience = 40 * time.Second // 100 of its workers have taken 22

func (d uwsgi) roll(s *System, _ func() error) error {
	if !d.lazy {
		return s.cmd.Process.Signal(syscall.SIGHUP)
	}
	fifo, err := os.OpenFile(s.path(".fifo"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer fifo.Close()
	_, err = fifo.WriteString("c")
	return err
}
