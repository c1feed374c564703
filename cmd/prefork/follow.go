// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
)

// readTimeout is how long a master may take to read a fleet file and what it names, on
// whatever file system.
const readTimeout = 30 * time.Second

// wait is how a command waits for a change that it has asked for.
type wait struct{ json, not, quiet bool }

func (w *wait) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.json, "json", false, "print JSON, an object in each line")
	cmd.Flags().BoolVar(&w.not, "no-wait", false, "return as soon as it is accepted")
	cmd.Flags().BoolVarP(&w.quiet, "quiet", "q", false, "say only why it failed")
}

// change asks for a change of a fleet that runs, and tells how it goes until it has ended.
func change(out io.Writer, fleet string, w wait, ask func(*reach.Master, context.Context) (uint64, error)) error {
	m, err := reach.Connect(fleet)
	if err != nil {
		return err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	news, err := m.Changes(ctx) // from before it begins
	if err != nil {
		return reach.Explain(fleet, err)
	}
	id, err := ask(m, ctx)
	if err != nil {
		return notChanged(fleet, err)
	}
	f := &follower{Master: m, id: id, out: out, wait: w, seen: *m.Status}
	f.seen.Change = 0 // it may be one that is under way already
	if w.not {
		return f.tell(event{Event: "accepted", Text: fmt.Sprintf("change %d is accepted: prefork status %s tells how far it is", id, fleet)})
	}
	return f.follow(news)
}

// notChanged says why a change was not even begun.
func notChanged(fleet string, err error) error {
	if said := (*exit.Error)(nil); errors.As(err, &said) {
		return err
	}
	if bad := (*control.BadFile)(nil); errors.As(err, &bad) {
		return exit.Located(exit.Config, errors.New(bad.Text))
	}
	if e := (dbus.Error{}); errors.As(err, &e) {
		return refused(fleet, fleet, err)
	}
	if errors.Is(err, context.DeadlineExceeded) { // it has answered just before
		return exit.Failed("fleet %s: its master has not read its files within %s: does the file system answer?", fleet, readTimeout)
	}
	return reach.Explain(fleet, err)
}

// follower tells how a change goes.
type follower struct {
	*reach.Master
	wait
	id   uint64
	out  io.Writer
	seen control.Status // the fleet when it was told of last
}

// event is something that happens in a change, as --json prints it.
type event struct {
	Event  string `json:"event"`            // accepted, state, slot, fleet or ended
	Change uint64 `json:"change,omitempty"` // 0: it is none
	Slot   string `json:"slot,omitempty"`
	State  string `json:"state,omitempty"`   // of the change: loading, proving, rolling or returning
	PID    uint32 `json:"pid,omitempty"`     // of the slot's process now
	OldPID uint32 `json:"old_pid,omitempty"` // of the one before
	Result string `json:"result,omitempty"`  // done, failed, cancelled or superseded
	Text   string `json:"text"`
}

func (f *follower) tell(e event) error {
	e.Change = f.id
	return f.wait.tell(f.out, e)
}

// tell prints what happens, as far as that is wanted.
func (w wait) tell(out io.Writer, e event) error {
	if w.quiet {
		return nil
	}
	if w.json {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(e)
	}
	_, err := fmt.Fprintln(out, e.Text)
	return err
}

// follow waits for the end of the change. It looks whenever the master says that something
// has changed.
func (f *follower) follow(news <-chan struct{}) error {
	interrupted, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	for {
		outcome, err := f.look()
		switch {
		case err != nil:
			return err
		case outcome.Result != "":
			return f.ended(outcome)
		}
		select {
		case _, more := <-news:
			if !more {
				return f.lost()
			}
		case <-interrupted.Done():
			return exit.Failed("change %d of fleet %s goes on: prefork status %s tells how far it is, prefork cancel %s takes it back",
				f.id, f.Fleet, f.Fleet, f.Fleet)
		}
	}
}

// lost is for a connection that has ended.
func (f *follower) lost() error {
	if m, err := reach.Connect(f.Fleet); err == nil {
		defer m.Close()
		if m.Status.MainPID == f.seen.MainPID { // it had too many clients, for example
			return exit.Failed("fleet %s: the connection to its master has ended, change %d goes on: prefork status %s tells how far it is",
				f.Fleet, f.id, f.Fleet)
		}
	}
	return exit.Failed("fleet %s: its master has ended, and change %d with it: prefork status %s", f.Fleet, f.id, f.Fleet)
}

// look tells what has changed since the last look, and how the change is.
func (f *follower) look() (control.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), reach.AnswerTimeout)
	defer cancel()
	outcome, err := f.Outcome(ctx, f.id) // before the look, which then has all of it
	if err != nil {
		return outcome, reach.Explain(f.Fleet, err)
	}
	now, err := f.Look(ctx)
	if err != nil {
		return outcome, reach.Explain(f.Fleet, err)
	}
	for _, e := range progress(&f.seen, now, f.id) {
		if err := f.tell(e); err != nil {
			return outcome, err
		}
	}
	f.seen = *now
	return outcome, nil
}

// progress is what has happened between two looks.
func progress(was, is *control.Status, id uint64) (all []event) {
	if is.Change == id && is.ChangeState != "" && (was.Change != id || was.ChangeState != is.ChangeState) {
		all = append(all, event{Event: "state", State: is.ChangeState, Text: is.ChangeText})
	}
	before := map[string]control.SlotStatus{}
	for _, s := range was.Slots {
		before[s.Name] = s
	}
	for _, s := range is.Slots {
		old, known := before[s.Name]
		delete(before, s.Name)
		switch {
		case s.MainPID != 0 && s.MainPID != old.MainPID && old.MainPID != 0:
			all = append(all, event{Event: "slot", Slot: s.Name, PID: s.MainPID, OldPID: old.MainPID, Text: fmt.Sprintf("%s: %d -> %d", s.Name, old.MainPID, s.MainPID)})
		case s.MainPID != 0 && s.MainPID != old.MainPID && !known:
			all = append(all, event{Event: "slot", Slot: s.Name, PID: s.MainPID, Text: fmt.Sprintf("%s: added, %d", s.Name, s.MainPID)})
		case s.MainPID != 0 && s.MainPID != old.MainPID:
			all = append(all, event{Event: "slot", Slot: s.Name, PID: s.MainPID, Text: fmt.Sprintf("%s: %d", s.Name, s.MainPID)})
		}
	}
	for _, s := range was.Slots {
		if _, gone := before[s.Name]; gone {
			all = append(all, event{Event: "slot", Slot: s.Name, OldPID: s.MainPID, Text: s.Name + ": removed"})
		}
	}
	return all
}

// ended tells what has become of the change.
func (f *follower) ended(o control.Outcome) error {
	done := o.Result == control.ChangeDone
	if f.json || done {
		if err := f.tell(event{Event: "ended", Result: o.Result, Text: o.Result + ": " + o.Text}); err != nil {
			return err
		}
	}
	switch {
	case done:
		return nil
	case f.json && !f.quiet:
		return exit.Silent(exit.Failure)
	}
	return exit.Failed("%s, fleet %s is as it was: %s", o.Result, f.Fleet, o.Text)
}
