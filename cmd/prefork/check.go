// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/floorreport"
	"github.com/decnet/prefork/cmd/internal/lacks"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/sdnotify"
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
Nothing is started and nothing is changed. What is good may still not fit: of
users, groups, programs, directories and files that this machine lacks, and of a
socket that no worker has, there are warnings, which do not change the exit status.

With --json, the same as one object: file; good; errors, a list with line, key and
text; warnings, one with key and text; resolved, the text of a good file with every
default.

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
			fleet, err := reach.Means(args[0])
			if err != nil {
				return err
			}
			file, err := reach.File(fleet)
			if floor && imports {
				return exit.Misused("check: --floor and --import are two checks: give one of them")
			}
			if imports && asJSON {
				return exit.Misused("check: --json is not for --import, which prints a line for each callable")
			}
			if asJSON && !floor {
				return checkJSON(cmd.OutOrStdout(), fleet, file, err)
			}
			if err != nil {
				return err
			}
			if imports {
				return checkImports(cmd.OutOrStdout(), fleet, file)
			}
			if floor {
				return checkFloor(cmd.OutOrStdout(), fleet, file, asJSON)
			}
			for _, w := range warnings(fleet, file) {
				fmt.Fprintf(os.Stderr, "prefork: %s: warning: %s: %s\n", file.Path, w.Key, w.Text)
			}
			_, err = file.WriteTo(cmd.OutOrStdout())
			return err
		},
	}
	cmd.Flags().BoolVar(&floor, "floor", false, "load the floor, and report what would hurt")
	cmd.Flags().BoolVar(&imports, "import", false, "load the floor once, and look for every entry")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: of the file, or the whole report of --floor")
	return cmd
}

// checked is what prefork check --json prints of a file.
type checked struct {
	File     string          `json:"file"`
	Good     bool            `json:"good"`
	Errors   []fault         `json:"errors"`
	Warnings []lacks.Warning `json:"warnings"`
	Resolved string          `json:"resolved,omitempty"` // the file as it is understood, in TOML
}

// fault is one thing that is wrong with a fleet file.
type fault struct {
	Line int    `json:"line,omitempty"`
	Key  string `json:"key,omitempty"`
	Text string `json:"text"`
}

// checkJSON prints what is to be said of a file, which reach.File may have refused.
func checkJSON(out io.Writer, fleet string, file *fleetfile.File, refusal error) error {
	c := checked{File: fleet, Good: refusal == nil, Errors: []fault{}, Warnings: []lacks.Warning{}}
	if faults := fleetfile.Errors(nil); errors.As(refusal, &faults) {
		for _, e := range faults {
			c.Errors = append(c.Errors, fault{e.Line, e.Key, e.Text})
			c.File = cmp.Or(e.File, c.File)
		}
	} else if refusal != nil {
		return refusal
	}
	if c.Good {
		c.File = file.Path
		c.Warnings = append(c.Warnings, warnings(fleet, file)...)
		var text strings.Builder
		if _, err := file.WriteTo(&text); err != nil {
			return err
		}
		c.Resolved = text.String()
	}
	if err := writeJSON(out, c); err != nil || c.Good {
		return err
	}
	return exit.Silent(exit.Config)
}

// warnings are what may be wrong with a good file.
func warnings(fleet string, file *fleetfile.File) []lacks.Warning {
	return slices.Concat(lacks.Of(file), entriesNotPreloaded(fleet, file), counts(fleet, file))
}

// entriesNotPreloaded tells of entries whose module the floor does not have, as far as the file
// says: what is preloaded may import it, above all if it is of the same package.
func entriesNotPreloaded(fleet string, file *fleetfile.File) (all []lacks.Warning) {
	f := file.Floor
	if f == nil || f.Zygote != nil {
		return nil
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
			all = append(all, lacks.Warning{
				Key:  fmt.Sprintf("worker.%s.%s", w.Name, key),
				Text: fmt.Sprintf("%s is not in floor.preload: each worker imports it for itself%s; what it costs: prefork check --floor %s", module, unless, fleet),
			})
		}
	}
	return all
}

// counts are the counts that another process may find to be different.
func counts(fleet string, file *fleetfile.File) (all []lacks.Warning) {
	for _, w := range file.Workers {
		if w.CountFrom != "" && !fleetfile.IsPath(fleet) {
			all = append(all, lacks.Warning{
				Key: fmt.Sprintf("worker.%s.count", w.Name),
				Text: fmt.Sprintf("%d is what it is here (%s); prefork@%s.service may have other processors and variables",
					w.Count, w.CountFrom, file.Name),
			})
		}
	}
	for _, variable := range file.Strays {
		all = append(all, lacks.Warning{
			Key: variable, Text: fmt.Sprintf("this variable is for no worker of this fleet: it has %s", file.CountVariables()),
		})
	}
	return all
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
