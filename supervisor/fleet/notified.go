// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// notified takes what a slot's process says of itself, with systemd's meaning
// (sd_notify(3)). A process that has not been told what to become says nothing.
func (s *slot) notified(now policy.Instant, ev Notified) {
	if !s.assigned || s.sweeping {
		return
	}
	if ev.HasStatus {
		s.status = ev.Status
	}
	if ev.Errno != "" {
		s.errno = ev.Errno
	}
	if ev.Cause != "" {
		s.lament = ev.Cause
	}
	if ev.Interval > 0 {
		s.watchdog = ev.Interval
		s.beats(now)
	}
	if ev.Ready {
		s.saysReady(now)
	}
	if ev.Reloading {
		s.reloads(now)
	}
	if ev.Watchdog {
		s.beats(now)
	}
	if ev.Stopping && s.state == StateReady {
		s.stopsItself(now)
	}
	if ev.HasLag {
		s.lag = ev.Lag
	}
	if ev.Extend > 0 {
		s.extend(now, ev.Extend) // of the state that it has just announced
	}
	if ev.Recycle != "" {
		s.asks(now, ev.Recycle)
	}
	if ev.Trigger && (s.state == StateReady || s.state == StateStarting) {
		s.abort(now, "sent WATCHDOG=trigger")
	}
}

// saysReady ends a start or a reload. A process may say so before it is heard
// that it has left its gate.
func (s *slot) saysReady(now policy.Instant) {
	switch {
	case s.state == StateStarting && s.policy().Notify && !s.running:
		s.early = true
	case s.state == StateStarting && s.policy().Notify:
		s.becomeReady(now)
	case s.state == StateReady && s.reloading:
		s.reloading, s.deadline = false, policy.Never
		s.remark("", Info, "reloaded")
	}
}

// reloads limits how long a process that serves may reload. What it was told
// before still holds, so a reload that does not end is not a reason to kill it.
func (s *slot) reloads(now policy.Instant) {
	if s.state == StateReady && !s.reloading {
		s.reloading, s.deadline = true, now.Timeout(s.policy().TimeoutStart)
		s.remark("", Info, "reloads")
	}
}

func (s *slot) reloadTimeout() {
	s.reloading, s.deadline = false, policy.Never
	s.remark("", Warning, fmt.Sprintf("did not finish its reload within %s (timeout_start_sec); it is left as it is",
		policy.Span(s.policy().TimeoutStart)))
}

// beats takes a keep-alive: the next one is due within the interval.
func (s *slot) beats(now policy.Instant) {
	if s.state == StateReady {
		s.beatDue, s.forgiven = now.Timeout(s.watchdog), 0
	}
}

// extend moves the deadlines that the process is subject to, the watchdog's too,
// never to an earlier time and never one of a process that hung or has got SIGKILL. Where there
// is no deadline, max keeps it so.
func (s *slot) extend(now policy.Instant, by time.Duration) {
	if s.state != StateKilling && s.hung.next == 0 {
		s.deadline = max(s.deadline, now.Add(by))
		s.beatDue = max(s.beatDue, now.Add(by))
	}
}

// stopsItself waits for a process that said STOPPING=1 as for one that was asked
// to end, and sends it nothing.
func (s *slot) stopsItself(now policy.Instant) {
	s.thaw(now) // it said so before it was frozen
	s.enterStopping(now, KindSlotStops, Info, "stops by itself (STOPPING=1)")
}

// hang is why a process that hangs is ended, and by what, once its stacks have been taken.
type hang struct {
	next policy.Signal
	why  string
}

// stacksGrace is how long a process may take to write its stacks: it may have to wait for
// the processor.
const stacksGrace = time.Second

// abort ends a process that is stuck: SIGABRT, so that it can leave a core, and SIGKILL if
// that does not help.
func (s *slot) abort(now policy.Instant, why string) {
	s.thaw(now)
	s.result, s.hung = policy.Watchdog, hang{policy.SIGABRT, why + s.lastWords()}
	s.takeStacks(now, KindSlotWatchdog, Warning, s.watchdog)
}

