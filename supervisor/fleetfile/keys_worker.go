// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/quantity"
)

var workerTable = table[draft]{
	header: "[worker.NAME]",
	fields: slices.Concat(programFields, notifyFields, contextFields, limitFields(), resourceFields, policyFields, rollFields),
}

var programFields = []field[draft]{
	{Key{
		Name: "entry", Kind: KindString, Class: policy.Birth, Example: `"app.web:serve"`, Own: true,
		Rule: callableRule,
		Only: "with a [floor]; not with exec or tasks",
	}, callable(func(d *draft) *string { return &d.Entry })},
	{Key{
		Name: "args", Kind: KindList, Class: policy.Birth, Example: `["eth0", 3]`, Own: true,
		Rule: "a list",
		Only: "with entry",
	}, arguments(func(d *draft) *[]any { return &d.Args })},
	{Key{
		Name: "kwargs", Kind: KindTable, Class: policy.Birth, Example: `{ verbose = true }`, Own: true,
		Rule: "a table",
		Only: "with entry",
	}, namedArguments(func(d *draft) *map[string]any { return &d.Kwargs })},
	{Key{
		Name: "exec", Kind: KindStrings, Class: policy.Birth, Example: `["/usr/bin/sleep", "60"]`, Own: true,
		Rule: "a list of a program and its arguments",
		Only: "not with entry or tasks",
	}, value[draft]{setExec, func(d *draft) string { return showTexts(d.Exec) }}},
	{Key{
		Name: "tasks", Kind: KindTasks, Class: policy.Birth, Example: `{ poller = "app.poll:main" }`, Own: true,
		Rule: `a table of tasks, each "module:callable" or a table`,
		Only: "with a [floor]; not with entry or exec; from 1 to 100 tasks",
	}, value[draft]{set: setTasks}},
	{Key{
		Name: "lifespan", Kind: KindString, Class: policy.Birth, Example: `"app.base:lifespan"`, Own: true,
		Rule: `"module:callable"`,
		Only: "with tasks",
	}, text(func(d *draft) *string { return &d.Lifespan }, isCallable)},
	{Key{
		Name: "count", Kind: KindSlots, Class: policy.Live, Default: `1`, Example: `4`,
		Rule: countRule,
		Only: "at most 10000 slots in a fleet",
	}, value[draft]{setCount, func(d *draft) string { return strconv.Itoa(d.Count) }}},
	{Key{
		Name: "sockets", Kind: KindNames, Class: policy.Birth, Example: `["http"]`,
		Rule: "a list of names of [socket.NAME] tables",
		Only: "each must be declared, once; at most 250 addresses",
	}, value[draft]{setSockets, func(d *draft) string { return showTexts(d.Sockets) }}},
	{Key{
		Name: "on_demand", Kind: KindBool, Class: policy.Birth, Default: `false`, Example: `true`,
		Rule: "true or false",
		Only: "with sockets",
	}, truth(func(d *draft) *bool { return &d.OnDemand })},
	{Key{
		Name: "after", Kind: KindWorkers, Class: policy.Live, Example: `["migrate"]`,
		Rule: "a list of names of [worker.NAME] tables",
		Only: "each must be declared, once; no worker after itself, by way of others either",
	}, value[draft]{setAfter, func(d *draft) string { return showTexts(d.After) }}},
}

var notifyFields = []field[draft]{
	{Key{
		Name: "type", Kind: KindChoice, Class: policy.Birth, Default: `"simple"`, Example: `"notify"`,
		Rule: `"simple", "notify" or "oneshot"`,
		Only: "not \"oneshot\" with tasks or on_demand",
	}, workerType()},
	{Key{
		Name: "notify_access", Kind: KindChoice, Class: policy.Birth, Default: `"main"`, Example: `"all"`,
		Rule: `"main", "all" or "none"`,
		Only: "not \"none\" with tasks, type = \"notify\", watchdog_sec, file_descriptor_store_max or recycle_requests",
	}, choice(func(d *draft) *NotifyAccess { return &d.NotifyAccess }, NotifyMain, NotifyAll, NotifyNone)},
	{Key{
		Name: "watchdog_sec", Kind: KindSpan, Class: policy.Birth, Default: `0`, Example: `"10s"`,
		Rule: "a time span",
	}, watchdog()},
	{Key{
		Name: "file_descriptor_store_max", Kind: KindInteger, Class: policy.Birth, Default: `0`, Example: `16`,
		Rule: "a whole number from 0 to 128",
		Only: "at most 250 together with the addresses of sockets",
	}, whole(func(d *draft) *int { return &d.FDStoreMax }, 0, 128)},
}

