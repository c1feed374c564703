// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/gauge"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/memory"
)

// watchEvery is how often prefork memory --watch measures.
const watchEvery = 2 * time.Second

func newMemory() *cobra.Command {
	v := &memoryView{}
	cmd := &cobra.Command{
		Use:   "memory FLEET [WORKER[.N]]",
		Short: "Tell what slots share with their floor, and what they have written",
		Long: `Tell what each slot still shares with the floor that it was forked from
(SHARED), what of the floor it has written since, and so has a copy of
(WRITTEN), and what it has where the floor had nothing (OWN); what it has mapped
from files (FILES), and what its control group is charged for, with all of its
processes (CHARGED). WRITTEN IN says in what kind of memory: heap is that of C's
malloc, arenas are Python's small objects, libraries the data of programs and
libraries, stacks, and other mappings. Spares are told too: they cost the same.
A slot whose floor has ended shares with others of its generation only (FORMER),
and what it has written of it cannot be told from its own.

With --why, also by what cause it was written: reference counts, inline caches
of code, type caches, contents, or nothing that lasts; how much of it is in
pages with no other cause (ALONE); which key of the fleet file would have left
it shared; and the modules whose objects they are. For this the floor forks a
process that lists its objects, runs none of your code, and ends; for a moment
it takes as much memory as the floor. It is for who may change the fleet, and
trace it (ptrace(2)).

It is measured by this command, of the main process of each slot; nothing is
stopped. Root sees all, others their own user's processes. Of what slots have of
their own, a profiler such as memray tells who has allocated it.

With --json, the same as one object, with --watch one in each line; the manual
describes the fields. With --plot, as a picture, too; with --watch, it is drawn
anew each time, also with what the fleet had over time, beside what separate
processes would have: the floor's anonymous memory each, and their own.

Exit status: 0 success, also when --watch is ended by a signal; 1 the fleet does
not run or does not answer, or what was asked for cannot be told.`,
		Example: "  prefork memory fleet\n  prefork memory fleet web.0 --why\n  prefork memory fleet --watch --plot memory.svg",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > 2 {
				return exit.Misused("memory takes a FLEET, and a WORKER or WORKER.N if you like: prefork %s", cmd.Use)
			}
			return nil
		},
		ValidArgsFunction: completeSlots,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				v.name = args[1]
			}
			if ext := filepath.Ext(v.plot); v.plot != "" && ext != ".svg" && ext != ".png" {
				return exit.Misused("--plot %s: the name must end in .svg or .png", v.plot)
			}
			return v.run(cmd.OutOrStdout(), args[0])
		},
	}
	cmd.Flags().BoolVar(&v.why, "why", false, "tell by cause and module what was written")
	cmd.Flags().BoolVar(&v.json, "json", false, "print JSON")
	cmd.Flags().BoolVar(&v.watch, "watch", false, "measure every 2 seconds, until a signal")
	cmd.Flags().StringVar(&v.plot, "plot", "", "draw a picture into `FILE`, which ends in .svg or .png")
	if err := cmd.MarkFlagFilename("plot", "svg", "png"); err != nil {
		panic(err) // there is that flag
	}
	return cmd
}

// memoryView is how prefork memory tells what it has measured.
type memoryView struct {
	name      string // of a worker or a slot; "": all
	plot      string
	why, json bool
	watch     bool
}

func (v *memoryView) run(out io.Writer, fleet string) error {
	if !v.watch {
		before := memory.SinceBoot()
		m, err := reach.Connect(fleet)
		if err != nil {
			return err
		}
		defer m.Close()
		return v.once(out, m, before)
	}
	return v.follow(out, fleet)
}

// once measures and tells.
func (v *memoryView) once(out io.Writer, m *reach.Master, before time.Duration) error {
	plot, err := v.plotter()
	if err != nil {
		return err
	}
	defer plot.end()
	r, err := v.measure(m, before)
	if err != nil {
		return err
	}
	if err := v.tell(out, r); err != nil {
		return err
	}
	if err := plot.draw(r); err != nil {
		return err
	}
	return v.untold(r)
}

// maxLooks is how often the master is asked again because a process had just begun, or
// ended.
const maxLooks = 3

// measure tells the memory of the slots that are wanted; before is a time since boot at
// which the master was not yet asked.
func (v *memoryView) measure(m *reach.Master, before time.Duration) (*memory.Report, error) {
	for look := 1; ; look++ {
		q := gauge.Question{Fleet: m.Status, Before: before}
		if v.name != "" {
			var err error
			if q.Slots, err = choose(m.Fleet, v.name, slotNames(m.Status)); err != nil {
				return nil, err
			}
		}
		if v.why {
			q.Probe = func(generation uint32) (uint32, error) { return probeFloor(m, generation) }
		}
		r, young := gauge.Measure(q)
		if !young || look == maxLooks {
			return r, nil
		}
		before = memory.SinceBoot()
		if err := m.LookAgain(); err != nil {
			return nil, err
		}
	}
}

