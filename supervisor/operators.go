// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
)

// operators are the clients of the control socket. They ask from goroutines of
// their own, and the loop answers: all who want to see the fleet with one view a
// turn, each who wants to change it for itself.
type operators struct {
	wake      *poll.Wake
	slots     map[string]fleet.SlotID // never changed
	file      string                  // the absolute path of the fleet file
	master    int                     // pid
	managed   bool
	tree      *cgroup.Tree  // nil: there are no control groups
	measuring chan struct{} // has room for the one who does
	tidy      *time.Timer   // gives memory back when it fires

	mu      sync.Mutex
	looking []chan *sight         // each has room for the answer
	orders  []*operation          // not heard by the loop yet
	heard   map[uint64]*operation // not answered yet
	history map[string][]happening
	last    uint64
	ended   bool
}

// sight is what the loop shows to those who look. It is never changed.
type sight struct {
	fleet  *control.Fleet
	spawns fleet.Histogram
}

// happening is a line about a slot.
type happening struct {
	at   fleet.Instant
	text string
}

// mostHistory is how many lines about a slot are kept, for those who ask where
// there is no journal.
const mostHistory = 8

// operation is one that the loop is asked for.
type operation struct {
	event  fleet.Operate
	answer chan string // has room for it: why not, or ""
}

// answerTimeout is how long a client waits for the loop.
const answerTimeout = 5 * time.Second

const endedText = "the fleet has ended"

var errBusy = fmt.Errorf("the master did not answer within %s: it is stuck, or stopped", answerTimeout)

// Look implements [control.Backend]. It blocks until the loop has had its turn.
func (o *operators) Look() (*control.Fleet, error) {
	s, err := o.see()
	if err != nil {
		return nil, err
	}
	return s.fleet, nil
}

// see blocks until the loop has had its turn.
func (o *operators) see() (*sight, error) {
	answer := make(chan *sight, 1)
	o.mu.Lock()
	o.looking = append(o.looking, answer)
	if o.ended {
		answer <- nil
	}
	o.mu.Unlock()
	o.wake.Up()
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	select {
	case s := <-answer:
		if s == nil {
			return nil, errors.New(endedText)
		}
		return s, nil
	case <-timer.C:
		return nil, errBusy
	}
}

// History implements [control.Backend].
func (o *operators) History(slot string) []control.Happening {
	clock := clockNow()
	o.mu.Lock()
	defer o.mu.Unlock()
	all := []control.Happening{}
	for _, h := range o.history[slot] {
		all = append(all, control.Happening{Timestamp: clock.at(h.at), Text: h.text})
	}
	return all
}

// tidyAfter is how long nobody has looked before what that needed is given back.
const tidyAfter = 2 * time.Second

// Idle implements [control.Backend]. The runtime itself would keep for a long
// time what starting the fleet, or a look at it, has needed.
func (o *operators) Idle() { o.tidy.Reset(tidyAfter) }

func tidy() {
	debug.FreeOSMemory()
	_ = linux.ReleaseConstants() // it is memory only
}

// remember keeps a line about a slot.
func (o *operators) remember(now fleet.Instant, slot, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := o.history[slot]
	if len(lines) >= mostHistory {
		lines = slices.Delete(lines, 0, len(lines)-mostHistory+1)
	}
	o.history[slot] = append(lines, happening{now, text})
}

// MayChange implements [control.Backend]: changes are for root and, of a fleet
// that systemd does not run, for the user who runs it; never for a process of the
// fleet, which may have the same user.
func (o *operators) MayChange(c control.Caller) error {
	own := uint32(os.Geteuid())
	switch {
	case c.UID != 0 && o.managed:
		return errors.New("only root may change a fleet that systemd runs")
	case c.UID != 0 && c.UID != own:
		return fmt.Errorf("only root and uid %d may change this fleet", own)
	case c.PID == 0: // it is outside of this pid namespace, in which the fleet is
		return nil
	}
	below, err := linux.Descends(c.PID, o.master)
	hidden := err != nil && c.UID != own // what descends from here can be seen, or has this uid
	switch {
	case below:
		return errors.New("a process of the fleet may not change it")
	case err != nil && !hidden, c.PIDFD >= 0 && errors.Is(linux.PidfdSendSignal(c.PIDFD, 0), unix.ESRCH):
		return errors.New("the process that has connected has ended")
	}
	return nil
}

// Operate implements [control.Backend]. It blocks until the loop has answered.
func (o *operators) Operate(slot, verb string, signal int32, by control.Caller) error {
	id, ok := o.slots[slot]
	switch {
	case !ok:
		return fmt.Errorf("there is no slot %s", slot)
	case verb == string(fleet.VerbKill) && (signal < 1 || signal > 64):
		return fmt.Errorf("there is no signal %d", signal)
	}
	op := &operation{answer: make(chan string, 1)}
	op.event = fleet.Operate{Slot: id, Verb: fleet.Verb(verb), Signal: fleet.Signal(signal), Who: fmt.Sprintf("uid %d", by.UID)}
	o.mu.Lock()
	o.last++
	op.event.ID = o.last
	o.orders = append(o.orders, op)
	if o.ended {
		op.answer <- endedText
	}
	o.mu.Unlock()
	o.wake.Up()
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	select {
	case refusal := <-op.answer:
		if refusal != "" {
			return errors.New(refusal)
		}
		return nil
	case <-timer.C:
		return o.giveUp(op)
	}
}

