// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/revisions"
)

// Proposal is a change that somebody wants, with what was read for it: nil if it is of the
// fleet as it is.
type Proposal struct {
	fleet.Propose
	Draft *revisions.Draft
}

// Reload implements [control.Backend]. The file is read here: who asks for it waits for the
// file system, and nobody else.
func (c *clients) Reload(by control.Caller) (uint64, error) { return c.reload(who(by)) }

func (c *clients) reload(who string) (uint64, error) {
	draft, err := c.read()
	if err != nil {
		return 0, err
	}
	a, err := c.queue.ask(Proposal{fleet.Propose{Kind: fleet.ChangeReload, Reloads: true, Who: who}, draft})
	return uint64(a.Change), err
}

// read reads the file for one who asks at a time: a file system that does not answer holds
// up no more than that one. A file without workers would be the end of the fleet. It is
// what a program that writes a file in place shows for a moment, so that end is for those
// who ask for it.
func (c *clients) read() (*revisions.Draft, error) {
	busy := time.NewTimer(answerTimeout)
	defer busy.Stop()
	select {
	case c.reading <- struct{}{}:
		defer func() { <-c.reading }()
	case <-busy.C:
		return nil, fmt.Errorf("%s is being read for somebody else, for longer than %s: does the file system answer?", c.file.Path, answerTimeout)
	}
	draft, err := revisions.Read(c.file, c.managed)
	if err != nil {
		return nil, &control.BadFile{Text: err.Error()}
	}
	if len(draft.File.Workers) == 0 {
		return nil, &control.BadFile{Text: fmt.Sprintf(
			"%s: there is no worker in it: is it being written, or masked? prefork stop %s ends the fleet", c.file.Path, c.file.Name)}
	}
	return draft, nil
}

// Plan implements [control.Backend].
func (c *clients) Plan(by control.Caller) ([]control.PlanStep, error) {
	draft, err := c.read()
	if err != nil {
		return nil, err
	}
	a, err := c.queue.ask(Proposal{fleet.Propose{Kind: fleet.ChangeReload, Dry: true, Who: who(by)}, draft})
	if err != nil {
		return nil, err
	}
	return stepsOf(a.Plan), nil
}

// stepsOf lists what a plan does. What is kept is not in it.
func stepsOf(plan *policy.Plan) []control.PlanStep {
	all := []control.PlanStep{}
	add := func(kind string, part policy.PartPlan, from, to int) {
		if part.Step != policy.Keep || from != to {
			all = append(all, control.PlanStep{
				Kind: kind, Name: part.Name, Step: part.Step.String(), Keys: append([]string{}, part.Keys...), From: uint32(from), To: uint32(to),
			})
		}
	}
	if len(plan.Keys) > 0 {
		add("fleet", policy.PartPlan{Step: policy.Update, Keys: plan.Keys}, 0, 0)
	}
	add("floor", plan.Floor, 0, 0)
	for _, s := range plan.Sockets {
		add("socket", s, 0, 0)
	}
	for _, w := range plan.Workers {
		add("worker", w.PartPlan, w.From, w.To)
	}
	if len(plan.Waits) > 0 {
		all = append(all, control.PlanStep{Kind: "fleet", Step: "wait", Keys: plan.Waits})
	}
	return all
}

// Restart implements [control.Backend].
func (c *clients) Restart(names []string, by control.Caller) (uint64, error) {
	p := Proposal{Propose: fleet.Propose{Kind: fleet.ChangeRestart, Fresh: len(names) == 0, Reloads: true, Who: who(by)}}
	var err error
	if p.Fresh {
		p.Draft, err = c.read()
	} else {
		p.Slots, err = c.slotsOf(names)
	}
	if err != nil {
		return 0, err
	}
	a, err := c.queue.ask(p)
	return uint64(a.Change), err
}

// Try implements [control.Backend].
func (c *clients) Try(by control.Caller) (uint64, error) {
	draft, err := c.read()
	if err != nil {
		return 0, err
	}
	a, err := c.queue.ask(Proposal{fleet.Propose{Kind: fleet.ChangeTrial, Fresh: true, Who: who(by)}, draft})
	return uint64(a.Change), err
}

