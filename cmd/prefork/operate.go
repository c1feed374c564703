// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/verb"
)

// whoMay is in the help of what changes a fleet.
const whoMay = `

Only root may change a fleet that systemd runs; one in a terminal, also the user
who runs it. No process of a fleet may.`

// itWaitsForSlots is in the help of what starts and stops.
const itWaitsForSlots = `

It waits until that is done, with a line for each slot, or, with --json, an object
for each. Ctrl-C ends the wait, and nothing else.

Exit status: 0 it is done; 1 it is not, such as of a slot that fails again; 78 the
fleet file cannot be used.`

func newStart() *cobra.Command {
	return operation("start", "Start a fleet, or slots of one that runs",
		`Start a fleet as systemctl start prefork@FLEET does, after systemd has read its
file again; or start slots that do not run: one that was stopped or gave up, or
waits for its restart or for other workers (after). WORKER.N/TASK is one of the tasks
of a slot. While a fleet takes its time, what it says of itself is printed.`+itWaitsForSlots,
		func(out io.Writer, fleet string, w wait) error {
			if path, err := reach.Means(fleet); err != nil {
				return err
			} else if fleetfile.IsPath(path) && reach.Runs(path) {
				return w.tellHow(out, path) // as systemctl start does of what runs
			}
			if err := reach.OnUnit(fleet, "start", w.teller(out), w.job(startUnit)); err != nil {
				return err
			}
			return w.tellHow(out, fleet)
		})
}

func startUnit(ctx context.Context, c *systemd.Conn, unit string, done chan<- string) error {
	if err := c.ReloadContext(ctx); err != nil { // the generator makes its sockets
		return err
	}
	_, err := c.StartUnitContext(ctx, unit, "replace", done)
	return err
}

func newStop() *cobra.Command {
	sockets := false
	cmd := operation("stop", "Stop a fleet, or slots of one that runs",
		`Stop a fleet as systemctl stop prefork@FLEET does, after its stop_delay_sec. It
leaves its sockets open: the next connection starts it again; with --sockets they
are closed, too. One that is run from a file is told to stop as by SIGTERM. Or stop
slots, until they are started.
The rest of the fleet goes on. WORKER.N/TASK is one of the tasks of a slot: it is
stopped until it is started, or its process is replaced.`+itWaitsForSlots,
		func(out io.Writer, fleet string, w wait) error {
			if path, err := reach.Means(fleet); err != nil {
				return err
			} else if fleetfile.IsPath(path) {
				return stopMaster(out, path, w)
			}
			open := ""
			err := reach.OnUnit(fleet, "stop", nil, w.job(func(ctx context.Context, c *systemd.Conn, unit string, done chan<- string) error {
				if sockets {
					if err := reach.StopSockets(ctx, c, unit, func(string) bool { return true }); err != nil {
						return err
					}
				}
				_, err := c.StopUnitContext(ctx, unit, "replace", done)
				if err == nil && !sockets {
					open = reach.OpenSockets(ctx, c, unit)
				}
				return err
			}))
			if err != nil {
				return err
			}
			if !w.not {
				err = w.tell(out, event{Event: "fleet", State: "inactive", Result: resultDone, Text: fleet + ": stopped"})
			}
			if err == nil && open != "" && !w.json {
				_, err = fmt.Fprintln(out, open) // the stop itself went well
			}
			return err
		})
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if sockets && len(args) > 1 {
			return exit.Misused("stop --sockets closes the sockets of a whole fleet: name no slots")
		}
		return nil
	}
	cmd.Flags().BoolVar(&sockets, "sockets", false, "close the sockets that systemd holds for the fleet, too")
	return cmd
}

func newReset() *cobra.Command {
	return operation("reset", "Forget the failures of slots",
		`Forget how often slots have failed. One that gave up (start_limit_burst), or that
waits for its restart, is started at once. Without a slot, all of the fleet.`, nil)
}

func newKill() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "kill FLEET WORKER[.N]...",
		Short: "Send a signal to the processes of slots",
		Long: `Send a signal to the main process of each slot. If the signal ends it, its
restart policy applies. As with kill(1), -HUP and -9 name one, too.` + whoMay,
		Example:           "  prefork kill --signal USR1 fleet web\n  prefork kill -HUP fleet web.0",
		Args:              fleetAnd("WORKER or WORKER.N", 1, 1000),
		ValidArgsFunction: completeSlots,
		RunE: func(_ *cobra.Command, args []string) error {
			signal, ok := fleetfile.ParseSignal(name)
			if !ok {
				return exit.Misused("--signal %q: must be a signal, such as TERM, SIGUSR1 or 10", name)
			}
			return operate(args[0], args[1:], verb.Call{Name: verb.Kill, Signal: int(signal)})
		},
	}
	cmd.Flags().StringVarP(&name, "signal", "s", "SIGTERM", "the `SIGNAL`, by name or number")
	_ = cmd.RegisterFlagCompletionFunc("signal", cobra.FixedCompletions(fleetfile.SignalNames(), cobra.ShellCompDirectiveNoFileComp)) // there is one
	return cmd
}

