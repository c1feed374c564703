// SPDX-License-Identifier: AGPL-3.0-or-later

package slots

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/policy"
)

// What a process says of its tasks is an event, whatever nonsense is in it: a name, a
// state and numbers are checked, and texts are one printable line.
func TestTaskWordsBecomeEvents(t *testing.T) {
	w := notifyMain()
	w.Tasks = []fleetfile.Task{{Name: "t"}}
	m := newWorld(t, w)
	said := func(state fleet.State) fleet.TaskSaid {
		return fleet.TaskSaid{Proc: 7, Task: "t", State: state, Next: policy.Never}
	}
	waiting := said(fleet.StateWaiting)
	waiting.Result, waiting.Failures, waiting.Next, waiting.Reason, waiting.Status = policy.ExitCode, 2, 5_000_000, "no [2J answer", "at work"
	long := said(fleet.StateReady)
	long.Reason = strings.Repeat("x", 512)
	for _, c := range []struct {
		said string
		want fleet.Event
	}{
		{
			"X_PREFORK_TASK=t\nX_PREFORK_TASK_STATE=waiting\nX_PREFORK_TASK_RESULT=exit-code\nX_PREFORK_TASK_FAILURES=2\n" +
				"X_PREFORK_TASK_NEXT_USEC=5000\nX_PREFORK_TASK_REASON=no\x1b[2J answer\nX_PREFORK_TASK_STATUS=at work", waiting,
		},
		{"X_PREFORK_TASK=t\nX_PREFORK_TASK_STATE=ready\nX_PREFORK_TASK_REASON=" + strings.Repeat("x", 3000), long},
		{"X_PREFORK_TASK=t\nX_PREFORK_TASK_STATE=failed\nX_PREFORK_TASK_RESULT=oom-kill\nX_PREFORK_TASK_FAILURES=-1\nX_PREFORK_TASK_NEXT_USEC=99999999999999999999", said(fleet.StateFailed)},
		{"X_PREFORK_TASK=t\nX_PREFORK_TASK_STATE=exited\nX_PREFORK_TASK_NEXT_USEC=0", said(fleet.StateExited)},
		{
			"X_PREFORK_TASK=t\nX_PREFORK_FAULT=BLOCKS\nX_PREFORK_TASK_REASON=blocks\nX_PREFORK_CODE_FILE=/app.py\nX_PREFORK_CODE_LINE=7\nX_PREFORK_CODE_FUNC=f",
			fleet.TaskFault{Proc: 7, Task: "t", Blocks: true, Reason: "blocks", Code: fleet.Code{File: "/app.py", Line: 7, Func: "f"}},
		},
		{"X_PREFORK_TASK=t\nX_PREFORK_FAULT=LATE\nX_PREFORK_CODE_LINE=99999999999", fleet.TaskFault{Proc: 7, Task: "t"}},
		{"WATCHDOG=1\nX_PREFORK_LOOP_LAG_USEC=2500", fleet.Notified{Proc: 7, Watchdog: true, HasLag: true, Lag: 2500 * time.Microsecond}},
		{"X_PREFORK_TASK=t\nX_PREFORK_TASK_STATE=killing", nil},
		{"X_PREFORK_TASK=\nX_PREFORK_TASK_STATE=ready", nil},
		{"X_PREFORK_TASK_STATE=ready", nil},
		{strings.Repeat("X_A=1\n", 16) + "X_PREFORK_TASK=t\nX_PREFORK_TASK_STATE=ready", nil},
	} {
		sendTo(t, m.fd, c.said)
		var want []fleet.Event
		if c.want != nil {
			want = []fleet.Event{c.want}
		}
		if got := m.read(m.s); !reflect.DeepEqual(got, want) {
			t.Errorf("%.80q: got %+v, want %+v", c.said, got, want)
		}
	}
}

// Who has no tasks can say nothing of them.
func TestOnlyTasksAreHeardOf(t *testing.T) {
	m := newWorld(t, notifyMain())
	sendTo(t, m.fd, "X_PREFORK_TASK=t\nX_PREFORK_TASK_STATE=ready")
	if got := m.read(m.s); got != nil {
		t.Errorf("got %+v", got)
	}
}
