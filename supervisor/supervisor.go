// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/manager"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/rights"
)

// Options is what Run needs to know beside the fleet file.
type Options struct {
	File      *fleetfile.File
	Env       sdnotify.Environment // taken from the process's environment
	Log       *output.Log
	StopAfter time.Duration // stop by itself after this long; 0: never
}

// system is the world as the loop sees it. Tests put a fake one in its place.
type system interface {
	// now is the time of CLOCK_MONOTONIC.
	now() policy.Instant

	// wait blocks until something happens or the time has come.
	wait(until policy.Instant) []fleet.Event

	// do carries out one action. What comes of it at once is returned.
	do(act fleet.Action) []fleet.Event

	// flush ends a turn: what was held back to be said once is said.
	flush()
}

// processors are how many goroutines run at once: the loop, and one for clients.
const processors = 2

// Run runs a fleet until it has ended and returns the exit status of the
// program. It blocks and must be called on the main thread.
func Run(opts Options) int {
	// The heap is a few hundred kB. By default the runtime would let it grow to
	// 4 MB before it collects what a talkative worker makes it allocate.
	debug.SetGCPercent(25)
	// One loop, and who asks it: by default the runtime would keep memory and threads for
	// each processor of the machine.
	runtime.GOMAXPROCS(min(processors, runtime.GOMAXPROCS(0)))
	opts.Log.Format(string(opts.File.Log.Format), opts.File.Name)
	mgr := manager.New(opts.Env, opts.Log)
	defer mgr.Close()
	code, err := run(opts, mgr)
	if err != nil {
		opts.Log.Error("cannot start the fleet: " + err.Error())
		mgr.Failed(err, code)
	}
	return code
}

// Reject says in the log and to the service manager, line by line, why there is
// nothing to run. It may block for a second, until the manager has read it.
func Reject(env sdnotify.Environment, log *output.Log, why string, code int) {
	lines := strings.Split(why, "\n")
	for _, line := range lines {
		log.Error(line)
	}
	if more := len(lines) - 1; more > 0 {
		lines[0] += fmt.Sprintf(" (and %d more)", more)
	}
	mgr := manager.New(env, log)
	defer mgr.Close()
	mgr.Reject(lines[0], code)
}

func run(opts Options, mgr *manager.Manager) (code int, err error) {
	m, f, err := newMaster(opts, mgr)
	if err != nil {
		return exitFor(err), err
	}
	defer m.close()
	opts.Log.UseJournal()
	defer opts.Log.EndJournal()
	opts.Log.Info("fleet starts", slog.String("fleet", opts.File.Name), slog.Int("pid", os.Getpid()))
	for _, w := range opts.File.Workers {
		if w.CountFrom != "" {
			opts.Log.Info(fmt.Sprintf("worker.%s.count is %d: %s", w.Name, w.Count, w.CountFrom))
		}
	}
	for _, variable := range opts.File.Strays {
		opts.Log.Warn(fmt.Sprintf("the variable %s is for no worker of this fleet: it has %s", variable, opts.File.CountVariables()))
	}
	return loop(f, m), nil
}

// exitFor is the exit status for a fleet that could not start.
func exitFor(err error) int {
	if _, ok := err.(*rights.Forbidden); ok { //nolint:errorlint // never wrapped
		return ExitConfig
	}
	return 1
}

// ExitNoFleet is that for a fleet that has no file, and no socket at which somebody could
// wait for one, where a manager would start it again (EXIT_NOTCONFIGURED of systemd.exec(5)).
const ExitNoFleet = 6

// ExitConfig is the exit status for a fleet file that cannot be used (EX_CONFIG
// of sysexits(3head)).
const ExitConfig = 78

// loop is the only reader and writer of f, and the only caller of sys. The
// outcome of an action is an event of the same turn. What is only told is told when all
// else of the turn is done: a successor does not wait for a line in the log.
func loop(f *fleet.Fleet, sys system) int {
	code := 0
	events := []fleet.Event{fleet.Tick{}}
	for {
		var told []fleet.Action
		for ; len(events) > 0; events = events[1:] {
			for _, act := range f.Decide(sys.now(), events[0]) {
				switch act := act.(type) {
				case fleet.Report:
					told = append(told, act)
					continue
				case fleet.Quit:
					code = act.Code
				}
				events = append(events, sys.do(act)...)
			}
		}
		for _, act := range told {
			sys.do(act)
		}
		sys.flush()
		if f.Ended() {
			return code
		}
		events = append(sys.wait(f.Deadline()), fleet.Tick{})
	}
}

// config is what the fleet file means for the state machine, on this host.
func (m *master) config(opts Options) policy.Config {
	cfg := m.revisions.Current().Config(m.sockets.Passed())
	cfg.Host = policy.Host{
		StopAfter: opts.StopAfter,
		PingEvery: m.manager.PingEvery(),
		Extend:    m.manager.Listens(),
		Freezer:   m.procs.Groups().On(),
		Seed:      rand.Uint64(),
	}
	return cfg
}