func newFreeze() *cobra.Command {
	return freezer("freeze", "Keep the processes of slots from running",
		`Freeze slots: none of their processes runs until they are thawed. Their watchdogs
and timeouts stand still meanwhile, and connections wait in their sockets. What
stops or restarts a slot thaws it first.

This needs control groups, which a fleet that systemd runs has. All of a fleet, with
its master, is frozen by systemctl freeze prefork@FLEET.`)
}

func newThaw() *cobra.Command {
	return freezer("thaw", "Let the processes of frozen slots run again",
		`Thaw slots: their watchdogs and timeouts are extended by the time that was lost.`)
}

// freezer is a command for slots that are named: all at once would be an accident.
func freezer(name, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:               name + " FLEET WORKER[.N]...",
		Short:             short,
		Long:              long + whoMay,
		Example:           fmt.Sprintf("  prefork %s fleet web.0", name),
		Args:              fleetAnd("WORKER or WORKER.N", 1, 1000),
		ValidArgsFunction: completeSlots,
		RunE: func(_ *cobra.Command, args []string) error {
			return operate(args[0], args[1:], verb.Call{Name: verb.Name(name)})
		},
	}
}

// operation is a command that does to slots what its name says and, without slots, to the
// fleet what whole does, if there is such a thing: then it waits until that is done.
func operation(name, short, long string, whole func(out io.Writer, fleet string, w wait) error) *cobra.Command {
	var w wait
	cmd := &cobra.Command{
		Use:               name + " FLEET [WORKER[.N]...]",
		Short:             short,
		Long:              long + whoMay,
		Example:           fmt.Sprintf("  prefork %s fleet\n  prefork %[1]s fleet web.0", name),
		Args:              fleetAnd("WORKER or WORKER.N", 0, 1000),
		ValidArgsFunction: completeSlots,
		RunE: func(cmd *cobra.Command, args []string) error {
			call := verb.Call{Name: verb.Name(name)}
			switch {
			case whole == nil:
				return operate(args[0], args[1:], call)
			case len(args) == 1:
				return whole(cmd.OutOrStdout(), args[0], w)
			default:
				return operateAndWait(cmd.OutOrStdout(), args[0], args[1:], call, w)
			}
		},
	}
	if whole != nil {
		w.flags(cmd)
	}
	return cmd
}

// operate does something to slots of a fleet that runs; to all, if none is named.
func operate(fleet string, names []string, call verb.Call) error {
	m, err := reach.Connect(fleet)
	if err != nil {
		return err
	}
	defer m.Close()
	slots, err := partsNamed(m, fleet, names, call)
	if err != nil {
		return err
	}
	return carryOutAll(m, fleet, slots, call)
}

func carryOutAll(m *reach.Master, fleet string, slots []string, call verb.Call) error {
	for _, slot := range slots {
		if err := carryOut(m, slot, call); err != nil {
			return refused(fleet, slot, err)
		}
	}
	return nil
}

// partsNamed are the slots and tasks that are meant, all of them before anything is done.
func partsNamed(m *reach.Master, fleet string, names []string, call verb.Call) ([]string, error) {
	if len(names) == 0 {
		return slotNames(m.Status), nil
	}
	var parts []string
	for _, name := range names {
		if isTask(name) {
			if !call.Name.TakesTask() {
				return nil, exit.Misused("%s is for workers and slots, not for one of their tasks (%s)", call.Name, name)
			}
			if _, _, err := taskNamed(fleet, name, m.Status); err != nil {
				return nil, err
			}
			parts = append(parts, name)
			continue
		}
		chosen, err := choose(fleet, name, slotNames(m.Status))
		if err != nil {
			return nil, err
		}
		parts = append(parts, chosen...)
	}
	named := map[string]bool{}
	return slices.DeleteFunc(parts, func(name string) bool { // what is named twice is meant once
		again := named[name]
		named[name] = true
		return again
	}), nil
}

// carryOut does something to a slot, or to one of its tasks ("io.0/poller").
func carryOut(m *reach.Master, name string, call verb.Call) error {
	slot, task, _ := strings.Cut(name, "/")
	call.Task = task
	ctx, cancel := context.WithTimeout(context.Background(), reach.AnswerTimeout)
	defer cancel()
	return m.Operate(ctx, slot, call)
}

// refused says why a slot was left as it is.
func refused(fleet, slot string, err error) error {
	e := dbus.Error{}
	switch {
	case errors.As(err, &e) && e.Name == "org.freedesktop.DBus.Error.AccessDenied":
		return exit.Failed("%s: %v: try sudo", slot, err)
	case errors.As(err, &e):
		return exit.Failed("%s: %v", slot, err)
	default:
		return reach.Explain(fleet, err)
	}
}
