// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/poll"
)

// queue has who waits for the loop. Those who look get one answer together, those who want
// something to be done each their own. It is bounded by the clients, of whom the servers
// admit only so many.
type queue struct {
	wake *poll.Wake

	mu      sync.Mutex
	looking []chan *Snapshot      // each has room for the answer
	asking  []*operation          // not heard by the loop yet
	heard   map[uint64]*operation // not answered yet
	last    uint64
	ended   bool
}

// operation is one that the loop is asked for.
type operation struct {
	id     uint64
	event  fleet.Event
	answer chan answer // has room for it
}

// answer is what becomes of one: err says why it was not done.
type answer struct {
	fleet.Answer
	err error
}

// numbered is the event with the number by which it is answered.
func (op *operation) numbered() fleet.Event {
	switch ev := op.event.(type) {
	case fleet.Operate:
		ev.ID = op.id
		return ev
	case fleet.Cancel:
		ev.ID = op.id
		return ev
	case fleet.Examine:
		ev.ID = op.id
		return ev
	case Proposal:
		ev.ID = op.id
		return ev
	default:
		panic(fmt.Sprintf("bridge: %T is not answered", ev))
	}
}

// answerTimeout is how long a client waits for the loop.
const answerTimeout = 5 * time.Second

var (
	errEnded = errors.New("the fleet has ended")
	errBusy  = fmt.Errorf("the master did not answer within %s: it is stuck, or stopped", answerTimeout)
)

// look blocks until the loop has had its turn.
func (q *queue) look() (*Snapshot, error) {
	answer := make(chan *Snapshot, 1)
	q.mu.Lock()
	q.looking = append(q.looking, answer)
	if q.ended {
		answer <- nil
	}
	q.mu.Unlock()
	q.wake.Up()
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	select {
	case s := <-answer:
		if s == nil {
			return nil, errEnded
		}
		return s, nil
	case <-timer.C:
		return nil, errBusy
	}
}

// ask blocks until the loop has answered; a refusal is an error.
func (q *queue) ask(event fleet.Event) (fleet.Answer, error) {
	op := &operation{event: event, answer: make(chan answer, 1)}
	q.mu.Lock()
	q.last++
	op.id = q.last
	q.asking = append(q.asking, op)
	if q.ended {
		op.answer <- answer{err: errEnded}
	}
	q.mu.Unlock()
	q.wake.Up()
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	select {
	case a := <-op.answer:
		return a.Answer, a.err
	case <-timer.C:
		return fleet.Answer{}, q.giveUp(op)
	}
}

// giveUp takes back what the loop has not heard.
func (q *queue) giveUp(op *operation) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.asking, op); i >= 0 {
		q.asking = slices.Delete(q.asking, i, i+1)
		return fmt.Errorf("%w; nothing was done", errBusy)
	}
	delete(q.heard, op.id)
	return errBusy
}

// take is what has been asked for.
func (q *queue) take() (events []fleet.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, op := range q.asking {
		q.heard[op.id] = op
		events = append(events, op.numbered())
	}
	q.asking = nil
	if len(q.looking) > 0 {
		events = append(events, fleet.Inspect{})
	}
	return events
}

func (q *queue) answer(a fleet.Answer) {
	var err error
	if a.Refusal != "" {
		err = errors.New(a.Refusal)
	}
	q.tell(a.ID, answer{a, err})
}

func (q *queue) reject(id uint64, err error) { q.tell(id, answer{err: err}) }

func (q *queue) tell(id uint64, a answer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if op := q.heard[id]; op != nil {
		op.answer <- a
		delete(q.heard, id)
	}
}

// show answers all who look.
func (q *queue) show(s *Snapshot) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, answer := range q.looking {
		answer <- s
	}
	q.looking = nil
}

// end tells all who wait, and who will ask, that there is nothing to wait for.
func (q *queue) end() {
	q.show(nil)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	for _, op := range slices.AppendSeq(q.asking, maps.Values(q.heard)) {
		op.answer <- answer{err: errEnded}
	}
	q.asking, q.heard = nil, nil
}