func (s *slot) sendAbort(now policy.Instant) {
	why := s.hung.why
	s.hung = hang{}
	s.enterStopping(now, "", Debug, why+"; sent SIGABRT")
	s.fleet.signal(s.proc, policy.SIGABRT, s.signalsAll())
}

// takeStacks lets a process that hangs say where. What is next waits for that, but no
// longer than limit, which the process had to show that it does not hang.
func (s *slot) takeStacks(now policy.Instant, kind Kind, level Level, limit time.Duration) {
	grace := stacksGrace
	if limit > 0 {
		grace = min(grace, limit)
	}
	s.enter(now, StateStopping, now.Add(grace), kind, level, fmt.Sprintf("%s; its stacks are taken, %s follows", s.hung.why, s.hung.next))
	s.fleet.do(TakeStacks{s.proc})
}

// stacksTaken: it does not write them itself, and what the kernel knows has been told.
func (s *slot) stacksTaken(now policy.Instant) {
	if s.hung.next != 0 && s.state == StateStopping && !s.sweeping {
		s.deadline = now
	}
}

// lastWords is what a process last said of itself, for a line that says how it
// failed.
func (s *slot) lastWords() string {
	text := ""
	if s.status != "" {
		text += fmt.Sprintf("; its last status: %q", s.status)
	}
	if s.errno != "" {
		text += "; its error: " + s.errno
	}
	return text
}

// task is what a slot knows of one of the tasks of its process. The process decides, and
// tells: nothing follows from it but what is shown.
type task struct {
	name     string
	state    State
	since    policy.Instant // of state
	reason   string         // of state
	status   string         // what it says of itself
	result   policy.Result  // of its last end; "" before that
	failures int            // in a row
	due      policy.Instant // the next start
	restarts int            // in all, of all processes of the slot
	untold   bool           // its state was one change too many, and is not in STATUS
}

func newTasks(names []string) (all []task) {
	for _, name := range names {
		all = append(all, task{name: name, due: policy.Never})
	}
	return all
}

// forgetTasks makes the tasks those of a process that has said nothing of them.
func (s *slot) forgetTasks(now policy.Instant) {
	for i := range s.tasks {
		s.tasks[i] = task{name: s.tasks[i].name, restarts: s.tasks[i].restarts, since: now, due: policy.Never}
	}
}

// taskNamed is nil if the file has none of that name.
func (s *slot) taskNamed(name string) *task {
	i := slices.IndexFunc(s.tasks, func(t task) bool { return t.name == name })
	if i < 0 {
		return nil
	}
	return &s.tasks[i]
}

// taskSaid takes the state of a task. It may be said again, and then changes nothing but
// what the task says of itself.
func (s *slot) taskSaid(now policy.Instant, ev TaskSaid) {
	t := s.taskNamed(ev.Task)
	if t == nil || !s.assigned || s.sweeping {
		return
	}
	from, due := t.state, t.due
	t.status, t.due = ev.Status, policy.Never
	if ev.State == StateWaiting {
		t.due = ev.Next
	}
	if from == ev.State && due == t.due { // a wait for another time is another one
		return
	}
	t.state, t.since, t.reason, t.result, t.failures = ev.State, now, ev.Reason, ev.Result, ev.Failures
	r := Report{Level: Info, Task: t.name, Text: fmt.Sprintf("%s -> %s: %s", from, t.state, t.reason)}
	if t.due != policy.Never {
		r.Text += "; starts again " + in(t.due.Sub(now))
	}
	switch t.state {
	case StateWaiting:
		if from != StateWaiting || due == policy.Never {
			t.restarts++
		}
		r.Kind = KindTaskRestarts
		r.End = End{Result: t.result, Exit: policy.NoExit, Failures: t.failures, Delay: max(0, t.due.Sub(now))}
		if t.failures > 0 {
			r.Level = Warning
		}
	case StateReady:
		r.Kind = KindTaskReady
	case StateFailed:
		r.Kind, r.Level = KindTaskFailed, Err
		r.End = End{Result: t.result, Exit: policy.NoExit, Failures: t.failures}
	case StateExited:
		r.Kind = KindTaskExited
		r.End = End{Result: t.result, Exit: policy.NoExit, Failures: t.failures}
	case StateStarting, StateStopping, StateKilling, StateListening:
		r.Level = Debug
	}
	t.untold = !s.tellOfTask(now, r)
}

