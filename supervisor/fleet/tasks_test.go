// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

// taskSaid reads the name of a task, its state, result=, failures=, next= in so long, and
// the reason.
func (st *stage) taskSaid(proc Proc, words []string) Event {
	st.t.Helper()
	ev := TaskSaid{Proc: proc, Task: words[0], Next: policy.Never}
	for i, word := range words[1:] {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "result":
			ev.Result = policy.Result(value)
		case "failures":
			ev.Failures = st.number(value)
		case "next":
			ev.Next = st.now.Add(st.span(value))
		case "because":
			ev.Reason = strings.Join(words[i+2:], " ")
			return ev
		default:
			for n, name := range stateNames {
				if name == word {
					ev.State = State(n)
				}
			}
		}
	}
	return ev
}

func tasksWorker(names ...string) policy.Worker {
	w := entryWorker("w", 1)
	w.Tasks, w.Policy.Notify = names, true
	return w
}

// playTasks brings up one process with a task.
func playTasks(t *testing.T) (*player, Proc) {
	p := play(t, fleetOf(tasksWorker("t", "u")))
	p.loaded()
	p.forked()
	w := p.slot("w.0").proc
	p.send(Running{w}, Notified{Proc: w, Ready: true})
	p.wantState("w.0", StateReady)
	return p, w
}

// A process that says without end that its tasks change costs a line now and then.
func TestAFloodOfTaskWordsIsNotLogged(t *testing.T) {
	p, w := playTasks(t)
	status := 0
	lines := func(n int) (reports int) {
		for i := range n {
			p.send(TaskSaid{Proc: w, Task: "t", State: []State{StateReady, StateFailed, StateStarting}[i%3], Failures: i},
				TaskSaid{Proc: w, Task: "u", State: StateWaiting, Failures: i, Next: p.now.Add(time.Duration(i))},
				TaskFault{Proc: w, Task: "who", Reason: "is at fault"})
			reports += len(all[Report](p.got))
			status += len(all[Status](p.got))
		}
		return reports
	}
	if n := lines(10000); n > maxTaskLines+2 {
		t.Errorf("%d lines at once", n)
	}
	if status > maxTaskLines+2 {
		t.Errorf("the service manager was told %d times", status)
	}
	p.wait(10 * taskLineEvery)
	p.send(TaskSaid{Proc: w, Task: "t", State: StateFailed})
	told := all[Report](p.got)
	if len(told) != 2 || !strings.Contains(told[0].Text, "were too many, and not told") {
		t.Errorf("got %+v", told)
	}
	if n := lines(10000); n > 12 {
		t.Errorf("%d lines after a while", n)
	}
	if n := len(p.slot("w.0").tasks); n != 2 {
		t.Errorf("%d tasks are remembered", n)
	}
}

// Each change of a task is a line of its own kind, with how its last run ended.
func TestReportsOfTasks(t *testing.T) {
	p, w := playTasks(t)
	ended := func(r policy.Result, row int, delay time.Duration) End {
		return End{r, policy.NoExit, Usage{}, row, delay}
	}
	at := Code{"/app.py", 3, "f"}
	for _, c := range []struct {
		ev   Event
		want Report
	}{
		{TaskSaid{Task: "t", State: StateStarting, Reason: "due"}, Report{Level: Debug, Text: "waiting -> starting: due"}},
		{TaskSaid{Task: "t", State: StateReady, Reason: "running"}, Report{Level: Info, Kind: KindTaskReady, Text: "starting -> ready: running"}},
		{
			TaskSaid{Task: "t", State: StateWaiting, Result: policy.ExitCode, Failures: 2, Next: p.now.Add(2 * sec), Reason: "no"},
			Report{Level: Warning, Kind: KindTaskRestarts, Text: "ready -> waiting: no; starts again in 2s", End: ended(policy.ExitCode, 2, 2*sec)},
		},
		{
			TaskSaid{Task: "t", State: StateWaiting, Result: policy.Success, Next: p.now.Add(sec), Reason: "again"},
			Report{Level: Info, Kind: KindTaskRestarts, Text: "waiting -> waiting: again; starts again in 1s", End: ended(policy.Success, 0, sec)},
		},
		{
			TaskSaid{Task: "t", State: StateFailed, Result: policy.StartLimitHit, Failures: 3, Reason: "gave up"},
			Report{Level: Err, Kind: KindTaskFailed, Text: "waiting -> failed: gave up", End: ended(policy.StartLimitHit, 3, 0)},
		},
		{
			TaskSaid{Task: "t", State: StateExited, Result: policy.Success, Reason: "stop"},
			Report{Level: Info, Kind: KindTaskExited, Text: "failed -> exited: stop", End: ended(policy.Success, 0, 0)},
		},
		{TaskFault{Task: "t", Blocks: true, Reason: "blocks", Code: at}, Report{Level: Err, Kind: KindLoopBlocked, Text: "blocks", Code: at}},
		{TaskFault{Task: "t", Reason: "goes on", Code: at}, Report{Level: Warning, Kind: KindTaskLate, Text: "goes on", Code: at}},
	} {
		switch ev := c.ev.(type) {
		case TaskSaid:
			ev.Proc = w
			p.send(ev)
		case TaskFault:
			ev.Proc = w
			p.send(ev)
		}
		c.want.Slot, c.want.Task, c.want.PID, c.want.Generation = "w.0", "t", p.slot("w.0").pid, 1
		if got := all[Report](p.got); len(got) != 1 || got[0] != c.want {
			t.Errorf("got  %+v\nwant %+v", got, c.want)
		}
	}
}

