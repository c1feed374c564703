// SPDX-License-Identifier: AGPL-3.0-or-later

package slots

import (
	"math"
	"strconv"
	"time"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/policy"
)

// What a process says of its tasks, in one datagram. It is written by prefork_tasks/words.py
// of package zygote:
//
//	X_PREFORK_TASK=enrich            the task, by its name in the file
//	X_PREFORK_TASK_STATE=waiting     all of its state, whenever that has changed:
//	X_PREFORK_TASK_RESULT=exit-code  of its last end
//	X_PREFORK_TASK_FAILURES=2        in a row
//	X_PREFORK_TASK_NEXT_USEC=...     its next start, of CLOCK_MONOTONIC; 0 is none
//	X_PREFORK_TASK_REASON=...        one line
//	X_PREFORK_TASK_STATUS=...        what it says of itself, one line
//
// or, instead of a state, what is wrong with it, and where:
//
//	X_PREFORK_FAULT=BLOCKS           the loop, or LATE: goes on after its cancellation
//	X_PREFORK_TASK_REASON=...
//	X_PREFORK_CODE_FILE=, X_PREFORK_CODE_LINE=, X_PREFORK_CODE_FUNC=
//
// X_PREFORK_LOOP_LAG_USEC= comes with WATCHDOG=1: how late that was.

// saysOfTasks is what a datagram of the main process says of a task, nil if that is nothing.
func (s *Slot) saysOfTasks(d *sdnotify.Datagram) fleet.Event {
	if len(s.Config.Tasks) == 0 || d.Refused != nil || s.process == nil || d.PID != s.process.PID {
		return nil
	}
	m := map[string]string{}
	for _, a := range d.Message.Private {
		m[a.Name] = a.Value
	}
	task, reason := m["X_PREFORK_TASK"], m["X_PREFORK_TASK_REASON"]
	if task == "" {
		return nil
	}
	if fault := m["X_PREFORK_FAULT"]; fault != "" {
		return fleet.TaskFault{
			Proc: s.process.ID, Task: task, Blocks: fault == "BLOCKS", Reason: reason,
			Code: fleet.Code{File: m["X_PREFORK_CODE_FILE"], Line: number(m["X_PREFORK_CODE_LINE"]), Func: m["X_PREFORK_CODE_FUNC"]},
		}
	}
	state, ok := taskStates[m["X_PREFORK_TASK_STATE"]]
	if !ok {
		return nil
	}
	return fleet.TaskSaid{
		Proc: s.process.ID, Task: task, State: state, Failures: number(m["X_PREFORK_TASK_FAILURES"]), Next: instant(m["X_PREFORK_TASK_NEXT_USEC"]),
		Result: taskResult(m["X_PREFORK_TASK_RESULT"]), Reason: reason, Status: m["X_PREFORK_TASK_STATUS"],
	}
}

// taskStates are those that a task can have.
var taskStates = func() map[string]fleet.State {
	all := map[string]fleet.State{}
	for _, s := range []fleet.State{
		fleet.StateWaiting, fleet.StateStarting, fleet.StateReady, fleet.StateStopping, fleet.StateExited, fleet.StateFailed,
	} {
		all[s.String()] = s
	}
	return all
}()

// taskResult is a result that a task can have; what else it says is none.
func taskResult(said string) policy.Result {
	switch r := policy.Result(said); r {
	case policy.Success, policy.ExitCode, policy.Timeout, policy.StartLimitHit:
		return r
	}
	return ""
}

// number is 0 if it is none that could be.
func number(text string) int {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

func instant(usec string) policy.Instant {
	n, err := strconv.ParseUint(usec, 10, 63)
	if err != nil || n == 0 || n > math.MaxInt64/uint64(time.Microsecond) {
		return policy.Never
	}
	return policy.Instant(n * uint64(time.Microsecond))
}

// loopLag is how late the loop of the tasks was.
func loopLag(msg *sdnotify.Message) (lag time.Duration, said bool) {
	n, err := strconv.ParseUint(private(msg, "X_PREFORK_LOOP_LAG_USEC"), 10, 63)
	return time.Duration(min(n, math.MaxInt64/uint64(time.Microsecond))) * time.Microsecond, err == nil
}

// private is the first value of an assignment that is not of sd_notify(3), "" if there is none.
func private(msg *sdnotify.Message, name string) string {
	for _, a := range msg.Private {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}
