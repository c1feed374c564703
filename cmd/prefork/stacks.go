// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/stacks"
	"github.com/decnet/prefork/supervisor/verb"
)

func newStacks() *cobra.Command {
	return &cobra.Command{
		Use:   "stacks FLEET [WORKER[.N]...]",
		Short: "Have slots write where they are, however they hang",
		Long: `Have slots write where they are; without a slot, all of the fleet. A worker that
is forked from a floor writes the Python stack of each of its threads to its own log,
and, if an event loop waits, where each asyncio task is. It goes on as before.

What is printed is the kernel's view of each thread: its state, where it sleeps, its
system call by number, and the stack in the kernel, for which one must be root. That is
all there is of a program. One that has been asked within a second is not asked again.

The watchdog (watchdog_sec) and a stop that takes too long (timeout_stop_sec) do the
same before they end a process.` + whoMay,
		Example:           "  prefork stacks fleet\n  prefork stacks fleet web.0",
		Args:              fleetAnd("WORKER or WORKER.N", 0, 1000),
		ValidArgsFunction: completeSlots,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := reach.Connect(args[0])
			if err != nil {
				return err
			}
			defer m.Close()
			return takeStacks(cmd.OutOrStdout(), m, args[1:])
		},
	}
}

// takeStacks asks slots, and prints what the kernel has of each. Of all of a fleet, those
// that have no process are not meant.
func takeStacks(out io.Writer, m *reach.Master, names []string) error {
	call := verb.Call{Name: verb.Stacks}
	chosen, err := partsNamed(m, m.Fleet, names, call)
	if err != nil {
		return err
	}
	of := map[string]*control.SlotStatus{}
	for i := range m.Status.Slots {
		of[m.Status.Slots[i].Name] = &m.Status.Slots[i]
	}
	for _, name := range chosen {
		slot := of[name]
		if len(names) == 0 && slot.MainPID == 0 {
			continue
		}
		lines := whereItIs(m.Fleet, slot) // before the signal: to write is to run
		if err := carryOut(m, name, call); err != nil {
			return refused(m.Fleet, name, err)
		}
		if _, err := io.WriteString(out, lines); err != nil {
			return err
		}
	}
	return nil
}

func whereItIs(fleet string, slot *control.SlotStatus) string {
	if slot.MainPID == 0 {
		return "" // if it has one since, its log will tell
	}
	lines := fmt.Sprintf("%s (pid %d)", slot.Name, slot.MainPID)
	switch {
	case slot.Generation == 0:
		lines += ":\n"
	case fleetfile.IsPath(fleet):
		lines += " writes its stacks to where its fleet logs:\n"
	default:
		lines += fmt.Sprintf(" writes its stacks to its log, prefork logs %s %s:\n", fleet, slot.Name)
	}
	where, err := stacks.Of(int(slot.MainPID))
	for _, line := range where.Lines() {
		lines += "  " + line + "\n"
	}
	if err != nil {
		lines += fmt.Sprintf("  the kernel's view of it: %v\n", err)
	}
	return lines
}
