// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/decnet/prefork/packaging/bench/peer"
	"github.com/decnet/prefork/packaging/bench/report"
)

// options are how much is measured, and where the outcome goes.
type options struct {
	kills  int // of each system
	rounds int // of what takes seconds
	only   []string
	peers  []string
	quick  bool

	from     string // a file to show instead of measuring
	add      string // a file of an earlier run that this one completes
	json     string // "-": to standard output, and no tables
	markdown string
}

// topics are all that can be measured, in the order in which it is.
var topics = []struct {
	name    string
	measure func(*bench) error
}{
	{"kill", (*bench).kill},
	{"memory", (*bench).memory},
	{"shop", (*bench).shop},
	{"idle", (*bench).idle},
	{"launch", (*bench).launch},
	{"crash", (*bench).crash},
	{"load", (*bench).load},
	{"fairness", (*bench).fairness},
	{"roll", (*bench).roll},
	{"count", (*bench).count},
	{"slots", (*bench).slots},
	{"looks", (*bench).looks},
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.IntVar(&o.kills, "kills", 60, "how often a worker of each system is killed")
	f.IntVar(&o.rounds, "rounds", 5, "how many turns each system has with what takes seconds")
	f.BoolVar(&o.quick, "quick", false, "few turns, few systems, small numbers: to see that it works")
	f.StringVar(&o.from, "from", "", "a JSON `file` of an earlier run to show, instead of measuring")
	f.StringVar(&o.add, "add", "", "a JSON `file` of an earlier run in the same conditions, whose other topics are kept")
	f.StringVar(&o.json, "json", "dist/bench/results.json", "the `file` for every sample; -: standard output, and no tables")
	f.StringVar(&o.markdown, "markdown", "dist/bench/RESULTS.md", "the `file` for the tables, with plots beside it")
	only := f.String("only", "", "`topics` to measure, with commas between them: "+strings.Join(names(), ","))
	peers := f.String("peers", "", "`systems` to measure, with commas between them: "+strings.Join(keys(), ","))
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%s: there are only options", f.Arg(0))
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, name := range o.only {
		if !slices.Contains(names(), name) {
			return o, fmt.Errorf("-only %s: there are %s", name, strings.Join(names(), ","))
		}
	}
	if *peers != "" {
		o.peers = strings.Split(*peers, ",")
	}
	if o.quick {
		o.kills, o.rounds = min(o.kills, 2), 1
		if o.peers == nil {
			o.peers = []string{"prefork", "gunicorn-preload"}
		}
	}
	if _, err = peer.Find(o.peers...); err != nil {
		return o, fmt.Errorf("-peers: %w", err)
	}
	return o, nil
}

func names() (all []string) {
	for _, t := range topics {
		all = append(all, t.name)
	}
	return all
}

func keys() (all []string) {
	for _, k := range peer.Kinds {
		all = append(all, k.Key)
	}
	return all
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if o.from != "" {
		r, err := read(o.from)
		if err != nil {
			return err
		}
		return show(o, r)
	}
	if err := peer.Unpack(); err != nil {
		return err
	}
	r, err := measure(o)
	if err != nil {
		return err
	}
	if o.json == "-" {
		return r.Write(os.Stdout)
	}
	return finish(o, r)
}

func read(path string) (*report.Run, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read
	r, err := report.Read(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// finish keeps and shows a run, with the topics of the earlier one that it completes.
func finish(o options, r *report.Run) error {
	if o.add != "" {
		earlier, err := read(o.add)
		if err != nil {
			return err
		}
		if err := r.Complete(earlier, names()); err != nil {
			return fmt.Errorf("-add %s: %w", o.add, err)
		}
	}
	return errors.Join(keep(o, r), show(o, r))
}

// measure has each topic measured. One that fails as a whole is noted.
func measure(o options) (*report.Run, error) {
	b := &bench{options: o, run: &report.Run{Began: time.Now().UTC(), Quick: o.quick}}
	if o.quick {
		hurry()
	}
	var err error
	if b.kinds, err = peer.Find(o.peers...); err != nil {
		return nil, err
	}
	if o.peers == nil {
		b.kinds = slices.Clone(peer.Kinds)
	}
	if _, err := os.Stat(peer.EarlierProgram); err != nil {
		b.kinds = slices.DeleteFunc(b.kinds, func(k *peer.Kind) bool { return k.Key == "earlier" })
	}
	for _, k := range b.kinds {
		b.run.Systems = append(b.run.Systems, k.Name)
	}
	b.facts()
	for _, topic := range topics {
		if o.only != nil && !slices.Contains(o.only, topic.name) {
			continue
		}
		b.progress("%s", topic.name)
		before := len(b.run.Topics)
		if err := topic.measure(b); err != nil {
			b.progress("%s: %v", topic.name, err)
			for _, t := range b.run.Topics[before:] {
				t.Note(err.Error())
			}
		}
	}
	b.run.Ended = time.Now().UTC()
	return b.run, nil
}

// facts are what the figures depend on.
func (b *bench) facts() {
	fact := func(name, value string) { b.run.Facts = append(b.run.Facts, report.Fact{Name: name, Value: value}) }
	ask := func(name string, args ...string) { fact(name, firstLine(args...)) }
	if b.quick {
		fact("this is", "a smoke run: its figures say nothing")
	}
	fact(report.Date, b.run.Began.Format(time.DateOnly))
	for _, k := range b.kinds {
		var about []string
		if k.Version != nil {
			about = append(about, firstLine(k.Version...))
		}
		if k.Note != "" {
			about = append(about, k.Note)
		}
		if about != nil {
			fact(k.Name, strings.Join(about, "; "))
		}
	}
	ask("Python", "python3", "--version")
	ask("floor", "python3", "-c", floorVersions)
	ask("kernel", "uname", "-srm")
	fact("processors", fmt.Sprintf("%d, %s", runtime.NumCPU(), processor()))
	fact("memory", memoryOfMachine())
	fact("huge pages", slurp("/sys/kernel/mm/transparent_hugepage/enabled"))
	fact(report.LoadBefore, loadAverage())
}

// firstLine is what a command says first, or why it could not be run.
func firstLine(args ...string) string {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

const floorVersions = `
from importlib.metadata import version
names = "numpy", "Django", "SQLAlchemy", "aiohttp", "requests", "cryptography"
print(*(f"{name} {version(name)}" for name in names), sep=", ")
`

func processor() string {
	for line := range strings.Lines(slurp("/proc/cpuinfo")) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "?"
}

func memoryOfMachine() string {
	line, _, _ := strings.Cut(slurp("/proc/meminfo"), "\n")
	return strings.TrimSpace(strings.TrimPrefix(line, "MemTotal:"))
}

func loadAverage() string {
	return strings.Join(strings.Fields(slurp("/proc/loadavg"))[:3], " ")
}

func slurp(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "? ? ?"
	}
	return strings.TrimSpace(string(text))
}