var contextFields = []field[draft]{
	{Key{
		Name: "environment", Kind: KindEnv, Class: policy.Birth, Example: `{ APP_MODE = "live" }`,
		Rule: "a table of strings",
	}, environment(func(d *draft) *map[string]string { return &d.Environment }, slotSpecifiers+fileSpecifiers)},
	{Key{
		Name: "environment_file", Kind: KindOneOrAll, Class: policy.Birth, Example: `["/etc/default/app", "-local.env"]`,
		Rule: "a path or a list of paths",
	}, value[draft]{setEnvFiles, showEnvFiles}},
	{Key{
		Name: "working_directory", Kind: KindString, Class: policy.Birth, Example: `"/var/lib/app"`,
		Rule: "an absolute path",
	}, directory()},
	{Key{
		Name: "user", Kind: KindID, Class: policy.Birth, Example: `"app"`,
		Rule: "the name or the number of a user",
		Only: "not in an entry worker if floor.user is set",
	}, identity(func(d *draft) *string { return &d.User })},
	{Key{
		Name: "group", Kind: KindID, Class: policy.Birth, Example: `"app"`,
		Rule: "the name or the number of a group",
		Only: "not in an entry worker if floor.user is set",
	}, identity(func(d *draft) *string { return &d.Group })},
	{Key{
		Name: "supplementary_groups", Kind: KindIDs, Class: policy.Birth, Example: `["adm", "ssl-cert"]`,
		Rule: "a list of groups",
		Only: "not in an entry worker if floor.user is set",
	}, value[draft]{setGroups, func(d *draft) string { return showTexts(d.SupplementaryGroups) }}},
	{Key{
		Name: "umask", Kind: KindMode, Class: policy.Birth, Example: `"0027"`,
		Rule: "an octal number from 0000 to 0777",
	}, value[draft]{setUmask, showUmask}},
	{Key{
		Name: "nice", Kind: KindInteger, Class: policy.Birth, Example: `5`,
		Rule: "a whole number from -20 to 19",
	}, optional(func(d *draft) **int { return &d.Nice }, -20, 19)},
	{Key{
		Name: "oom_score_adjust", Kind: KindInteger, Class: policy.Birth, Example: `500`,
		Rule: "a whole number from -1000 to 1000",
	}, optional(func(d *draft) **int { return &d.OOMScoreAdjust }, -1000, 1000)},
	{Key{
		Name: "ignore_sigpipe", Kind: KindBool, Class: policy.Birth, Default: `true`, Example: `false`,
		Rule: "true or false",
		Only: "false only with exec",
	}, truth(func(d *draft) *bool { return &d.IgnoreSIGPIPE })},
	{Key{
		Name: "no_new_privileges", Kind: KindBool, Class: policy.Birth, Default: `false`, Example: `true`,
		Rule: "true or false",
	}, truth(func(d *draft) *bool { return &d.NoNewPrivileges })},
	{Key{
		Name: "ambient_capabilities", Kind: KindStrings, Class: policy.Birth, Example: `["CAP_NET_RAW"]`,
		Rule: "a list of names from capabilities(7)",
		Only: "not with an entry or tasks if floor.user or floor.zygote is set",
	}, value[draft]{setCapabilities, func(d *draft) string { return showTexts(d.AmbientCapabilities) }}},
}

var policyFields = []field[draft]{
	{Key{
		Name: "kill_signal", Kind: KindSignal, Class: policy.Live, Default: `"SIGTERM"`, Example: `"SIGINT"`,
		Rule: "a signal",
	}, signal(func(d *draft) *policy.Signal { return &d.Policy.KillSignal })},
	{Key{
		Name: "kill_mode", Kind: KindChoice, Class: policy.Live, Default: `"mixed"`, Example: `"control-group"`,
		Rule: `"mixed" or "control-group"`,
	}, killMode()},
	{Key{
		Name: "restart", Kind: KindChoice, Class: policy.Live, Default: `"on-failure"`, Example: `"always"`,
		Rule: `"no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort" or "always"`,
		Only: "not \"always\" or \"on-success\" with type = \"oneshot\"",
	}, choice(func(d *draft) *policy.Restart { return &d.Policy.Restart }, policy.Restarts...)},
	{Key{
		Name: "restart_sec", Kind: KindSpan, Class: policy.Live, Default: `"1s"`, Example: `"2s"`,
		Rule: "a time span",
	}, span(func(d *draft) *time.Duration { return &d.Policy.RestartSec }, false)},
	{Key{
		Name: "restart_max_delay_sec", Kind: KindSpan, Class: policy.Live, Default: `"30s"`, Example: `"1min"`,
		Rule: "a time span",
		Only: "not below restart_sec, if that is given",
	}, span(func(d *draft) *time.Duration { return &d.Policy.RestartMaxDelay }, false)},
	{Key{
		Name: "restart_reset_sec", Kind: KindSpan, Class: policy.Live, Example: `"5min"`,
		Rule: "a time span",
	}, span(func(d *draft) *time.Duration { return &d.Policy.RestartReset }, true)},
	{Key{
		Name: "restart_prevent_exit_status", Kind: KindExits, Class: policy.Live, Example: `[78, "SIGABRT"]`,
		Rule: "exit statuses from 0 to 255, their names, and signals",
	}, exits(func(d *draft) *policy.ExitSet { return &d.Policy.RestartPrevent })},
	{Key{
		Name: "restart_force_exit_status", Kind: KindExits, Class: policy.Live, Example: `75`,
		Rule: "exit statuses from 0 to 255, their names, and signals",
	}, exits(func(d *draft) *policy.ExitSet { return &d.Policy.RestartForce })},
	{Key{
		Name: "success_exit_status", Kind: KindExits, Class: policy.Live, Example: `"TEMPFAIL 250 SIGKILL"`,
		Rule: "exit statuses from 0 to 255, their names, and signals",
	}, exits(func(d *draft) *policy.ExitSet { return &d.Policy.Success })},
	{Key{
		Name: "start_limit_burst", Kind: KindInteger, Class: policy.Live, Default: `0`, Example: `5`,
		Rule: "a whole number from 0 to 1000",
	}, burst()},
	{Key{
		Name: "start_limit_interval_sec", Kind: KindSpan, Class: policy.Live, Example: `"1min"`,
		Rule: "a time span",
		Only: "with start_limit_burst",
	}, interval()},
	{Key{
		Name: "failure_action", Kind: KindChoice, Class: policy.Live, Default: `"none"`, Example: `"exit"`,
		Rule: `"none" or "exit"`,
	}, choice(func(d *draft) *policy.EndAction { return &d.Vital.FailureAction }, policy.EndNone, policy.EndExit)},
	{Key{
		Name: "success_action", Kind: KindChoice, Class: policy.Live, Default: `"none"`, Example: `"exit"`,
		Rule: `"none" or "exit"`,
	}, choice(func(d *draft) *policy.EndAction { return &d.Vital.SuccessAction }, policy.EndNone, policy.EndExit)},
	{Key{
		Name: "timeout_start_sec", Kind: KindSpan, Class: policy.Live, Default: `"90s"`, Example: `"3min"`,
		Rule: "a time span",
	}, timeout(func(d *draft) *time.Duration { return &d.Policy.TimeoutStart })},
	{Key{
		Name: "timeout_stop_sec", Kind: KindSpan, Class: policy.Live, Default: `"15s"`, Example: `"1min"`,
		Rule: "a time span",
	}, timeout(func(d *draft) *time.Duration { return &d.Policy.TimeoutStop })},
}