// probeFloor has the floor of a generation list its objects.
func probeFloor(m *reach.Master, generation uint32) (uint32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*reach.AnswerTimeout) // the floor forks meanwhile
	defer cancel()
	pid, err := m.Probe(ctx, generation)
	if said := (dbus.Error{}); errors.As(err, &said) {
		return 0, errors.New(said.Error())
	}
	return pid, err
}

// untold is an error if it was asked why, and it is told of no slot.
func (v *memoryView) untold(r *memory.Report) error {
	problem := ""
	for _, s := range r.Slots {
		switch {
		case s.Why == nil:
		case s.Why.Problem == "":
			return nil
		default:
			problem = s.Why.Problem
		}
	}
	if problem == "" {
		return nil
	}
	return exit.Failed("fleet %s: why slots have written is not told: %s", r.Fleet, problem)
}

// follow measures until a signal comes. The end of the master is an error.
func (v *memoryView) follow(out io.Writer, fleet string) error {
	interrupted, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	before := memory.SinceBoot()
	m, err := reach.Connect(fleet)
	if err != nil {
		return err
	}
	defer m.Close()
	plot, err := v.plotter()
	if err != nil {
		return err
	}
	defer plot.end()
	turn := time.NewTicker(watchEvery)
	defer turn.Stop()
	for first := true; ; first = false {
		if !first {
			before = memory.SinceBoot()
			if err := m.LookAgain(); err != nil {
				return err
			}
		}
		r, err := v.measure(m, before)
		if err != nil {
			return err
		}
		if err := v.tellAgain(out, r, first); err != nil {
			return err
		}
		if err := plot.draw(r); err != nil {
			return err
		}
		select {
		case <-turn.C:
		case <-interrupted.Done():
			return nil
		}
	}
}

func (v *memoryView) tell(out io.Writer, r *memory.Report) error {
	if v.json {
		return writeJSON(out, r)
	}
	return gauge.Write(out, r, widthOf(out))
}

// tellAgain tells in the place of what was told, in a terminal.
func (v *memoryView) tellAgain(out io.Writer, r *memory.Report, first bool) error {
	if v.json {
		return json.NewEncoder(out).Encode(r)
	}
	lead := ""
	switch {
	case isTerminal(out):
		lead = "\x1b[H\x1b[J" // to the upper left corner, and nothing is below
	case !first:
		lead = "\n"
	}
	b := bytes.NewBufferString(lead) // all of it is written at once
	if err := gauge.Write(b, r, widthOf(out)); err != nil {
		return err
	}
	_, err := out.Write(b.Bytes())
	return err
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// plot hands reports to the program that draws, which draws its file anew after each. A
// nil one draws nothing.
type plot struct {
	file   string
	cmd    *exec.Cmd
	to     io.WriteCloser
	answer *json.Decoder // "" after each report that was drawn, or what is wrong
}

// plotter starts that program, if a picture is wanted.
func (v *memoryView) plotter() (*plot, error) {
	if v.plot == "" {
		return nil, nil
	}
	view, err := findView("--plot")
	if err != nil {
		return nil, err
	}
	p := &plot{file: v.plot, cmd: exec.Command(view, "plot", v.plot)}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's signals are for this process
	if p.to, err = p.cmd.StdinPipe(); err != nil {
		return nil, exit.Failed("%v", err)
	}
	from, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, exit.Failed("%v", err)
	}
	p.answer = json.NewDecoder(from)
	if err := p.cmd.Start(); err != nil {
		return nil, exit.Failed("exec %s: %v", view, err)
	}
	return p, nil
}

// draw returns when the picture has the report in it.
func (p *plot) draw(r *memory.Report) error {
	if p == nil {
		return nil
	}
	wrong := ""
	err := json.NewEncoder(p.to).Encode(r)
	if err == nil {
		err = p.answer.Decode(&wrong)
	}
	switch {
	case err != nil:
		return exit.Failed("draw %s: %s: %v", p.file, viewName, err)
	case wrong != "":
		return exit.Failed("draw %s: %s", p.file, wrong)
	}
	return nil
}

// end waits for the program's end.
func (p *plot) end() {
	if p != nil {
		_ = p.to.Close()
		_ = p.cmd.Wait() // what was wrong has been told
	}
}
