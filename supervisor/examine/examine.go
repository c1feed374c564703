// SPDX-License-Identifier: AGPL-3.0-or-later

// Package examine loads the floor of a fleet file as its fleet would, in scratch zygotes
// that belong to no fleet, and reports what would hurt.
//
//	Run ──> a floor that is watched   each import, what it starts, opens and changes
//	    ──> the floor of the file     verdict; a worker of each entry: what it still imports
//	    │     └── workers             private memory: at the gate, in the entry, at work
//	    ──> the same, otherwise       immortal, warm, both: the same workers
//	    ──> advice                    of what was measured
//
// The program is the zygote's, with a part more: what a worker does step by step
// (steps.py), and in the first floor what watches it (watch.py). The forks, the gate and
// the orders are those of a fleet. There is no runtime directory, no lock, no socket and
// no manager; processes end with this one, and what they leave behind with [End].
//
// Nothing that a floor says is believed beyond its own report.
package examine

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/envfile"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/launch"
)

// Options is what Run needs to know beside the fleet file.
type Options struct {
	User        string             // who loads the floor if the file does not say it; "": this process's user
	Directory   string             // in which; "": this process's
	Environment []string           // NAME=VALUE, over that of this process and below that of the file
	Notes       []string           // for the report
	Output      io.Writer          // what floors print, made printable
	Progress    func(doing string) // is told what takes its time
}

// samples is how many workers each figure of memory is the median of.
const samples = 5

// run is one examination.
type run struct {
	Options
	file   *fleetfile.File // as it is examined
	report *Report
	// sharesFDs is that the file has floor.fds = "allow".
	sharesFDs bool
	loud      *os.File // where it is shown what is printed
	mute      *os.File // /dev/null: what is loaded again prints again
	// onlyImports is that one floor is loaded, to resolve what the file names.
	onlyImports bool
	pooled      bool // the only threads are those of libraries, and a variable keeps them away
}

// Run examines the floor of a file, which has one. It blocks for as long as that takes to
// be loaded some times, each of which has the file's timeout_start_sec. It must be called
// on a thread that lasts: its processes end with that. The error is of this side: what is
// wrong with the floor is in the report.
func Run(file *fleetfile.File, o Options) (*Report, error) {
	r, end, err := begin(file, o)
	if err != nil {
		return nil, err
	}
	defer end()
	return r.report, r.examine()
}

// begin prepares an examination. end ends all processes of it, and waits until what floors
// have printed is shown.
func begin(file *fleetfile.File, o Options) (r *run, end func(), err error) {
	if err := linux.SetChildSubreaper(); err != nil {
		return nil, nil, err
	}
	r = &run{Options: o, file: file, report: newReport(file), sharesFDs: file.Floor.FDs == fleetfile.Allow}
	from, to, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	r.loud = to
	if r.mute, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		_, _ = to.Close(), from.Close() // nothing was written
		return nil, nil, err
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		copyLines(from, o.Output)
		_ = from.Close() // read only
	}()
	r.report.Notes = append(r.report.Notes, o.Notes...)
	r.place()
	return r, func() {
		End()
		_, _ = to.Close(), r.mute.Close()                         // floors had their own
		_ = from.SetReadDeadline(time.Now().Add(2 * time.Second)) // unless one of another user is left
		<-copied
	}, nil
}

// place settles who loads the floor and where, as far as this process may.
func (r *run) place() {
	floor := *r.file.Floor
	file := *r.file
	file.Floor, file.Workers = &floor, slices.Clone(file.Workers)
	r.file = &file
	own := strconv.Itoa(os.Geteuid())
	switch {
	case os.Geteuid() == 0 && floor.User == "" && r.User != "root":
		floor.User = r.User
	case os.Geteuid() == 0:
	case floor.User != "" && floor.User != own && floor.User != os.Getenv("USER"):
		r.note("floor.user = %q is left out: only root may change users", floor.User)
		floor.User = ""
	default:
		floor.User = ""
	}
	r.report.User, r.report.Directory = floor.User, r.Directory
	if floor.User == "" {
		r.report.User = "uid " + own
	}
	if r.Directory == "" {
		r.report.Directory, _ = os.Getwd() // it has been taken away
	}
	for i := range file.Workers {
		w := &file.Workers[i]
		if !w.Forked() {
			continue
		}
		if os.Geteuid() != 0 || floor.User != "" {
			if w.User != floor.User && w.User != "" || w.Group != "" || len(w.SupplementaryGroups) > 0 {
				r.note("worker.%s: its user and groups are left out: its floor is loaded by %s, who may not change them", w.Name, r.report.User)
			}
			w.User, w.Group, w.SupplementaryGroups = "", "", nil
		}
	}
}

func (r *run) note(format string, args ...any) {
	r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, args...))
}

// variant is one way to load the floor.
type variant struct {
	immortal, warm, repack, freeze bool
}

func (r *run) asFile() variant {
	f := r.file.Floor
	return variant{f.Immortal, f.Warm != "", f.Repack, f.GCFreeze}
}

