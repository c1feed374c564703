// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/floorreport"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/conformance"
	"github.com/decnet/prefork/supervisor/examine"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

func newCheck() *cobra.Command {
	var floor, imports, asJSON bool
	cmd := &cobra.Command{
		Use:   "check FLEET",
		Short: "Check a fleet file and print what it means",
		Long: `Check a fleet file. All errors are reported at once, each with file, line and
key. A good file is printed as it was understood, with every default filled in.
Nothing is started and nothing is changed.

With --floor, load the floor and report what would hurt: threads, sockets,
locks, event loops, hooks of a fork, what imports change in the process, the
seconds and megabytes of each module, what entries still import, and the private
memory of workers with and without floor.warm, immortal and repack. It ends with
advice, of what was measured.

The floor is loaded several times, each within timeout_start_sec: its imports,
setup and warm run, and after_fork and entries are imported, not called. It has
the user and the environment of the file as far as the caller may give them; if
root asks for a NAME, those of its unit, and not its sandbox. Sockets, limits,
nice and control groups are left out, and a fleet that runs is not touched. What
the floor prints goes to standard error.

With --import, load the floor once, in the same way, and look in a worker for each
entry, task and hook that the file names; it is quick enough for each deployment.

Exit status: 0 good; 1 the floor cannot be used, or not be examined, or what
--import has looked for is not there; 78 bad.`,
		Example:           "  prefork check ./fleet.toml\n  prefork check --import fleet\n  prefork check --floor fleet\n  prefork check --floor --json fleet",
		Args:              oneFleet,
		ValidArgsFunction: completeFleet,
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && !floor {
				return exit.Misused("check: --json is for --floor: without it what is printed is TOML")
			}
			if floor && imports {
				return exit.Misused("check: --floor and --import are two checks: give one of them")
			}
			file, err := reach.File(args[0])
			if err != nil {
				return err
			}
			if imports {
				return checkImports(cmd.OutOrStdout(), args[0], file)
			}
			if floor {
				return checkFloor(cmd.OutOrStdout(), args[0], file, asJSON)
			}
			warnOfEntries(os.Stderr, args[0], file)
			_, err = file.WriteTo(cmd.OutOrStdout())
			return err
		},
	}
	cmd.Flags().BoolVar(&floor, "floor", false, "load the floor, and report what would hurt")
	cmd.Flags().BoolVar(&imports, "import", false, "load the floor once, and look for every entry")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole report of --floor as JSON")
	return cmd
}

// warnOfEntries tells of entries whose module the floor does not have, as far as the file
// says: what is preloaded may import it, above all if it is of the same package.
func warnOfEntries(to io.Writer, fleet string, file *fleetfile.File) {
	f := file.Floor
	if f == nil || f.Zygote != nil {
		return
	}
	loaded := map[string]bool{} // packages of which something is loaded
	for _, name := range append([]string{f.Setup, f.Warm}, f.Preload...) {
		loaded[topOf(name)] = true
	}
	for i := range file.Workers {
		w := &file.Workers[i]
		key := "entry"
		if w.Entry == "" {
			key = "tasks"
		}
		for _, name := range w.Callables() {
			module, _, _ := strings.Cut(name, ":")
			if loaded[topOf(module)] {
				continue
			}
			loaded[topOf(module)] = key == "tasks" // said once of all of them
			unless := ", unless what is loaded there does"
			if len(f.Preload) == 0 && f.Setup == "" && f.Warm == "" {
				unless = ""
			}
			fmt.Fprintf(to, "prefork: %s: worker.%s.%s: %s is not in floor.preload: each worker imports it for itself%s; what it costs: prefork check --floor %s\n",
				file.Path, w.Name, key, module, unless, fleet)
		}
	}
}

// topOf is the outermost package of what a module, or something in it, is.
func topOf(name string) string {
	module, _, _ := strings.Cut(name, ":")
	top, _, _ := strings.Cut(module, ".")
	return top
}

// checkFloor examines the floor of a file, and prints the report.
func checkFloor(out io.Writer, fleet string, file *fleetfile.File, asJSON bool) error {
	report, err := examined(fleet, file, examine.Run)
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSON(out, report)
	} else {
		_, err = io.WriteString(out, floorreport.Text(report, widthOf(out)))
	}
	if err == nil && !report.Usable {
		return exit.Silent(exit.Failure) // the report says why
	}
	return err
}

