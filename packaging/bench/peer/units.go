// SPDX-License-Identifier: AGPL-3.0-or-later

package peer

import (
	"fmt"
	"os"
	"strings"
)

// units are a template unit with an instance for each worker.
type units struct{}

func (units) start(s *System) error {
	var service strings.Builder
	fmt.Fprintf(&service, "[Service]\nExecStart=/usr/bin/python3 %s/run.py 3\n", Dir)
	for _, variable := range s.environment() {
		fmt.Fprintf(&service, "Environment=%q\n", variable)
	}
	fmt.Fprintf(&service, "Sockets=%s.socket\n", s.name)
	if s.Restart {
		service.WriteString("Restart=always\nRestartSec=0\n[Unit]\nStartLimitIntervalSec=0\n")
	} else {
		service.WriteString("Restart=on-failure\n")
	}
	socket := fmt.Sprintf("[Socket]\nListenStream=127.0.0.1:%d\nBacklog=4096\nService=%s\n", s.Port, s.instance(0))
	for path, text := range map[string]string{
		"/run/systemd/system/" + s.name + "@.service": service.String(),
		"/run/systemd/system/" + s.name + ".socket":   socket,
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := run("systemctl", "daemon-reload"); err != nil {
		return err
	}
	if err := run("systemctl", "start", s.name+".socket"); err != nil {
		return err
	}
	return run(append([]string{"systemctl", "start", "--no-block"}, s.instances()...)...)
}

func (s *System) instance(i int) string { return fmt.Sprintf("%s@%d.service", s.name, i) }

func (s *System) instances() (all []string) {
	for i := range s.Count {
		all = append(all, s.instance(i))
	}
	return all
}

func (units) masters(*System) []int { return []int{1} }

func (units) stop(s *System) error {
	if err := run(append([]string{"systemctl", "stop", s.name + ".socket"}, s.instances()...)...); err != nil {
		return err
	}
	_ = run("systemctl", "reset-failed", s.name+"@*.service") // none of them may have failed
	return nil
}

func (units) roll(s *System, born func() error) error {
	for i := range s.Count {
		if err := run("systemctl", "restart", s.instance(i)); err != nil {
			return err
		}
		if err := born(); err != nil {
			return err
		}
	}
	return nil
}
