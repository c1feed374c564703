// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"cmp"
	"strings"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/quantity"
)

var taskTable = table[taskDraft]{header: "[worker.NAME.tasks.NAME]", fields: taskFields}

// taskDraft is a Task while it is read, with what its worker has given.
type taskDraft struct {
	Task
	given
}

var taskFields = []field[taskDraft]{
	{Key{
		Name: "entry", Kind: KindString, Class: policy.Birth, Example: `"app.poll:main"`,
		Rule: `"module:callable"`,
		Only: "needed",
	}, text(func(d *taskDraft) *string { return &d.Entry }, isCallable)},
	{Key{
		Name: "args", Kind: KindList, Class: policy.Birth, Example: `["eth0", 3]`,
		Rule: "a list",
	}, arguments(func(d *taskDraft) *[]any { return &d.Args })},
	{Key{
		Name: "kwargs", Kind: KindTable, Class: policy.Birth, Example: `{ interval = 30 }`,
		Rule: "a table",
	}, namedArguments(func(d *taskDraft) *map[string]any { return &d.Kwargs })},
	{Key{
		Name: "failure_action", Kind: KindChoice, Class: policy.Birth, Default: `"none"`, Example: `"exit"`,
		Rule: `"none" or "exit"`,
	}, choice(func(d *taskDraft) *policy.EndAction { return &d.FailureAction }, policy.EndNone, policy.EndExit)},
	{Key{
		Name: "type", Kind: KindChoice, Class: policy.Birth, Example: `"notify"`,
		Rule: `"simple" or "notify"`,
	}, serviceType(func(d *taskDraft) *bool { return &d.Policy.Notify })},
	{Key{
		Name: "restart", Kind: KindChoice, Class: policy.Birth, Example: `"always"`,
		Rule: `"no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort" or "always"`,
	}, choice(func(d *taskDraft) *policy.Restart { return &d.Policy.Restart }, policy.Restarts...)},
	{Key{
		Name: "restart_sec", Kind: KindSpan, Class: policy.Birth, Example: `"2s"`,
		Rule: "a time span",
	}, span(func(d *taskDraft) *time.Duration { return &d.Policy.RestartSec }, false)},
	{Key{
		Name: "restart_max_delay_sec", Kind: KindSpan, Class: policy.Birth, Example: `"1min"`,
		Rule: "a time span",
		Only: "not below restart_sec",
	}, span(func(d *taskDraft) *time.Duration { return &d.Policy.RestartMaxDelay }, false)},
	{Key{
		Name: "restart_reset_sec", Kind: KindSpan, Class: policy.Birth, Example: `"5min"`,
		Rule: "a time span",
	}, span(func(d *taskDraft) *time.Duration { return &d.Policy.RestartReset }, true)},
	{Key{
		Name: "start_limit_burst", Kind: KindInteger, Class: policy.Birth, Example: `5`,
		Rule: "a whole number from 0 to 1000",
	}, whole(func(d *taskDraft) *int { return &d.Policy.StartLimitBurst }, 0, 1000)},
	{Key{
		Name: "start_limit_interval_sec", Kind: KindSpan, Class: policy.Birth, Example: `"1min"`,
		Rule: "a time span",
	}, span(func(d *taskDraft) *time.Duration { return &d.Policy.StartLimitPeriod }, true)},
	{Key{
		Name: "timeout_start_sec", Kind: KindSpan, Class: policy.Birth, Example: `"3min"`,
		Rule: "a time span",
	}, timeout(func(d *taskDraft) *time.Duration { return &d.Policy.TimeoutStart })},
}

// The limits of tasks. The watchdog is for the one fault that they share, a loop that is
// blocked: it would be seen by nobody.
const (
	mostTasks     = 100
	tasksWatchdog = 30 * time.Second
)