// start loads a floor; limits and guards are those of the file, unless it is watched.
func (r *run) start(v variant, watch bool) (s *scratch, broken string, err error) {
	orders, request := launch.ForScratch(r.file).Floor()
	orders.Dir, orders.Env = r.Directory, slices.Concat(r.Environment, orders.Env)
	orders.OOMScoreAdjust = new(1000) // if memory runs out it is this that ends, and no fleet
	python := request.Python
	python.Immortal, python.Repack, python.GCFreeze = v.immortal, v.repack, v.freeze
	if !v.warm {
		request.Warm = ""
	}
	if watch {
		python.Immortal, python.Repack, request.AllowThreads, request.AllowFDs = false, false, true, true
	}
	output := r.mute
	if watch || r.onlyImports {
		output = r.loud
	}
	if r.onlyImports {
		python.Calls = nil // each is told of
	}
	if s, err = startFloor(orders, request, output, watch); err != nil {
		return nil, "", err
	}
	if broken, err = s.load(r.file.TimeoutStart); err != nil {
		s.close()
		return nil, "", err
	}
	return s, broken, nil
}

func (r *run) examine() error {
	found, err := r.watch()
	if err != nil || r.report.Cause != "" {
		return err
	}
	r.Progress("loading the floor as the fleet does")
	base := r.asFile()
	began := time.Now()
	s, broken, err := r.start(base, false)
	if err != nil {
		return err
	}
	loaded := time.Since(began)
	r.report.Usable, r.report.Cause = broken == "", broken
	if broken != "" {
		s.close()
		if s, loaded, err = r.allTheSame(found, base); s == nil || err != nil {
			r.advise()
			return err
		}
	}
	if err := r.measure(s, base, loaded); err != nil {
		return err
	}
	r.advise()
	return r.together()
}

// watch loads the floor once to see what it does.
func (r *run) watch() (*reading, error) {
	r.Progress("loading the floor, and watching it")
	began := time.Now()
	s, broken, err := r.start(r.asFile(), true)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if s.hung {
		s.stacks()
	}
	r.report.Seconds = time.Since(began).Seconds()
	found := read(s.read(), r.report)
	if r.report.Cause = broken; broken != "" {
		r.advise()
		return found, nil
	}
	if len(r.report.Threads) == 0 || r.file.Floor.Threads == fleetfile.Allow {
		r.timeHooks(s, found)
	}
	return found, nil
}

// timeHooks has two workers tell what the hooks of their fork took: the second knows what
// those of the parent took after the first.
func (r *run) timeHooks(s *scratch, found *reading) {
	for range 2 {
		err := r.withWorker(s, nil, r.mute, func(w *spare) error {
			said, err := w.step(r.file.TimeoutStart, "hooks")
			if err == nil {
				found.hooksFrom(said)
			}
			return err
		})
		if err != nil {
			r.note("the hooks of a fork could not be timed: %v", err)
			return
		}
	}
}

// withWorker forks a worker, lets it become the first of a worker's, or none of the file's,
// and ends it afterwards.
func (r *run) withWorker(s *scratch, of *fleetfile.Worker, output *os.File, do func(*spare) error) error {
	w, err := s.fork(r.file.TimeoutStart)
	if err != nil {
		return err
	}
	defer w.close()
	if err := r.become(w, of, output); err != nil {
		return err
	}
	return do(w)
}

// become lets a worker at its gate be the first of a worker's.
func (r *run) become(w *spare, of *fleetfile.Worker, output *os.File) error {
	if of == nil {
		of = &fleetfile.Worker{Name: "check", Entry: "-"}
	}
	env, _, err := envfile.Read(of.EnvironmentFiles)
	if err != nil {
		return err
	}
	orders := launch.ForScratch(r.file).Worker(of, env)
	orders.Limits, orders.Nice, orders.OOMScoreAdjust = []gate.Limit(nil), nil, nil
	return w.become(orders, output)
}

// allTheSame loads a floor that the fleet would refuse in a way in which its workers can be
// measured; nil: there is none.
func (r *run) allTheSame(found *reading, base variant) (s *scratch, loaded time.Duration, err error) {
	if len(r.report.Threads) > 0 && r.file.Floor.Threads != fleetfile.Allow {
		return r.without(found.pools, base)
	}
	if r.sharesFDs || !slices.ContainsFunc(r.report.Descriptors, func(d Descriptor) bool { return d.Verdict == Shared }) {
		return nil, 0, nil
	}
	r.file.Floor.FDs = fleetfile.Allow
	r.note("what follows was measured with what workers cannot share left open")
	began := time.Now()
	s, broken, err := r.start(base, false)
	if err != nil {
		return nil, 0, err
	}
	if broken != "" {
		s.close()
		return nil, 0, nil
	}
	return s, time.Since(began), nil
}

// without tries whether a floor that has threads loads without the pools that libraries
// start; nil: it does not.
func (r *run) without(pools []string, base variant) (s *scratch, loaded time.Duration, err error) {
	if len(pools) == 0 || r.file.Floor.Threads == fleetfile.Allow {
		return nil, 0, nil
	}
	r.Progress("loading it without pools of threads")
	env := maps.Clone(r.file.Floor.Env)
	if env == nil {
		env = map[string]string{}
	}
	var set []string
	for _, name := range pools {
		env[name] = "1"
		set = append(set, fmt.Sprintf(`%s = "1"`, name))
	}
	before := r.file.Floor.Env
	r.file.Floor.Env = env
	began := time.Now()
	s, broken, err := r.start(base, false)
	if err != nil {
		return nil, 0, err
	}
	if broken != "" {
		r.file.Floor.Env = before
		s.close()
		return nil, 0, nil
	}
	r.pooled = true
	r.report.Advice = append(r.report.Advice, Advice{
		Key: "floor.env", Value: "{ " + strings.Join(set, ", ") + " }",
		Text: "keeps the threads of libraries from starting; it was tried, and the floor loads. What follows was measured with it.",
	})
	return s, time.Since(began), nil
}