func (s *slot) taskFault(now policy.Instant, ev TaskFault) {
	if !s.assigned || s.sweeping || len(s.tasks) == 0 {
		return
	}
	r := Report{Level: Warning, Kind: KindTaskLate, Task: ev.Task, Text: ev.Reason, Code: ev.Code}
	if ev.Blocks {
		r.Level, r.Kind = Err, KindLoopBlocked
	}
	if s.taskNamed(ev.Task) == nil {
		r.Task, r.Text = "", ev.Task+" "+ev.Reason
	}
	s.tellOfTask(now, r)
}

// The changes of a slot's tasks that are told: so many at once, and then one more this
// often. A process says of its tasks what it likes.
const (
	maxTaskLines  = 200
	taskLineEvery = 100 * time.Millisecond
)

// taskLines bounds them.
type taskLines struct {
	left   int
	at     policy.Instant // of left
	untold int
}

// tellOfTask reports a change of a task, unless there were too many.
func (s *slot) tellOfTask(now policy.Instant, r Report) (told bool) {
	b := &s.lines
	if more := int(now.Sub(b.at) / taskLineEvery); more > 0 {
		b.left, b.at = min(maxTaskLines, b.left+more), now
	}
	if b.left == 0 {
		b.untold++
		return false
	}
	b.left--
	if n := b.untold; n > 0 {
		b.untold = 0
		s.fleet.do(Report{
			Level: Warning, Slot: s.name, PID: s.pid, Generation: s.generation,
			Text: fmt.Sprintf("%s of its tasks were too many, and not told", times(n, "change")),
		})
	}
	r.Slot, r.PID, r.Generation = s.name, s.pid, s.generation
	s.fleet.do(r)
	return true
}

// orderTask passes on what an operator wants of a task.
func (s *slot) orderTask(ev Operate, why string) (refusal string) {
	switch t := s.taskNamed(ev.Call.Task); {
	case !ev.Call.Name.TakesTask():
		return fmt.Sprintf("%s is for slots, not for one of their tasks", ev.Call.Name)
	case len(s.tasks) == 0:
		return s.name + " has no tasks"
	case t == nil:
		return fmt.Sprintf("%s has no task %s", s.name, ev.Call.Task)
	case !s.running || s.state != StateReady && s.state != StateStarting:
		return fmt.Sprintf("%s has no process that runs its tasks: it is %s", s.name, s.state)
	}
	s.fleet.do(OrderTask{ID: ev.ID, Proc: s.proc, Verb: ev.Call.Name, Task: ev.Call.Task, Why: why})
	return ""
}

// worstTask is the one that needs a look most; nil if none does.
func (s *slot) worstTask() (worst *task) {
	if s.state != StateReady {
		return nil // it is about the process
	}
	for i := range s.tasks {
		if t := &s.tasks[i]; !t.untold && t.trouble() > 0 && (worst == nil || t.trouble() > worst.trouble()) {
			worst = t
		}
	}
	return worst
}

// trouble orders tasks as that of slots does; it is below that of any slot.
func (t *task) trouble() time.Duration {
	switch {
	case t.state == StateFailed:
		return 3
	case t.state == StateWaiting && t.failures > 0:
		return 2
	case t.state == StateStarting && t.failures > 0:
		return 1
	default:
		return 0
	}
}

func (t *task) inStatus(now policy.Instant, slot string) string {
	name := slot + "/" + t.name
	switch t.state {
	case StateFailed:
		return fmt.Sprintf("%s failed (%s)", name, t.result)
	case StateWaiting:
		return fmt.Sprintf("%s restarts in %s (%s, %s in a row)", name, policy.Span(t.due.Sub(now)), t.result, ordinal(t.failures))
	default:
		return fmt.Sprintf("%s starting (attempt %d)", name, t.failures+1)
	}
}