// What an operator wants of a task is passed on to its process, or refused; the answer
// comes when the process has been told.
func TestTasksAreOrdered(t *testing.T) {
	p, w := playTasks(t)
	order := func(name verb.Name, slot, task string) Operate {
		return Operate{ID: 7, Slot: slot, Call: verb.Call{Name: name, Signal: 1, Task: task}, Who: "uid 0"}
	}
	for _, v := range []verb.Name{verb.Start, verb.Stop, verb.Restart} {
		p.send(order(v, "w.0", "t"))
		if len(p.got) != 1 || p.got[0] != (OrderTask{7, w, v, "t", string(v) + " by uid 0"}) {
			t.Errorf("%s: got %s", v, transcribe(p.got))
		}
	}
	p.send(TaskOrdered{7, "it does not read"})
	if got := all[Answer](p.got); len(got) != 1 || got[0].Refusal != "it does not read" || got[0].ID != 7 {
		t.Errorf("got %+v", got)
	}
	for want, ev := range map[string]Operate{
		"w.0 has no task x":              order(verb.Stop, "w.0", "x"),
		"there is no slot w.1":           order(verb.Stop, "w.1", "t"),
		"is for slots, not for one":      order(verb.Kill, "w.0", "t"),
		"freeze is for slots, not for o": order(verb.Freeze, "w.0", "t"),
	} {
		p.send(ev)
		if got := all[Answer](p.got); len(got) != 1 || !strings.Contains(got[0].Refusal, want) || len(all[OrderTask](p.got)) != 0 {
			t.Errorf("got %s, want %q", transcribe(p.got), want)
		}
	}
	p.exit("w.0", status1)
	p.send(order(verb.Start, "w.0", "t"))
	if got := all[Answer](p.got); len(got) != 1 || !strings.Contains(got[0].Refusal, "no process that runs its tasks") {
		t.Errorf("got %s", transcribe(p.got))
	}
}

// A successor's tasks have said nothing yet; how often each was restarted is kept.
func TestTasksOfASuccessorAreNew(t *testing.T) {
	p, w := playTasks(t)
	p.send(TaskSaid{Proc: w, Task: "t", State: StateReady},
		TaskSaid{Proc: w, Task: "t", State: StateWaiting, Result: policy.ExitCode, Failures: 3, Next: p.now.Add(sec), Reason: "x"})
	p.exit("w.0", status1)
	p.untilDue()
	p.forked()
	p.send(Inspect{})
	got := all[Show](p.got)[0].Snapshot.Slots[0].Tasks
	if len(got) != 2 || got[0] != (TaskSnapshot{Name: "t", Since: p.now, Due: policy.Never, Restarts: 1}) {
		t.Errorf("got %+v", got)
	}
}

