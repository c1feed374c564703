// SPDX-License-Identifier: AGPL-3.0-or-later

package peer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// EarlierProgram is an earlier prefork to measure beside this one, if it is there.
const EarlierProgram = "/usr/bin/prefork-earlier"

// terminal is prefork run.
type terminal struct{ program string }

func (d terminal) start(s *System) error {
	if err := os.WriteFile(s.path(".toml"), []byte(s.fleet()), 0o644); err != nil {
		return err
	}
	return s.command(exec.Command(d.program, "run", s.path(".toml")))
}

func (terminal) masters(s *System) []int { return []int{s.pid} }

func (terminal) stop(s *System) error { return s.ended(syscall.SIGTERM, Patience) }

func (terminal) roll(s *System, _ func() error) error { return s.Command("restart") }

// unit is prefork@.service.
type unit struct{}

func (unit) start(s *System) error {
	path := filepath.Join("/etc/prefork", s.name+".toml")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(s.fleet()), 0o644); err != nil {
		return err
	}
	// Not to wait until the fleet is ready: it may never be.
	if err := run("systemctl", "start", "--no-block", s.unit()); err != nil {
		return err
	}
	for began := time.Now(); s.pid == 0; time.Sleep(5 * time.Millisecond) {
		out, err := exec.Command("systemctl", "show", "--value", "--property=MainPID", s.unit()).Output()
		if err != nil {
			return err
		}
		s.pid, _ = strconv.Atoi(strings.TrimSpace(string(out))) // systemd wrote it
		if time.Since(began) > Patience {
			return errors.New("it has no main process")
		}
	}
	return nil
}

func (unit) masters(s *System) []int { return []int{s.pid} }

func (unit) stop(s *System) error { return run("systemctl", "stop", s.unit()) }

func (unit) roll(s *System, _ func() error) error { return s.Command("restart") }

func (s *System) unit() string { return "prefork@" + s.name + ".service" }

// fleetName is how commands call the fleet.
func (s *System) fleetName() string {
	if s.Kind.driver == (unit{}) {
		return s.name
	}
	return s.path(".toml")
}

// Command runs a command of prefork on the fleet, and waits until it is done.
func (s *System) Command(args ...string) error {
	program := "prefork"
	if d, ok := s.Kind.driver.(terminal); ok {
		program = d.program
	}
	return run(append([]string{program, args[0], s.fleetName()}, args[1:]...)...)
}

// Rewrite writes the fleet file of another plan.
func (s *System) Rewrite(p Plan) error {
	s.Plan = p
	path := s.path(".toml")
	if s.Kind.driver == (unit{}) {
		path = filepath.Join("/etc/prefork", s.name+".toml")
	}
	return os.WriteFile(path, []byte(s.fleet()), 0o644)
}

// Look asks for everything that a master of prefork tells.
func (s *System) Look() error {
	if err := s.Command("status", "--json"); err != nil {
		return err
	}
	conn, err := net.Dial("unix", s.metricsSocket())
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it has been read
	if _, err := io.WriteString(conn, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	text, err := io.ReadAll(conn)
	if err == nil && !strings.Contains(string(text), "\nprefork_slot_memory_private_bytes{") {
		err = fmt.Errorf("metrics: %s", text)
	}
	return err
}

func (s *System) metricsSocket() string { return "@" + s.name + "-metrics" }

// fleet is the fleet file.
func (s *System) fleet() string {
	var b strings.Builder
	modules := `"` + strings.Join(s.modules(), `", "`) + `"`
	fmt.Fprintf(&b, "[floor]\npath = [%q]\npreload = [%s]\nspares = %d\n", Dir, modules, s.Spares)
	if s.Warm {
		b.WriteString("warm = \"shop:warm\"\nrepack = true\n")
	}
	if s.Eternal {
		b.WriteString("immortal = true\n")
	}
	fmt.Fprintf(&b, "env = { OPENBLAS_NUM_THREADS = \"1\", BENCH_SOCKET = %q }\n", s.socket())
	listens := s.Entry == "serve" || s.Entry == "graceful"
	if listens {
		fmt.Fprintf(&b, "[socket.http]\nlisten = [\"127.0.0.1:%d\"]\n", s.Port)
	}
	if s.Metrics {
		fmt.Fprintf(&b, "[metrics]\nlisten = %q\n", s.metricsSocket())
	}
	fmt.Fprintf(&b, "[worker.w]\nentry = \"app:%s\"\ncount = %d\n", s.Entry, s.Count)
	if listens {
		b.WriteString("sockets = [\"http\"]\n")
	}
	if s.Restart {
		b.WriteString("restart_sec = 0\nrestart_reset_sec = 0\n")
	}
	fmt.Fprintf(&b, "environment = { BENCH_CHANGE = \"%d\" }\n", s.Change)
	return b.String()
}
