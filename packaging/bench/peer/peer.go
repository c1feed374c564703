// SPDX-License-Identifier: AGPL-3.0-or-later

// Package peer runs the same workers under each of the systems that are
// compared: prefork, and what people use instead. One file has one of them.
//
//	bench ── System ── gunicorn ── workers, which say when they are born
//	           └ births: a datagram socket that they say it to
//
// All of them import the same modules and run the entries of app.py. How a
// worker comes by the shared socket is what the system itself offers; [Kind.Note]
// says it.
package peer

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

	"github.com/decnet/prefork/packaging/bench/proc"
)

//go:embed python
var python embed.FS

// Dir is where the Python files and the sockets of a run are.
const Dir = "/run/prefork-bench"

// Patience is how long anything may take before a turn is given up.
const Patience = 2 * time.Minute

// Kind is a way to run workers.
type Kind struct {
	Key     string   // as options select it
	Name    string   // as tables call it
	Note    string   // what is special about it here
	Shares  bool     // workers are forked from what was imported once
	WSGI    bool     // it brings an HTTP server and runs WSGI applications alone
	Version []string // the command that tells its version

	driver driver
}

// driver starts and ends the systems of one kind.
type driver interface {
	// start returns when the supervisor runs, and does not wait for workers.
	start(s *System) error
	// masters are the processes that supervise, the first of which is the oldest
	// ancestor of everything.
	masters(s *System) []int
	// stop ends all of it, and waits.
	stop(s *System) error
}

// roller is a driver that can replace all workers while they serve.
type roller interface {
	// roll returns when all have been replaced, or have been asked to. The births of
	// the successors are the caller's, who passes a function that waits for one.
	roll(s *System, born func() error) error
}

// Kinds are all of them, in the order of the tables.
var Kinds = []*Kind{
	{Key: "prefork", Name: "prefork run", Shares: true, driver: terminal{"prefork"}, Version: []string{"prefork", "version"}},
	{Key: "earlier", Name: "prefork run, earlier", Shares: true, driver: terminal{EarlierProgram}, Version: []string{EarlierProgram, "version"}},
	{Key: "unit", Name: "prefork@.service", Shares: true, driver: unit{}},
	{
		Key: "polling", Name: "polling Python master", Shares: true, driver: polling{},
		Note: "what is written by hand: import, os.fork for each worker, waitpid(WNOHANG) each 0.2 s, no gc.freeze(); " +
			"its backoff of 1 s is off where workers are killed",
	},
	{
		Key: "gunicorn-preload", Name: "gunicorn --preload", Shares: true, WSGI: true, driver: gunicorn{preload: true},
		Version: []string{"gunicorn", "--version"}, Note: "sync workers; SIGHUP replaces workers but loads no new code",
	},
	{Key: "gunicorn", Name: "gunicorn", WSGI: true, driver: gunicorn{}, Note: "sync workers"},
	{
		Key: "uwsgi", Name: "uwsgi", Shares: true, WSGI: true, driver: uwsgi{}, Version: []string{"uwsgi", "--version"},
		Note: "--master --http-socket; SIGHUP loads everything again in the same processes",
	},
	{Key: "uwsgi-lazy", Name: "uwsgi --lazy-apps", WSGI: true, driver: uwsgi{lazy: true}, Note: "rolled by its chain reload"},
	{
		Key: "supervisord", Name: "supervisord", driver: supervisord{}, Version: []string{"supervisord", "--version"},
		Note: "an [fcgi-program] hands its socket down as descriptor 0; rolled by supervisorctl restart, one after the other",
	},
	{
		Key: "s6", Name: "s6", driver: s6{}, Version: []string{"dpkg-query", "--show", "--showformat=${Version}", "s6"},
		Note: "s6-svscan inherits a listening socket as descriptor 3, and its services do; rolled by s6-svc -r, one after the other",
	},
	{
		Key: "systemd", Name: "systemd template units", driver: units{}, Version: []string{"systemctl", "--version"},
		Note: "app@N.service with Sockets= of one socket unit; its supervisor is PID 1; rolled by systemctl restart, one after the other",
	},
}

// Find returns the kinds with these keys.
func Find(keys ...string) ([]*Kind, error) {
	var found []*Kind
	var known []string
	for _, k := range Kinds {
		known = append(known, k.Key)
		for _, key := range keys {
			if k.Key == key {
				found = append(found, k)
			}
		}
	}
	if len(found) != len(keys) {
		return nil, fmt.Errorf("peers %s: there are %s", strings.Join(keys, ","), strings.Join(known, ","))
	}
	return found, nil
}

// Rolls reports whether a kind can replace all workers while they serve.
func (k *Kind) Rolls() bool {
	_, ok := k.driver.(roller)
	return ok
}

// Prefork reports whether a kind is prefork, in whatever way it is run.
func (k *Kind) Prefork() bool { return k.Key == "prefork" || k.Key == "earlier" || k.Key == "unit" }

// Plan says what a system runs.
type Plan struct {
	Kind    *Kind
	Entry   string // of app.py: serve, graceful, wait or crash
	Count   int    // of workers
	Spares  int    // of prefork
	Trivial bool   // no floor but the entry's own module
	Shop    bool   // the application shop.py is part of the floor
	Warm    bool   // prefork's floor is warmed up and repacked
	Eternal bool   // prefork's floor is immortal
	Restart bool   // at once, instead of after the usual backoff
	Metrics bool   // prefork's master has a socket for them
	Change  int    // another number is another configuration of the worker
}

