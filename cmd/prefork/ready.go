// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/policy"
)

// readyWait is how a command waits until a fleet is ready.
type readyWait struct {
	on      bool
	timeout string
	workers []string
	least   uint32
}

func (w *readyWait) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.on, "wait-ready", false, "wait until the fleet is ready")
	cmd.Flags().StringVar(&w.timeout, "timeout", "", "wait for this `DURATION` at most, such as 30s or 2min")
	cmd.Flags().StringArrayVar(&w.workers, "worker", nil, "wait for the worker `NAME`, whatever the file needs")
	cmd.Flags().Uint32Var(&w.least, "min", 1, "wait for `N` ready slots of each worker")
	_ = cmd.RegisterFlagCompletionFunc("worker", completeWorkers) // there is such a flag
}

// completeWorkers completes the name of a worker of the fleet that is named already, if it
// runs.
func completeWorkers(_ *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if f, err := reach.Look(args[0]); err == nil {
		for i := range f.Workers {
			names = append(names, f.Workers[i].Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// check reads the flags.
func (w *readyWait) check(cmd *cobra.Command, fleets int) (timeout time.Duration, err error) {
	for _, name := range []string{"timeout", "worker", "min"} {
		if !w.on && cmd.Flags().Changed(name) {
			return 0, exit.Misused("--%s is for --wait-ready", name)
		}
	}
	switch {
	case w.on && fleets == 0:
		return 0, exit.Misused("--wait-ready waits for one fleet: name it")
	case w.least < 1 || w.least > policy.MaxSlots:
		return 0, exit.Misused("--min must be from 1 to %d", policy.MaxSlots)
	}
	return span("--timeout", w.timeout)
}

// wait returns the fleet when it is ready. It looks whenever the master says that something
// has changed, and fails when the fleet ends, or stops, or its time is over; 0 is no limit.
func (w *readyWait) wait(fleet string, timeout time.Duration) (*control.Status, error) {
	interrupted, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	late := interrupted
	if timeout > 0 {
		var over context.CancelFunc
		late, over = context.WithTimeout(interrupted, timeout)
		defer over()
	}
	m, err := w.connect(late, fleet)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(context.Background(), reach.AnswerTimeout)
	defer cancel()
	news, err := m.Changes(ctx)
	if err != nil {
		return nil, reach.Explain(fleet, err)
	}
	for {
		gone := m.LookAgain()
		ready, why, err := w.ready(m.Status)
		switch {
		case err != nil:
			return nil, err
		case m.Status.ActiveState == "deactivating":
			return nil, exit.Failed("fleet %s stops: %s", fleet, why)
		case gone != nil && reach.Runs(fleet):
			return nil, gone
		case gone != nil: // the last that was seen says more
			return nil, exit.Failed("fleet %s has ended before it was ready: %s", fleet, why)
		case ready:
			return m.Status, nil
		}
		select {
		case <-news: // it is closed when the master ends: the next look fails
		case <-late.Done():
			if interrupted.Err() != nil {
				return nil, exit.Failed("fleet %s is not ready yet: %s", fleet, why)
			}
			return nil, exit.Failed("fleet %s is not ready after %s: %s", fleet, policy.Span(timeout), why)
		}
	}
}

// connect waits for a fleet that does not run yet, if there is a limit to that.
func (w *readyWait) connect(late context.Context, fleet string) (*reach.Master, error) {
	if w.timeout == "" {
		return reach.Connect(fleet)
	}
	return reach.Await(late, fleet)
}

// ready says whether the fleet has what is waited for, and how it is.
func (w *readyWait) ready(f *control.Status) (ready bool, why string, err error) {
	wants := control.Wants(f, w.least)
	if len(w.workers) > 0 {
		wants = nil
	}
	for _, name := range w.workers {
		if no := control.NoWorker(f, name); no != "" {
			return false, "", exit.Failed("fleet %s: %s", f.Name, no)
		}
		wants = append(wants, control.Want{Worker: name, Min: w.least})
	}
	ready, why = control.Readiness(f, wants)
	return ready, why, nil
}