var rollFields = []field[draft]{
	{Key{
		Name: "roll", Kind: KindChoice, Class: policy.Live, Example: `"start-first"`,
		Rule: `"start-first" or "stop-first"`,
		Only: "not \"start-first\" with type = \"oneshot\"",
	}, choice(func(d *draft) *policy.Order { return &d.Roll.Order }, policy.StartFirst, policy.StopFirst)},
	{Key{
		Name: "max_unavailable", Kind: KindInteger, Class: policy.Live, Default: `1`, Example: `2`,
		Rule: "a whole number from 1 to 10000",
	}, whole(func(d *draft) *int { return &d.Roll.MaxUnavailable }, 1, policy.MaxSlots)},
	{Key{
		Name: "settle_sec", Kind: KindSpan, Class: policy.Live, Default: `"1s"`, Example: `"10s"`,
		Rule: "a time span",
	}, span(func(d *draft) *time.Duration { return &d.Roll.Settle }, false)},
	{Key{
		Name: "recycle_after", Kind: KindSpan, Class: policy.Live, Default: `0`, Example: `"24h"`,
		Rule: "0 or a time span of 10s or more",
	}, recycleAfter()},
	{Key{
		Name: "recycle_private", Kind: KindSize, Class: policy.Live, Example: `"200M"`,
		Rule: `a size of 1M or more, or "infinity"`,
		Only: "below memory_max",
	}, recyclePrivate()},
	{Key{
		Name: "recycle_requests", Kind: KindInteger, Class: policy.Birth, Default: `0`, Example: `10000`,
		Rule: "a whole number from 0 to 1000000000",
		Only: "not with notify_access = \"none\"",
	}, whole(func(d *draft) *int { return &d.Recycle.Requests }, 0, 1_000_000_000)},
}

// recycleAfter is a span: a slot whose processes live shorter than it takes to replace them
// does not serve.
func recycleAfter() value[draft] {
	v := span(func(d *draft) *time.Duration { return &d.Recycle.After }, false)
	set := v.set
	v.set = func(c *cell, d *draft) {
		set(c, d)
		if after := d.Recycle.After; !c.bad && after > 0 && after < policy.MinRecycleAge {
			c.fail(c.path, fmt.Sprintf("must be at least %s: a process is not replaced sooner", policy.Span(policy.MinRecycleAge)),
				c.key.Name+" = 0 is never")
		}
	}
	return v
}

// recyclePrivate is a size that an idle process does not have at once.
func recyclePrivate() value[draft] {
	v := memory(func(d *draft) *uint64 { return &d.Recycle.Private })
	set := v.set
	v.set = func(c *cell, d *draft) {
		d.Recycle.Private = 0
		set(c, d)
		switch n := d.Recycle.Private; {
		case n == quantity.Infinity:
			d.Recycle.Private = 0 // it takes back what [defaults] has
		case !c.bad && n < 1<<20:
			c.fail(c.path, "must be at least 1M: an idle process has about as much", c.key.Name+` = "infinity" is never`)
		}
	}
	return v
}