// modules are what is imported before anything runs.
func (p Plan) modules() []string {
	all := []string{"app"}
	if !p.Trivial {
		all = append(all, "floor")
	}
	if p.Shop {
		all = append(all, "shop")
	}
	return all
}

// System is a running supervisor with its workers.
type System struct {
	Plan
	Port   int
	Births *Births

	name string
	pid  int // of the process that was started, or the main process of the unit
	cmd  *exec.Cmd
	end  chan error // of cmd, once
}

// Each system has a name and a port of its own, so that several can run at once.
var serial int

// NextPort is the port of the system that is started next.
func NextPort() int { return 20000 + serial + 1 }

// Start starts a system and returns as soon as its supervisor runs.
func Start(p Plan) (*System, error) {
	serial++
	s := &System{Plan: p, name: fmt.Sprintf("bench%d", serial), Port: 20000 + serial}
	var err error
	if s.Births, err = ListenBirths(s.socket()); err != nil {
		return nil, err
	}
	if err := p.Kind.driver.start(s); err != nil {
		s.Births.Close()
		return nil, fmt.Errorf("start %s: %w", p.Kind.Name, err)
	}
	return s, nil
}

// Up is Start that returns when all workers are in their entries.
func Up(p Plan) (*System, []Birth, error) {
	s, err := Start(p)
	if err != nil {
		return nil, nil, err
	}
	workers, err := s.Births.Await(p.Count)
	if err != nil {
		log := tail(s.log())
		return nil, nil, errors.Join(fmt.Errorf("%s: %w\n%s", p.Kind.Name, err, log), s.Stop())
	}
	return s, workers, nil
}

// Stop ends a system and waits for it.
func (s *System) Stop() error {
	defer s.Births.Close()
	if err := s.Kind.driver.stop(s); err != nil {
		return fmt.Errorf("stop %s: %w", s.Kind.Name, err)
	}
	return nil
}

// Masters are the processes that supervise.
func (s *System) Masters() []int { return s.Kind.driver.masters(s) }

// All are the processes of the supervisor, what it keeps, and these workers.
func (s *System) All(workers []Birth) []int {
	root := s.Masters()[0]
	if root != 1 {
		return proc.Family(root)
	}
	all := []int{root} // the rest of its family is the whole machine
	for _, w := range workers {
		all = append(all, w.PID)
	}
	return all
}

// Roll replaces all workers and returns when their successors have been born.
func (s *System) Roll() error {
	born := 0
	next := func() error {
		_, err := s.Births.Next(time.Now().Add(Patience))
		born++
		return err
	}
	if err := s.Kind.driver.(roller).roll(s, next); err != nil {
		return err
	}
	for born < s.Count {
		if err := next(); err != nil {
			return fmt.Errorf("%d of %d successors: %w", born, s.Count, err)
		}
	}
	return nil
}

func (s *System) socket() string { return filepath.Join(Dir, s.name+".sock") }

func (s *System) path(suffix string) string { return filepath.Join(Dir, s.name+suffix) }

// log is what the supervisor has written, where it is started by a command.
func (s *System) log() string {
	text, _ := os.ReadFile(s.path(".log")) // there is none under systemd
	return string(text)
}

// environment is what the Python files read.
func (s *System) environment() []string {
	env := []string{
		"OPENBLAS_NUM_THREADS=1",
		"PYTHONPATH=" + Dir,
		"BENCH_SOCKET=" + s.socket(),
		"BENCH_MODULES=" + strings.Join(s.modules(), " "),
		"BENCH_ENTRY=" + s.Entry,
		"BENCH_COUNT=" + strconv.Itoa(s.Count),
		"BENCH_PORT=" + strconv.Itoa(s.Port),
	}
	if s.Restart {
		env = append(env, "BENCH_BACKOFF=0")
	}
	return env
}

// command starts the supervisor, in a session of its own.
func (s *System) command(cmd *exec.Cmd) error {
	log, err := os.Create(s.path(".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = cmd
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), s.environment()...)
	cmd.Dir = Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.pid, s.end = cmd.Process.Pid, make(chan error, 1)
	go func() {
		s.end <- cmd.Wait()
		s.Births.Close() // nobody is to wait for any more
	}()
	return nil
}

// ended signals the supervisor and waits until it has ended. One that hangs is
// killed.
func (s *System) ended(sig os.Signal, patience time.Duration) error {
	_ = s.cmd.Process.Signal(sig) // or it has ended by itself
	// With its workers, which are of its group: they would be in the way of others.
	kill := time.AfterFunc(patience, func() { _ = syscall.Kill(-s.pid, syscall.SIGKILL) })
	defer kill.Stop()
	if err := <-s.end; err != nil {
		return fmt.Errorf("%w:\n%s", err, tail(s.log()))
	}
	return nil
}

func tail(text string) string {
	const most = 2000
	return text[max(0, len(text)-most):]
}

func run(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w:\n%s", strings.Join(args, " "), err, tail(string(out)))
	}
	return nil
}

// Unpack writes the Python files.
func Unpack() error {
	names, err := python.ReadDir("python")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		text, err := python.ReadFile("python/" + name.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(Dir, name.Name()), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