// giveUp takes back what the loop has not heard.
func (o *operators) giveUp(op *operation) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i := slices.Index(o.orders, op); i >= 0 {
		o.orders = slices.Delete(o.orders, i, i+1)
		return fmt.Errorf("%w; nothing was done", errBusy)
	}
	delete(o.heard, op.event.ID)
	return errBusy
}

// asked is what clients have asked for.
func (o *operators) asked() (events []fleet.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, op := range o.orders {
		o.heard[op.event.ID] = op
		events = append(events, op.event)
	}
	o.orders = nil
	if len(o.looking) > 0 {
		events = append(events, fleet.Inspect{})
	}
	return events
}

func (o *operators) answer(id uint64, refusal string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if op := o.heard[id]; op != nil {
		op.answer <- refusal
		delete(o.heard, id)
	}
}

// show answers all who look.
func (o *operators) show(s *sight) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, answer := range o.looking {
		answer <- s
	}
	o.looking = nil
}

// end tells all who wait, and who will ask, that there is nothing to wait for.
func (o *operators) end() {
	o.show(nil)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for _, op := range slices.AppendSeq(o.orders, maps.Values(o.heard)) {
		op.answer <- endedText
	}
	o.orders, o.heard = nil, nil
}

// openControl offers the fleet on a socket in its runtime directory.
func (m *master) openControl() (err error) {
	m.operators = &operators{
		wake: m.poller.Wake(), slots: map[string]fleet.SlotID{}, heard: map[uint64]*operation{}, master: os.Getpid(), managed: m.manager.Managed(),
		history: map[string][]happening{}, tidy: time.AfterFunc(tidyAfter, tidy),
		tree: m.groups.Tree(), measuring: make(chan struct{}, 1),
	}
	if m.operators.file, err = filepath.Abs(m.file.Path); err != nil {
		return err
	}
	for _, s := range m.slots.All() {
		m.operators.slots[s.Name] = s.ID
	}
	m.control, err = control.Listen(m.runtime.Control(), m.operators)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if m.manager.Managed() {
		m.control.JoinBus(control.BusName(m.file.Name), func(err error) {
			m.log.Notice(fmt.Sprintf("not on the system bus: %v; %s works as always", err, m.runtime.Control()))
		})
	}
	return nil
}

// closeControl ends the clients, of whom some may wait for an answer.
func (m *master) closeControl() {
	if m.control != nil {
		m.operators.tidy.Stop()
		m.operators.end()
		m.control.Close()
	}
}

// shown is a view as clients get it.
func (m *master) shown(v fleet.View) *sight {
	m.clock.adjust(clockNow())
	f := &control.Fleet{
		Name: m.file.Name, File: m.operators.file, MainPID: uint32(os.Getpid()),
		ActiveState: v.State, StatusText: v.Status,
		Generation: uint32(v.Generation), Spares: uint32(v.Spares),
		NotificationsDropped: m.slots.Dropped(), Slots: make([]control.Slot, 0, len(v.Slots)),
	}
	if p := m.procs.Of(v.Floor); p != nil {
		f.FloorPID = uint32(p.PID)
	}
	for i := range v.Slots {
		f.Slots = append(f.Slots, m.shownSlot(&v.Slots[i]))
		f.NRestarts += f.Slots[i].NRestarts
	}
	return &sight{f, v.Spawns}
}

func (m *master) shownSlot(v *fleet.SlotView) control.Slot {
	s := control.Slot{
		Name: v.Name, Worker: v.Worker,
		State: v.State.String(), StateTimestamp: m.clock.at(v.Since), Reason: v.Why,
		MainPID: uint32(v.PID), Generation: uint32(v.Generation), Result: string(v.Result),
		Failures: uint32(v.Failures), NRestarts: uint32(v.Restarts), Restarts: map[string]uint64{},
		NextStartTimestamp: m.clock.at(v.Due), StatusText: v.Text, FreezerState: "running",
	}
	if v.Frozen {
		s.FreezerState = "frozen"
	}
	for result, n := range v.ByResult {
		s.Restarts[string(result)] = uint64(n)
	}
	if p := m.procs.Of(v.Proc); p != nil && p.Group != nil && v.PID != 0 {
		s.ControlGroup = p.Group.ControlGroup()
	}
	return s
}

// clock knows one moment on two clocks.
type clock struct {
	monotonic fleet.Instant
	real      time.Time
}

func clockNow() clock { return clock{poll.Now(), time.Now()} }

// adjust takes a new moment if the clocks have moved against each other: else one
// instant is the same time whenever it is looked at.
func (c *clock) adjust(now clock) {
	const most = 100 * time.Millisecond
	if drift := now.real.Sub(c.real.Add(now.monotonic.Sub(c.monotonic))); drift > most || drift < -most {
		*c = now
	}
}

// at is an instant in microseconds of CLOCK_REALTIME, 0 for one that never comes.
func (c clock) at(i fleet.Instant) uint64 {
	if i == fleet.Never {
		return 0
	}
	return uint64(c.real.Add(i.Sub(c.monotonic)).UnixMicro())
}