// A successor with other tasks has those of its own file, and of each that was there before
// how often it was restarted.
func TestTasksOfARolledSlot(t *testing.T) {
	script, err := os.ReadFile("testdata/tasks-rolled.txt")
	if err != nil {
		t.Fatal(err)
	}
	st := &stage{t: t, cfg: policy.Config{TimeoutStart: 5 * time.Minute, Host: policy.Host{Seed: 1}}}
	for line := range strings.Lines(string(script)) {
		if line != "\n" && line[0] != '#' && line[0] != '\t' {
			st.line(strings.Fields(line))
		}
	}
	var told []string
	for _, task := range st.f.named("io.0").tasks {
		told = append(told, fmt.Sprint(task.name, " ", task.state, " ", task.restarts))
	}
	if got, want := strings.Join(told, ", "), "enrich ready 1, other failed 0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// policyStep is one run of a slot, and what the fleet decides when it has ended.
type policyStep struct {
	Now    int64         `json:"now"`    // when it started
	Ready  int64         `json:"ready"`  // for how long it was ready; negative: never
	Lived  int64         `json:"lived"`  // in all
	Result policy.Result `json:"result"` // how it ended
	Jitter int64         `json:"jitter"` // that was drawn
	State  string        `json:"state"`  // what has become of it
	Delay  int64         `json:"delay"`  // before the next start, if it waits
	Row    int           `json:"row"`    // failures
	Hit    bool          `json:"hit"`    // the start limit, at the next start
}

type policyCase struct {
	Policy map[string]any `json:"policy"`
	Steps  []policyStep   `json:"steps"`
}

// TestPolicyOfTasks plays slots and writes down what is decided. The program that runs
// tasks has the same table for its test (package zygote).
func TestPolicyOfTasks(t *testing.T) {
	const golden = "testdata/policy.json"
	var cases []policyCase
	for _, restart := range policy.Restarts {
		for _, c := range []struct {
			first, most, reset, period time.Duration
			burst                      int
		}{
			{sec, 30 * sec, -1, 0, 0},
			{200 * ms, sec, -1, 10 * sec, 3},
			{0, 0, 0, 0, 0},
			{10 * ms, 10 * ms, 5 * sec, 0, 0},
			{3 * sec, 20 * sec, policy.Forever, 20 * sec, 4},
			{sec, 60 * sec, -1, policy.Forever, 9},
		} {
			p := defaults()
			p.Restart, p.RestartSec, p.RestartMaxDelay, p.RestartReset = restart, c.first, c.most, c.reset
			p.StartLimitBurst, p.StartLimitPeriod = c.burst, c.period
			cases = append(cases, playPolicy(t, p))
		}
	}
	got, err := json.MarshalIndent(cases, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != string(got)+"\n" {
		t.Errorf("%s is not what is decided (%v): write it anew with -update", golden, err)
	}
}

func playPolicy(t *testing.T, told policy.Policy) policyCase {
	w := execWorker("w", 1)
	w.Policy = told
	w.Policy.Notify = true
	p := play(t, fleetOf(w))
	c := policyCase{Policy: map[string]any{
		"restart": told.Restart, "restart_sec": told.RestartSec, "restart_max_delay_sec": told.RestartMaxDelay,
		"restart_reset_sec": told.RestartReset, "start_limit_burst": told.StartLimitBurst, "start_limit_interval_sec": told.StartLimitPeriod,
	}}
	ready := []time.Duration{0, -1, ms, 0, 6 * sec, 31 * sec, 0, -1, 0, 0, 70 * sec, ms}
	for i := range 14 {
		s := p.slot("w.0")
		p.send(Introduced{s.proc, 100}, Running{s.proc})
		step := policyStep{Now: int64(s.startedAt), Ready: int64(ready[i%len(ready)]), Result: policy.ExitCode}
		lived := 10 * ms
		exit := policy.Exit{Code: 1}
		if step.Ready >= 0 {
			p.send(Notified{Proc: s.proc, Ready: true})
			lived = time.Duration(step.Ready)
			if i%5 == 3 {
				step.Result, exit = policy.Success, policy.Exit{}
			}
		}
		p.now = p.now.Add(lived)
		step.Lived = int64(lived)
		before := Fleet{random: p.f.random}
		p.exit("w.0", exit)
		step.State, step.Row = s.state.String(), s.failures
		if s.state == StateStarting { // it had to wait for nothing
			step.State = StateWaiting.String()
			c.Steps = append(c.Steps, step)
			continue
		}
		if s.state != StateWaiting {
			c.Steps = append(c.Steps, step)
			return c
		}
		step.Delay = int64(s.due.Sub(p.now))
		if p.f.random != before.random {
			step.Jitter = int64(before.jitter(s.lastDelay))
		}
		p.untilDue()
		step.Hit = s.state == StateFailed
		c.Steps = append(c.Steps, step)
		if step.Hit {
			return c
		}
	}
	return c
}