// checkImports resolves what a file names, and prints a line for each.
func checkImports(out io.Writer, fleet string, file *fleetfile.File) error {
	cause := ""
	all, err := examined(fleet, file, func(file *fleetfile.File, o examine.Options) (all []examine.Imported, err error) {
		all, cause, err = examine.Import(file, o)
		return all, err
	})
	switch {
	case err != nil:
		return err
	case cause != "":
		return exit.Failed("%s: the floor cannot be used: %s", file.Path, cause)
	}
	rows, bad := [][]string{}, 0
	for _, found := range all {
		what := "preloaded"
		switch {
		case found.Error != "":
			bad++
			fmt.Fprintf(os.Stderr, "prefork: %s: %s: %s\n", found.Place, found.Name, found.Error)
			continue
		case found.Count == 1:
			what = "1 module is imported by each worker"
		case !found.Preloaded || found.Count > 0:
			what = fmt.Sprintf("%d modules are imported by each worker", found.Count)
		}
		rows = append(rows, []string{found.Key, found.Name, what})
	}
	if len(rows) > 0 {
		if _, err := fmt.Fprintln(out, strings.Join(table(rows), "\n")); err != nil {
			return err
		}
	}
	if bad > 0 {
		return exit.Failed("%s: %d of %d entries and hooks cannot be called", file.Path, bad, len(all))
	}
	return nil
}

// examined runs an examination, which ends with this process.
func examined[T any](fleet string, file *fleetfile.File, examination func(*fleetfile.File, examine.Options) (T, error)) (found T, err error) {
	if file.Floor == nil {
		return found, exit.Failed("%s has no [floor]: there is nothing to load", file.Path)
	}
	if file.Floor.Zygote != nil {
		return found, exit.Failed("%s: floor.zygote is a program of which nothing is known here; what tests it is prefork check-zygote", file.Path)
	}
	sdnotify.TakeEnvironment() // what a manager says to this process is not for the floor
	var ending atomic.Bool
	endOnSignals(&ending)
	said := &lines{}
	options := examine.Options{Output: said, Progress: func(string) {}}
	if _, err := unix.IoctlGetTermios(2, unix.TCGETS); err == nil { // somebody waits there
		options.Progress = func(doing string) { said.print("prefork: " + doing + "\n") }
	}
	if !fleetfile.IsPath(fleet) && os.Geteuid() == 0 {
		likeUnit(fleet, &options)
	}
	found, err = examination(file, options)
	if ending.Load() {
		select {} // what was found out is no report; a signal ends this process
	}
	if err != nil {
		return found, exit.Failed("check: load the floor: %v", err)
	}
	return found, nil
}

// lines is standard error, for what floors print and what is said between.
type lines struct{ sync.Mutex }

func (l *lines) print(text string) {
	l.Lock()
	defer l.Unlock()
	_, _ = os.Stderr.WriteString(text) // there is nobody to tell
}

func (l *lines) Write(b []byte) (int, error) {
	l.print(string(b))
	return len(b), nil
}

// endOnSignals ends what was started before this process ends by a signal.
func endOnSignals(ending *atomic.Bool) {
	came := make(chan os.Signal, 1)
	signal.Notify(came, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		by := (<-came).(unix.Signal) //nolint:errcheck // there are no others
		ending.Store(true)
		examine.End()
		signal.Reset()
		_ = unix.Kill(os.Getpid(), by) // as it would have ended
	}()
}

// likeUnit loads a floor as systemd runs its fleet: what root does not run in a fleet is
// not for root to run here. Where systemd cannot be asked it is the user of the unit as
// it is shipped.
func likeUnit(fleet string, o *examine.Options) {
	o.User, o.Directory = "prefork", "/"
	if _, err := user.Lookup(o.User); err != nil {
		o.User = "" // there is no such unit
	}
	ctx, cancel := context.WithTimeout(context.Background(), reach.AnswerTimeout)
	defer cancel()
	conn, err := reach.Systemd(ctx, fleet)
	if err != nil {
		return
	}
	defer conn.Close()
	ask := func(name string) any {
		property, err := conn.GetServicePropertyContext(ctx, reach.Unit(fleet), name)
		if err != nil {
			return nil
		}
		return property.Value.Value()
	}
	state, err := conn.GetUnitPropertyContext(ctx, reach.Unit(fleet), "LoadState")
	if err != nil || state.Value.Value() != "loaded" {
		return
	}
	if name, ok := ask("User").(string); ok {
		o.User = name
	}
	o.Environment, _ = ask("Environment").([]string)
	if files, ok := ask("EnvironmentFiles").([][]any); ok && len(files) > 0 {
		o.Notes = append(o.Notes, "EnvironmentFile= of "+reach.Unit(fleet)+" is left out")
	}
}

