// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed python
var python embed.FS

// kind is a way to run workers.
type kind string

// The kinds. The names are those of the tables' rows.
const (
	terminal kind = "prefork run"
	earlier  kind = "prefork run, earlier"
	unit     kind = "prefork@.service"
	preload  kind = "gunicorn --preload"
	gunicorn kind = "gunicorn"
)

// earlierProgram is an earlier prefork to measure beside this one, if it is there.
const earlierProgram = "/usr/bin/prefork-earlier"

// besideEarlier adds what an earlier prefork does in the place of this one.
func besideEarlier[T any](all []T, kindOf func(*T) *kind) []T {
	if _, err := os.Stat(earlierProgram); err != nil {
		return all
	}
	for _, one := range all {
		if *kindOf(&one) == terminal {
			*kindOf(&one) = earlier
			all = append(all, one)
		}
	}
	return all
}

func plans(all ...plan) []plan { return besideEarlier(all, func(p *plan) *kind { return &p.kind }) }

func kinds(all ...kind) []kind { return besideEarlier(all, func(k *kind) *kind { return k }) }

// plan says what a system runs.
type plan struct {
	kind    kind
	entry   string // of app.py: serve, wait or crash; gunicorn serves or crashes
	count   int
	spares  int
	trivial bool // no floor but the entry's own module
	restart bool // at once, instead of after the usual backoff
	metrics bool // the master has a socket for them
}

// system is a running supervisor with its workers.
type system struct {
	plan
	name   string
	port   int
	births *births
	master int // its pid
	cmd    *exec.Cmd
}

// Each system has a name and a port of its own, so that several can run at once.
var serial int

// start starts a system and returns as soon as the pid of its master is known.
func start(p plan) (*system, error) {
	serial++
	s := &system{plan: p, name: fmt.Sprintf("bench%d", serial), port: 20000 + serial}
	var err error
	if s.births, err = listenBirths(s.socket()); err != nil {
		return nil, err
	}
	switch p.kind {
	case terminal, earlier:
		err = s.startFleet(filepath.Join(dir, s.name+".toml"))
	case unit:
		err = s.startUnit()
	case preload, gunicorn:
		err = s.startGunicorn()
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.kind, err)
	}
	return s, nil
}

// up is start that returns when all workers are in their entries.
func up(p plan) (*system, []birth, error) {
	s, err := start(p)
	if err != nil {
		return nil, nil, err
	}
	workers, err := s.births.await(p.count)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", p.kind, err), s.stop())
	}
	return s, workers, nil
}

func (s *system) socket() string { return filepath.Join(dir, s.name+".sock") }

func (s *system) metricsSocket() string { return "@" + s.name + "-metrics" }

func (s *system) startFleet(path string) error {
	if err := os.WriteFile(path, []byte(s.fleet()), 0o644); err != nil {
		return err
	}
	program := "prefork"
	if s.kind == earlier {
		program = earlierProgram
	}
	return s.startCommand(program, "run", path)
}

func (s *system) startUnit() error {
	path := filepath.Join("/etc/prefork", s.name+".toml")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(s.fleet()), 0o644); err != nil {
		return err
	}
	// Not to wait until the fleet is ready: it may never be.
	if err := command("systemctl", "start", "--no-block", s.unit()); err != nil {
		return err
	}
	for began := time.Now(); s.master == 0; time.Sleep(5 * time.Millisecond) {
		out, err := exec.Command("systemctl", "show", "--value", "--property=MainPID", s.unit()).Output()
		if err != nil {
			return err
		}
		s.master, _ = strconv.Atoi(strings.TrimSpace(string(out))) // systemd wrote it
		if time.Since(began) > patience {
			return errors.New("it has no main process")
		}
	}
	return nil
}

func (s *system) unit() string { return "prefork@" + s.name + ".service" }

func (s *system) startGunicorn() error {
	args := []string{
		"gunicorn", "--config", filepath.Join(dir, "gunicorn.conf.py"), "--chdir", dir,
		"--workers", strconv.Itoa(s.count), "--bind", fmt.Sprintf("127.0.0.1:%d", s.port), "--timeout", "0",
	}
	if s.kind == preload {
		args = append(args, "--preload")
	}
	return s.startCommand(append(args, "wsgi")...)
}

func (s *system) startCommand(args ...string) error {
	log, err := os.Create(s.log())
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.Env = append(os.Environ(), "OPENBLAS_NUM_THREADS=1", "BENCH_SOCKET="+s.socket())
	if s.entry == "crash" {
		s.cmd.Env = append(s.cmd.Env, "BENCH_CRASH=1")
	}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.master = s.cmd.Process.Pid
	return nil
}

func (s *system) log() string { return filepath.Join(dir, s.name+".log") }

// stop ends a system and waits for it.
func (s *system) stop() error {
	defer s.births.conn.Close()
	if s.kind == unit {
		return command("systemctl", "stop", s.unit())
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	kill := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() }) // it has hung
	defer kill.Stop()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w:\n%s", s.kind, err, tail(slurp(s.log())))
	}
	return nil
}

func tail(text string) string {
	const most = 2000
	return text[max(0, len(text)-most):]
}

func command(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w:\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// fleet is the fleet file.
func (s *system) fleet() string {
	modules := `"floor", "app"`
	if s.trivial {
		modules = `"app"`
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[floor]\npath = [%q]\npreload = [%s]\nspares = %d\n", dir, modules, s.spares)
	fmt.Fprintf(&b, "env = { OPENBLAS_NUM_THREADS = \"1\", BENCH_SOCKET = %q }\n", s.socket())
	if s.entry == "serve" {
		fmt.Fprintf(&b, "[socket.http]\nlisten = [\"127.0.0.1:%d\"]\n", s.port)
	}
	if s.metrics {
		fmt.Fprintf(&b, "[metrics]\nlisten = %q\n", s.metricsSocket())
	}
	fmt.Fprintf(&b, "[worker.w]\nentry = \"app:%s\"\ncount = %d\n", s.entry, s.count)
	if s.entry == "serve" {
		b.WriteString("sockets = [\"http\"]\n")
	}
	if s.restart {
		b.WriteString("restart_sec = 0\nrestart_reset_sec = 0\n")
	}
	return b.String()
}
