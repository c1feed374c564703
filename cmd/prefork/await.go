// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/verb"
)

// The results of what is waited for, as --json has them.
const (
	resultDone   = "done"
	resultFailed = "failed"
)

// teller prints what a fleet says of itself while it is waited for, if that is wanted.
func (w wait) teller(out io.Writer) func(text string) {
	if w.quiet || w.not {
		return nil
	}
	return func(text string) { _ = w.tell(out, event{Event: "fleet", State: "activating", Text: text}) } // the end is what counts
}

// job is what is not waited for, with --no-wait.
func (w wait) job(do reach.Job) reach.Job {
	if !w.not {
		return do
	}
	return func(ctx context.Context, c *systemd.Conn, unit string, done chan<- string) error {
		unread := make(chan string, 1)
		if err := do(ctx, c, unit, unread); err != nil {
			return err
		}
		done <- reach.JobDone
		return nil
	}
}

// tellHow tells how a fleet is that has been started.
func (w wait) tellHow(out io.Writer, fleet string) error {
	if w.not || w.quiet {
		return nil
	}
	f, err := reach.Look(fleet)
	if err != nil {
		return nil // it has started, and has ended since, or is another user's
	}
	return w.tell(out, event{Event: "fleet", State: f.ActiveState, PID: f.MainPID, Result: resultDone, Text: f.Name + ": " + f.StatusText})
}

// part is a slot, or a task of one, as it was or is.
type part struct {
	task     bool
	state    string
	since    uint64
	reason   string
	failures uint32
	pid      uint32 // of the slot
	slotEnds bool   // there is no process, and there will be none, that runs the task
}

// partOf finds a part by its name; nil if there is none any more.
func partOf(f *control.Status, name string) *part {
	slot, task, ofTask := strings.Cut(name, "/")
	i := slices.IndexFunc(f.Slots, func(s control.SlotStatus) bool { return s.Name == slot })
	if i < 0 {
		return nil
	}
	s := &f.Slots[i]
	if !ofTask {
		return &part{false, s.State, s.StateTimestamp, s.Reason, s.Failures, s.MainPID, false}
	}
	for j := range s.Tasks {
		if t := &s.Tasks[j]; t.Name == task {
			return &part{true, t.State, t.StateTimestamp, t.Reason, t.Failures, s.MainPID, s.State == "exited" || s.State == "failed"}
		}
	}
	return nil
}

// outcome tells what has come of a verb, "" while that is open.
func (is *part) outcome(was *part, v verb.Name) (text string, failed bool) {
	ended := is.state == "exited" || is.state == "failed"
	before := was.failures
	if v == verb.Restart {
		before = 0 // they are forgotten
	}
	switch {
	case is.task && is.slotEnds && v != verb.Stop:
		return "its slot does not run", true
	case is.task && is.since == was.since && v != verb.Stop && (v != verb.Start || was.state != "ready"):
		return "", false // its process has not said yet
	case v == verb.Stop && (ended || is.slotEnds):
		return "stopped", false
	case v == verb.Stop && is.pid != 0 && was.pid != 0 && is.pid != was.pid:
		return "somebody has started it again", true
	case v == verb.Stop:
		return "", false
	case is.state == "failed", is.state == "waiting" && is.failures > before:
		return is.reason, true
	case is.state == "exited":
		return "finished", false
	case is.state == "listening":
		return "listens: a connection starts it", false
	case is.state != "ready":
		return "", false
	case is.task:
		return "ready", false
	case v == verb.Start || was.pid == 0:
		return fmt.Sprintf("ready, %d", is.pid), false
	case is.pid != was.pid:
		return fmt.Sprintf("%d -> %d", was.pid, is.pid), false
	}
	return "", false
}

// operateAndWait does something to slots or tasks of a fleet, and waits until it has come to
// be, or not.
func operateAndWait(out io.Writer, fleet string, names []string, call verb.Call, w wait) error {
	m, err := reach.Connect(fleet)
	if err != nil {
		return err
	}
	defer m.Close()
	open, err := partsNamed(m, fleet, names, call)
	if err != nil {
		return err
	}
	if w.not {
		return carryOutAll(m, fleet, open, call)
	}
	ctx, cancel := context.WithTimeout(context.Background(), reach.AnswerTimeout)
	defer cancel()
	news, err := m.Changes(ctx) // from before it is done
	if err != nil {
		return reach.Explain(fleet, err)
	}
	was := map[string]*part{}
	for _, name := range open {
		was[name] = partOf(m.Status, name)
	}
	if err := carryOutAll(m, fleet, open, call); err != nil {
		return err
	}
	interrupted, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	var faults []string
	silent, late := time.After(reach.AnswerTimeout), false
	for {
		if err := m.LookAgain(); err != nil {
			return err
		}
		var left []string
		for _, name := range open {
			is := partOf(m.Status, name)
			if is == nil {
				faults = append(faults, name+": is no part of the fleet any more")
				continue
			}
			text, failed := is.outcome(was[name], call.Name)
			if text == "" && late && is.task && is.since == was[name].since {
				text, failed = "its process has not obeyed: is its loop blocked?", true
			}
			if text == "" {
				left = append(left, name)
				continue
			}
			e := event{Event: "slot", Slot: name, State: is.state, PID: is.pid, Result: resultDone, Text: name + ": " + text}
			if failed {
				e.Result, faults = resultFailed, append(faults, e.Text)
			}
			if !failed || w.json {
				if err := w.tell(out, e); err != nil {
					return err
				}
			}
		}
		if open = left; len(open) == 0 {
			return w.end(faults)
		}
		select {
		case _, more := <-news:
			if !more {
				return exit.Failed("fleet %s: its master has ended meanwhile", fleet)
			}
		case <-silent:
			late = true
		case <-interrupted.Done():
			return exit.Failed("not waited for: %s; prefork status %s tells how far that is", listed(open), fleet)
		}
	}
}

// end tells what has not come to be.
func (w wait) end(faults []string) error {
	switch {
	case len(faults) == 0:
		return nil
	case w.json && !w.quiet:
		return exit.Silent(exit.Failure)
	}
	return exit.Failed("%s", strings.Join(faults, "\n"))
}

// stopMaster has the master of a fleet that is run from a file stop as it does by SIGTERM,
// and waits for its end. A second SIGTERM would be less patient: one that stops already is
// waited for.
func stopMaster(out io.Writer, fleet string, w wait) error {
	m, err := reach.Connect(fleet)
	if err != nil {
		return err
	}
	defer m.Close()
	if !m.FromFile() {
		return exit.Misused("stop: systemd runs fleet %s: prefork stop %[1]s", m.Status.Name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), reach.AnswerTimeout)
	defer cancel()
	master, err := m.Process(ctx)
	if err != nil {
		return exit.Failed("fleet %s: %v", fleet, err)
	}
	defer func() { _ = unix.Close(master) }() // of a process: nothing is lost
	if m.Status.ActiveState != "deactivating" {
		if err := unix.PidfdSendSignal(master, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return exit.Failed("fleet %s: SIGTERM to its master %d: %v: try sudo", fleet, m.Status.MainPID, err)
		}
	}
	if w.not {
		return nil
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(master), Events: unix.POLLIN}}, -1)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return exit.Failed("fleet %s: poll: %v", fleet, err)
		}
	}
	return w.tell(out, event{Event: "fleet", State: "inactive", Result: resultDone, Text: m.Status.Name + ": stopped"})
}