func newCheckZygote() *cobra.Command {
	o := conformance.Options{}
	var only []string
	var list bool
	cmd := &cobra.Command{
		Use:   "check-zygote [ZYGOTE [ARGUMENT]...]",
		Short: "Check a program that is to be a zygote",
		Long: `Check whether a program keeps to prefork-zygote(7), so that it can stand in
floor.zygote. This command plays the master: it starts the program, has it load
and fork, and looks at what comes of it. Without ZYGOTE it is prefork's own that
is checked. Options for the program stand after --.

ENTRY is called in workers with one word as its argument. With "state" it writes
"random N", where N is from the language's own generator, each environment
variable as NAME=VALUE, and "ready", a line each, flushes that, and waits for
ever; with "return" it returns; with "exit" it writes "bye" without a line feed,
flushes nothing, and exits with status 7; with "raise" it ends by an error that
nobody handles. /usr/share/prefork/conformance has it for Python and for Ruby.

It is TAP that is printed: a line for each check, and after one that failed what
was found, and what the program wrote.

Exit status: 0 no check has failed; 1 one has.`,
		Example: `  prefork check-zygote --path /usr/share/prefork/conformance \
    --preload conformance --entry conformance:entry
  prefork check-zygote --path /usr/share/prefork/conformance \
    --preload conformance --entry Conformance.entry \
    --thread Conformance.thread --socket Conformance.socket_left_open \
    -- ruby /usr/share/prefork/zygote.rb`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			if list {
				for _, c := range conformance.Checks() {
					fmt.Fprintf(out, "%-20s %s\n", c[0], c[1])
				}
				return nil
			}
			if o.Entry == "" {
				return exit.Misused("the entry to be called is missing: --entry ENTRY; see prefork check-zygote --help")
			}
			for _, name := range only {
				if !conformance.Known(name) {
					return exit.Misused("there is no check %q; --list prints all of them", name)
				}
			}
			if len(args) > 0 {
				o.Zygote = args
			}
			return checkZygote(out, o, only)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Entry, "entry", "", "`ENTRY` that workers are to call")
	flags.StringArrayVar(&o.Preload, "preload", nil, "what is to be loaded, as in floor.preload, such as `MODULE`; can be given more than once")
	flags.StringArrayVar(&o.Path, "path", nil, "`FOLDER` in which that lies, as in floor.path; can be given more than once")
	flags.StringVar(&o.Setup, "setup", "", "what is to be called after that, as `SETUP` in floor.setup")
	flags.StringVar(&o.Thread, "thread", "", "`SETUP` that starts a thread, which the zygote must refuse")
	flags.StringVar(&o.Socket, "socket", "", "`SETUP` that leaves a socket open, which the zygote must refuse")
	flags.StringVar(&o.Python, "python", "python3", "interpreter of prefork's own zygote, `PROGRAM`")
	flags.StringSliceVar(&only, "only", nil, "run `CHECK`, and what it needs; can be given more than once")
	flags.BoolVar(&list, "list", false, "print the names of all checks and what they are about")
	flags.DurationVar(&o.Patience, "timeout", 10*time.Second, "`TIME` for each answer")
	return cmd
}

// checkZygote prints results as TAP, version 13.
func checkZygote(out io.Writer, o conformance.Options, only []string) error {
	fmt.Fprintln(out, "TAP version 13")
	n, bad := 0, 0
	_, err := conformance.Run(o, only, func(r conformance.Result) {
		n++
		switch r.Outcome {
		case conformance.Passed:
			fmt.Fprintf(out, "ok %d - %s: %s\n", n, r.Check, r.Duty)
		case conformance.NotRun:
			fmt.Fprintf(out, "ok %d - %s # SKIP %s\n", n, r.Check, r.Why)
		case conformance.Failed:
			bad++
			fmt.Fprintf(out, "not ok %d - %s: %s\n# %s\n", n, r.Check, r.Duty, r.Why)
			for line := range strings.Lines(r.Output) {
				fmt.Fprintf(out, "#   it wrote: %s\n", strings.TrimSuffix(line, "\n"))
			}
		}
	})
	if err != nil {
		return exit.Failed("check the zygote: %v", err)
	}
	fmt.Fprintf(out, "1..%d\n", n)
	if bad > 0 {
		return exit.Failed("%d of %d checks failed; prefork-zygote(7) has the duties", bad, n)
	}
	return nil
}
