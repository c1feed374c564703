// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

func newLogs() *cobra.Command {
	var w events
	cmd := &cobra.Command{
		Use:   "logs FLEET [WORKER[.N]]",
		Short: "Show what a fleet, a worker or a slot has said, and what happened to it",
		Long: `Show the journal of a fleet that systemd runs, by journalctl: all of it, or what
the processes of one worker or slot have said, with the master's words about them.

A fleet that is run from a file logs to its own terminal, and so do its processes;
of that one, the last events of its slots are shown, as its master remembers them.

With --json, an object for each entry: journalctl's (--output=json), or, of a fleet
that is run from a file, its timestamp, in microseconds, slot and text.`,
		Example:           "  prefork logs fleet\n  prefork logs -f fleet web\n  prefork logs fleet web.0",
		Args:              fleetAnd("WORKER or WORKER.N, if you like", 0, 1),
		ValidArgsFunction: completeSlots,
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := reach.Means(args[0])
			if err != nil {
				return err
			}
			if fleetfile.IsPath(fleet) {
				w.out = cmd.OutOrStdout()
				return w.ofFile(fleet, args[1:])
			}
			if err := reach.Known(fleet); err != nil {
				return err
			}
			options := []string{"--lines=" + strconv.Itoa(w.lines)}
			if w.follow {
				options = append(options, "--follow")
			}
			if w.json {
				options = append(options, "--output=json")
			}
			if namespace := reach.LogNamespace(fleet); namespace != "" {
				options = append(options, "--namespace="+namespace)
			}
			matches := []string{"--unit=" + reach.Unit(fleet)}
			if len(args) == 2 {
				slots, err := slotsNamed(fleet, args[1])
				if err != nil {
					return err
				}
				matches = aboutSlots(fleet, slots)
			}
			return journalctl(append(options, matches...))
		},
	}
	cmd.Flags().BoolVarP(&w.follow, "follow", "f", false, "keep printing new entries")
	cmd.Flags().IntVarP(&w.lines, "lines", "n", 100, "show the last `LINES` entries")
	cmd.Flags().BoolVar(&w.json, "json", false, "print JSON, an object for each entry")
	return cmd
}

// aboutSlots matches what slots have said, and what their master has said of them.
// Only processes of the unit are believed.
func aboutSlots(fleet string, slots []string) []string {
	unit := "_SYSTEMD_UNIT=" + reach.Unit(fleet)
	said, about := []string{unit}, []string{unit, "SYSLOG_IDENTIFIER=prefork"}
	for _, s := range slots {
		said, about = append(said, "SYSLOG_IDENTIFIER="+s), append(about, "PREFORK_SLOT="+s)
	}
	return slices.Concat(said, []string{"+"}, about)
}

// journalctl becomes journalctl. It returns only if it cannot.
func journalctl(args []string) error {
	path, err := exec.LookPath("journalctl")
	if err == nil {
		err = syscall.Exec(path, append([]string{"journalctl"}, args...), os.Environ())
	}
	return exit.Failed("journalctl, which has the logs of fleets that systemd runs: %v", err)
}

// happening is an event of a slot, as --json prints it.
type happening struct {
	Timestamp uint64 `json:"timestamp"` // microseconds since 1970
	Slot      string `json:"slot"`
	Text      string `json:"text"`
}

// events are how those are printed that a master remembers.
type events struct {
	out          io.Writer
	json, follow bool
	lines        int // so many of the last
}

// ofFile prints what there is of a fleet that is run from a file.
func (w *events) ofFile(fleet string, names []string) error {
	m, err := reach.Connect(fleet)
	if err != nil {
		return err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(context.Background(), reach.AnswerTimeout)
	defer cancel()
	news, err := m.Changes(ctx) // from before the first look
	if err != nil {
		return reach.Explain(fleet, err)
	}
	chosen := func() ([]string, error) {
		if len(names) == 0 {
			return slotNames(m.Status), nil
		}
		return choose(fleet, names[0], slotNames(m.Status))
	}
	slots, err := chosen()
	if err != nil {
		return err
	}
	if !w.json {
		fmt.Fprintln(os.Stderr, "prefork: these are the events of slots; what the processes print is where the fleet was started")
	}
	seen, err := remembered(m, slots)
	if err != nil {
		return err
	}
	if err := w.print(seen[max(0, len(seen)-max(0, w.lines)):]); err != nil || !w.follow {
		return err
	}
	for range news {
		if m.LookAgain() != nil {
			break // it has ended, which the next word of the connection would say
		}
		if slots, err = chosen(); err != nil {
			return err
		}
		now, err := remembered(m, slots)
		if err != nil {
			break
		}
		fresh := slices.DeleteFunc(slices.Clone(now), func(h happening) bool { return slices.Contains(seen, h) })
		if err := w.print(fresh); err != nil {
			return err
		}
		seen = now
	}
	return nil
}

// remembered are the events of slots, or tasks, that their master remembers, the oldest first.
func remembered(m *reach.Master, slots []string) (all []happening, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), reach.AnswerTimeout)
	defer cancel()
	for _, slot := range slots {
		happened, err := m.History(ctx, slot)
		if err != nil {
			return nil, reach.Explain(m.Fleet, err)
		}
		for _, h := range happened {
			all = append(all, happening{h.Timestamp, slot, h.Text})
		}
	}
	slices.SortStableFunc(all, func(a, b happening) int { return cmp.Compare(a.Timestamp, b.Timestamp) })
	return all, nil
}

func (w *events) print(all []happening) error {
	lines := &strings.Builder{}
	encoder := json.NewEncoder(lines)
	encoder.SetEscapeHTML(false)
	for _, h := range all {
		if w.json {
			if err := encoder.Encode(h); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(lines, "%s %s: %s\n", time.UnixMicro(int64(h.Timestamp)).Format(time.Stamp), h.Slot, h.Text)
	}
	_, err := io.WriteString(w.out, lines.String())
	return err
}

// lastEvents prints what the master remembers of slots, the oldest first.
func lastEvents(out io.Writer, m *reach.Master, slots []string) error {
	all, err := remembered(m, slots)
	if err != nil {
		return err
	}
	return (&events{out: out}).print(all)
}