// slotsOf are the slots that names of workers and slots mean.
func (c *clients) slotsOf(names []string) (slots []string, err error) {
	f, err := c.Look()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		found := false
		for _, s := range f.Slots {
			if s.Name == name || s.Worker == name {
				slots, found = append(slots, s.Name), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no worker or slot %s", name)
		}
	}
	return slots, nil
}

// Scale implements [control.Backend].
func (c *clients) Scale(worker string, count int, by control.Caller) (uint64, error) {
	a, err := c.queue.ask(Proposal{Propose: fleet.Propose{
		Kind: fleet.ChangeScale, Scale: &policy.Scale{Worker: worker, Count: count}, Who: who(by),
	}})
	return uint64(a.Change), err
}

// Cancel implements [control.Backend].
func (c *clients) Cancel(by control.Caller) error {
	_, err := c.queue.ask(fleet.Cancel{Who: who(by)})
	return err
}

// Probe implements [control.Backend]. It blocks until the floor has forked.
func (c *clients) Probe(generation int, by control.Caller) (uint32, error) {
	a, err := c.queue.ask(fleet.Examine{Generation: generation, Who: who(by)})
	return uint32(a.PID), err
}

func who(by control.Caller) string { return fmt.Sprintf("uid %d", by.UID) }

// Outcome implements [control.Backend].
func (c *clients) Outcome(id uint64) (control.Outcome, error) { return c.outcomes.of(id) }

// outcomes has what has become of the last changes.
type outcomes struct {
	mu    sync.Mutex
	fresh []fleet.Outcome // not to be told yet
	told  []fleet.Outcome // the oldest first
}

// maxOutcomes is how many are kept: who waits for one asks for it at once.
const maxOutcomes = 64

func (o *outcomes) add(out fleet.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fresh = append(o.fresh, out)
}

// tell reports whether there are new ones.
func (o *outcomes) tell() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	some := len(o.fresh) > 0
	o.told = append(o.told, o.fresh...)
	o.told, o.fresh = slices.Delete(o.told, 0, max(0, len(o.told)-maxOutcomes)), nil
	return some
}

// last is the latest that can be told; ok is false if there was none.
func (o *outcomes) last() (out fleet.Outcome, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.told) == 0 {
		return out, false
	}
	return o.told[len(o.told)-1], true
}

func (o *outcomes) of(id uint64) (control.Outcome, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, out := range o.told {
		if uint64(out.Change) == id {
			return control.Outcome{Result: out.Result, Text: out.Text}, nil
		}
	}
	if len(o.told) > 0 && uint64(o.told[0].Change) > id {
		return control.Outcome{}, errors.New("it ended too long ago: see the journal")
	}
	return control.Outcome{}, nil
}

// hangup reloads the fleet for signals: one reload at a time, and one more for all that
// have come meanwhile.
type hangup struct {
	mu             sync.Mutex
	running, again bool
}

func (h *hangup) come(reload func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.again = h.running; h.running {
		return
	}
	h.running = true
	go func() {
		for more := true; more; more = h.next() {
			reload()
		}
	}()
}

func (h *hangup) next() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running, h.again = h.again, false
	return h.running
}

// Hangup reloads the fleet because of SIGHUP. What is wrong with the file is in the log
// then.
func (b *Bridge) Hangup() {
	b.hangup.come(func() {
		if _, err := b.clients.reload("SIGHUP"); err != nil {
			for line := range strings.Lines(err.Error()) {
				b.log.Error("SIGHUP: " + strings.TrimSuffix(line, "\n") + "; nothing has changed")
			}
		}
	})
}

// Outcome keeps what has become of a change, to be told with the end of the turn.
func (b *Bridge) Outcome(out fleet.Outcome) { b.clients.outcomes.add(out) }

// LastOutcome is what has become of the last change; ok is false if there was none.
func (b *Bridge) LastOutcome() (out fleet.Outcome, ok bool) { return b.clients.outcomes.last() }

// Flush ends a turn.
func (b *Bridge) Flush() {
	if b.clients.outcomes.tell() {
		b.Changed()
	}
}