// setTasks keeps the tasks until all of their worker is known: what a task does not say,
// the worker does.
func setTasks(c *cell, d *draft) {
	tasks, ok := c.v.(map[string]any)
	switch {
	case !ok:
		c.refuse()
	case len(tasks) == 0:
		c.fail(c.path, "must have a task", "write "+c.key.Name+" = "+c.key.Example+", for example")
	case len(tasks) > mostTasks:
		c.errorf(c.path, "can have at most %d tasks, these are %d; make another worker of the rest", mostTasks, len(tasks))
	default:
		d.tasks = tasks
	}
}

// forked reports whether its processes are to be forked from the floor, sound or not.
func (d *draft) forked() bool { return d.from["entry"] != "" || d.from["tasks"] != "" }

// readTasks reads what setTasks has kept.
func (d *draft) readTasks(l *loader) {
	at := d.from["tasks"]
	if at == "" {
		return
	}
	if d.from["watchdog_sec"] == "" {
		d.Policy.Watchdog = tasksWatchdog
	}
	names, _, _ := l.named(at, d.tasks)
	for _, name := range names {
		path := join(at, name)
		t := &taskDraft{given: newGiven(), Task: Task{Name: name, Policy: d.Policy, FailureAction: policy.EndNone}}
		v := d.tasks[name]
		if entry, ok := v.(string); ok {
			c := &cell{loader: l, path: path, key: &taskTable.field("entry").Key, v: entry}
			if t.Entry, ok = c.text(isCallable); ok {
				d.Tasks = append(d.Tasks, t.Task)
			}
			continue
		}
		if _, ok := v.(map[string]any); !ok {
			l.errorf(path, `must be "module:callable" or a table, not %s; write %s = "app.poll:main", for example`, describe(v), name)
			continue
		}
		walk(l, path, v, &taskTable, t, t.given, false)
		t.check(l, path, d)
		d.Tasks = append(d.Tasks, t.Task)
	}
}

// check looks at what the keys of a task say together, and with those of its worker.
func (t *taskDraft) check(l *loader, path string, d *draft) {
	if t.from["entry"] == "" {
		l.errorf(path, `must have entry; write entry = "app.poll:main", for example`)
	}
	p := &t.Policy
	switch interval := t.from["start_limit_interval_sec"]; {
	case interval != "" && p.StartLimitBurst == 0 && t.from["start_limit_burst"] == "":
		l.errorf(interval, "has no effect without start_limit_burst; write start_limit_burst = 5, or remove it")
	case interval == "" && p.StartLimitBurst > 0 && p.StartLimitPeriod == 0:
		p.StartLimitPeriod = startLimitPeriod
	}
	sec, most := t.from["restart_sec"], t.from["restart_max_delay_sec"]
	switch {
	case p.RestartSec <= p.RestartMaxDelay, t.bad["restart_sec"], t.bad["restart_max_delay_sec"]:
	case sec == "" && most == "": // it is the worker's fault
	case most == "" && d.from["restart_max_delay_sec"] == "":
		p.RestartMaxDelay = p.RestartSec
	case sec == "" && d.from["restart_sec"] == "":
		p.RestartSec = p.RestartMaxDelay
	default:
		l.errorf(cmp.Or(most, sec), "restart_max_delay_sec (%s) must not be less than restart_sec (%s); raise it, or lower restart_sec",
			quantity.FormatTimeSpan(p.RestartMaxDelay), quantity.FormatTimeSpan(p.RestartSec))
	}
}

// showTask prints a task, with what its worker has given.
func showTask(t *Task) string {
	var all []string
	for i := range taskTable.fields {
		f := &taskTable.fields[i]
		if text := f.show(&taskDraft{Task: *t}); text != "" {
			all = append(all, f.Name+" = "+text)
		}
	}
	return "{ " + strings.Join(all, ", ") + " }"
}

// tasksKey is the sum of all tasks of a worker: they are born together.
func tasksKey(tasks []Task) policy.Key {
	var all strings.Builder
	for i := range tasks {
		all.WriteString(tasks[i].Name + " = " + showTask(&tasks[i]) + "\n")
	}
	return policy.Key{Name: "tasks", Class: policy.Birth, Sum: sum(all.String())}
}
