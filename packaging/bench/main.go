// SPDX-License-Identifier: AGPL-3.0-or-later

// Command bench measures prefork beside a plain fork and beside gunicorn, in
// one run and turn by turn, and prints medians with the least and the most.
// It judges nothing: what is slow on a busy machine is not wrong.
//
// It runs inside a machine that has systemd, prefork, gunicorn and the modules
// of the floor. The test of this package boots one and runs it there, if
// PREFORK_BENCH is set: make bench.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// options are how much is measured.
type options struct {
	kills  int // of each system
	rounds int // of what takes seconds
	only   []string
}

// figures are all that can be measured, in the order in which it is.
var figures = []struct {
	name    string
	measure func(options) error
}{
	{"latency", latency},
	{"memory", memory},
	{"idle", idle},
	{"launch", launch},
	{"crash", crash},
	{"scale", scale},
	{"load", load},
}

func main() {
	var opts options
	flag.IntVar(&opts.kills, "kills", 60, "how often a worker of each system is killed")
	flag.IntVar(&opts.rounds, "rounds", 5, "how many turns each system has with what takes seconds")
	only := flag.String("only", "", "figures to measure, with commas between them: latency,memory,idle,launch,crash,scale,load")
	flag.Parse()
	if *only != "" {
		opts.only = strings.Split(*only, ",")
	}
	if err := run(opts); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(opts options) error {
	if err := unpack(); err != nil {
		return err
	}
	head()
	for _, figure := range figures {
		if opts.only != nil && !slices.Contains(opts.only, figure.name) {
			continue
		}
		fmt.Printf("\n%s (load average %s)\n", figure.name, loadAverage())
		if err := figure.measure(opts); err != nil {
			return fmt.Errorf("%s: %w", figure.name, err)
		}
	}
	fmt.Printf("\nload average at the end: %s\n", loadAverage())
	return nil
}

// head prints what the figures depend on.
func head() {
	fact := func(name string, args ...string) {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		text, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		if err != nil {
			text = err.Error()
		}
		fmt.Printf("%-14s %s\n", name, text)
	}
	fact("prefork", "prefork", "version")
	fact("python", "python3", "--version")
	fact("floor", "python3", "-c", floorVersions)
	fact("gunicorn", "gunicorn", "--version")
	fact("systemd", "systemctl", "--version")
	fact("kernel", "uname", "-srm")
	fmt.Printf("%-14s %d\n", "processors", runtime.NumCPU())
	fmt.Printf("%-14s %s\n", "huge pages", slurp("/sys/kernel/mm/transparent_hugepage/enabled"))
	fmt.Printf("%-14s %s\n", "load average", loadAverage())
}

const floorVersions = `
from importlib.metadata import version
names = "numpy", "Django", "SQLAlchemy", "aiohttp", "requests", "cryptography"
print(*(f"{name} {version(name)}" for name in names), sep=", ")
`

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

// dir is where the Python files and the sockets of a run are.
const dir = "/run/prefork-bench"

// unpack writes the Python files.
func unpack() error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	names, err := python.ReadDir("python")
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := python.ReadFile("python/" + name.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name.Name()), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
