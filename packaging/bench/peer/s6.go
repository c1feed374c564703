// SPDX-License-Identifier: AGPL-3.0-or-later

package peer

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/decnet/prefork/packaging/bench/proc"
)

// s6 has a directory for each worker, and a process beside it.
type s6 struct{}

func (s6) start(s *System) error {
	for i := range s.Count {
		dir := s.service(i)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		script := fmt.Sprintf("#!/bin/sh\nexec python3 %s/run.py 3\n", Dir)
		if err := os.WriteFile(filepath.Join(dir, "run"), []byte(script), 0o755); err != nil {
			return err
		}
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port))
	if err != nil {
		return err
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer file.Close()
	cmd := exec.Command("s6-svscan", "-C", strconv.Itoa(s.Count+10), s.path(".s6"))
	cmd.ExtraFiles = []*os.File{file} // it is made blocking for the child
	return s.command(cmd)
}

func (s *System) service(i int) string { return filepath.Join(s.path(".s6"), strconv.Itoa(i)) }

// masters are s6-svscan and an s6-supervise for each service.
func (s6) masters(s *System) (all []int) {
	for _, pid := range proc.Family(s.pid) {
		if name, _ := os.ReadFile(proc.Path(pid, "comm")); strings.HasPrefix(string(name), "s6-") {
			all = append(all, pid)
		}
	}
	return all
}

func (s6) stop(s *System) error { return s.ended(syscall.SIGTERM, Patience) }

func (s6) roll(s *System, born func() error) error {
	for i := range s.Count {
		if err := run("s6-svc", "-r", s.service(i)); err != nil {
			return err
		}
		if err := born(); err != nil {
			return err
		}
	}
	return nil
}
