// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"slices"
	"time"

	"github.com/decnet/prefork/supervisor/fleet"
)

var workerTable = table[draft]{
	header: "[worker.NAME]",
	doc:    "a kind of process; [defaults] takes the same keys but entry, args, kwargs and exec",
	fields: slices.Concat(programFields, notifyFields, contextFields, limitFields(), resourceFields, policyFields),
}

var programFields = []field[draft]{
	{Key{
		Name: "entry", Kind: KindString, Example: `"app.web:serve"`, Own: true,
		Rule: `"module:callable"`, Doc: "what a process forked from the floor calls",
		Only: "with a [floor]; not with exec",
	}, text(func(d *draft) *string { return &d.Entry }, isCallable)},
	{Key{
		Name: "args", Kind: KindList, Example: `["eth0", 3]`, Own: true,
		Rule: "a list", Doc: "positional arguments of entry",
		Only: "with entry",
	}, value[draft]{setArgs, showArgs}},
	{Key{
		Name: "kwargs", Kind: KindTable, Example: `{ verbose = true }`, Own: true,
		Rule: "a table", Doc: "keyword arguments of entry",
		Only: "with entry",
	}, value[draft]{setKwargs, showKwargs}},
	{Key{
		Name: "exec", Kind: KindStrings, Example: `["/usr/bin/sleep", "60"]`, Own: true,
		Rule: "a list of a program and its arguments", Doc: "a program, by path or by a name in PATH, and its arguments; no shell",
		Only: "not with entry",
	}, value[draft]{setExec, func(d *draft) string { return showTexts(d.Exec) }}},
	{Key{
		Name: "count", Kind: KindInteger, Default: `1`, Example: `4`,
		Rule: "a whole number from 0 to 10000", Doc: "number of processes: slots NAME.0, NAME.1 and so on",
		Only: "at most 10000 slots in a fleet",
	}, whole(func(d *draft) *int { return &d.Count }, 0, maxSlots)},
	{Key{
		Name: "sockets", Kind: KindNames, Example: `["http"]`,
		Rule: "a list of names of [socket.NAME] tables", Doc: "sockets handed down at descriptor 3 and up, in this order",
		Only: "each must be declared, once; at most 250 addresses",
	}, value[draft]{setSockets, func(d *draft) string { return showTexts(d.Sockets) }}},
	{Key{
		Name: "on_demand", Kind: KindBool, Default: `false`, Example: `true`,
		Rule: "true or false", Doc: "a slot has no process until a connection waits in one of its sockets",
		Only: "with sockets",
	}, truth(func(d *draft) *bool { return &d.OnDemand })},
}

var notifyFields = []field[draft]{
	{Key{
		Name: "type", Kind: KindChoice, Default: `"simple"`, Example: `"notify"`,
		Rule: `"simple" or "notify"`, Doc: "simple: ready once it runs; notify: ready when it sends READY=1, see sd_notify(3)",
	}, value[draft]{setType, showType}},
	{Key{
		Name: "notify_access", Kind: KindChoice, Default: `"main"`, Example: `"all"`,
		Rule: `"main", "all" or "none"`, Doc: "who may send notifications: the main process, every process of the slot, or nobody",
		Only: "not \"none\" with type = \"notify\", watchdog_sec or file_descriptor_store_max",
	}, choice(func(d *draft) *NotifyAccess { return &d.NotifyAccess }, NotifyMain, NotifyAll, NotifyNone)},
	{Key{
		Name: "watchdog_sec", Kind: KindSpan, Default: `0`, Example: `"10s"`,
		Rule: "a time span", Doc: "once ready it must send WATCHDOG=1 at least so often, or it is aborted; 0 or infinity: no watchdog",
	}, watchdog()},
	{Key{
		Name: "file_descriptor_store_max", Kind: KindInteger, Default: `0`, Example: `16`,
		Rule: "a whole number from 0 to 128", Doc: "descriptors that a slot can leave to its successor with FDSTORE=1, see sd_notify(3)",
		Only: "at most 250 together with the addresses of sockets",
	}, whole(func(d *draft) *int { return &d.FDStoreMax }, 0, 128)},
}

var contextFields = []field[draft]{
	{Key{
		Name: "environment", Kind: KindEnv, Example: `{ LANG = "C.UTF-8" }`,
		Rule: "a table of strings", Doc: "variables of the process, over those of environment_file",
	}, environment(func(d *draft) *map[string]string { return &d.Environment })},
	{Key{
		Name: "environment_file", Kind: KindOneOrAll, Example: `["/etc/default/app", "-local.env"]`,
		Rule: "a path or a list of paths", Doc: "files of variables; one with a leading - may be missing; read with the master's rights",
	}, value[draft]{setEnvFiles, showEnvFiles}},
	{Key{
		Name: "working_directory", Kind: KindString, Example: `"/var/lib/app"`,
		Rule: "an absolute path", Doc: "default: the master's",
	}, text(func(d *draft) *string { return &d.WorkingDirectory }, isAbs)},
	{Key{
		Name: "user", Kind: KindID, Example: `"app"`,
		Rule: "the name or the number of a user", Doc: "who the process runs as; default: who the master is",
		Only: "not in an entry worker if floor.user is set",
	}, identity(func(d *draft) *string { return &d.User })},
	{Key{
		Name: "group", Kind: KindID, Example: `"app"`,
		Rule: "the name or the number of a group", Doc: "default: the user's",
		Only: "not in an entry worker if floor.user is set",
	}, identity(func(d *draft) *string { return &d.Group })},
	{Key{
		Name: "supplementary_groups", Kind: KindIDs, Example: `["adm", "ssl-cert"]`,
		Rule: "a list of groups", Doc: "groups beside those of the user",
		Only: "not in an entry worker if floor.user is set",
	}, value[draft]{setGroups, func(d *draft) string { return showTexts(d.SupplementaryGroups) }}},
	{Key{
		Name: "umask", Kind: KindMode, Example: `"0027"`,
		Rule: "an octal number from 0000 to 0777", Doc: "permissions that new files do not get; default: the master's",
	}, value[draft]{setUmask, showUmask}},
	{Key{
		Name: "nice", Kind: KindInteger, Example: `5`,
		Rule: "a whole number from -20 to 19", Doc: "scheduling priority; default: the master's",
	}, optional(func(d *draft) **int { return &d.Nice }, -20, 19)},
	{Key{
		Name: "oom_score_adjust", Kind: KindInteger, Example: `500`,
		Rule: "a whole number from -1000 to 1000", Doc: "how soon the kernel kills it when memory runs out, 1000 being first; default: the master's",
	}, optional(func(d *draft) **int { return &d.OOMScoreAdjust }, -1000, 1000)},
	{Key{
		Name: "no_new_privileges", Kind: KindBool, Default: `false`, Example: `true`,
		Rule: "true or false", Doc: "setuid programs give no rights to the process and its children",
	}, truth(func(d *draft) *bool { return &d.NoNewPrivileges })},
	{Key{
		Name: "ambient_capabilities", Kind: KindStrings, Example: `["CAP_NET_RAW"]`,
		Rule: "a list of names from capabilities(7)", Doc: "capabilities that the program has as an ordinary user",
		Only: "with exec",
	}, value[draft]{setCapabilities, func(d *draft) string { return showTexts(d.AmbientCapabilities) }}},
}

var policyFields = []field[draft]{
	{Key{
		Name: "kill_signal", Kind: KindSignal, Default: `"SIGTERM"`, Example: `"SIGINT"`,
		Rule: "a signal", Doc: "what asks the process to stop: SIGTERM, TERM, 15 or SIGRTMIN+3",
	}, signal(func(d *draft) *fleet.Signal { return &d.Policy.KillSignal })},
	{Key{
		Name: "restart", Kind: KindChoice, Default: `"on-failure"`, Example: `"always"`,
		Rule: `"no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort" or "always"`,
		Doc:  "after which ends the process is started again, as in systemd.service(5)",
	}, choice(func(d *draft) *fleet.Restart { return &d.Policy.Restart }, fleet.Restarts...)},
	{Key{
		Name: "restart_sec", Kind: KindSpan, Default: `"1s"`, Example: `"2s"`,
		Rule: "a time span", Doc: "delay before the first restart in a row; it doubles with each",
	}, span(func(d *draft) *time.Duration { return &d.Policy.RestartSec }, false)},
	{Key{
		Name: "restart_max_delay_sec", Kind: KindSpan, Default: `"30s"`, Example: `"1min"`,
		Rule: "a time span", Doc: "the longest delay before a restart; default: 30s, or restart_sec if that is more",
		Only: "not below restart_sec",
	}, span(func(d *draft) *time.Duration { return &d.Policy.RestartMaxDelay }, false)},
	{Key{
		Name: "restart_reset_sec", Kind: KindSpan, Example: `"5min"`,
		Rule: "a time span", Doc: "ready for so long, the delays start over; default: the greater of 30s and the last delay",
	}, span(func(d *draft) *time.Duration { return &d.Policy.RestartReset }, true)},
	{Key{
		Name: "restart_prevent_exit_status", Kind: KindExits, Example: `[78, "SIGABRT"]`,
		Rule: "exit statuses from 0 to 255, their names, and signals", Doc: "ends after which there is never a restart",
	}, exits(func(d *draft) *fleet.ExitSet { return &d.Policy.RestartPrevent })},
	{Key{
		Name: "restart_force_exit_status", Kind: KindExits, Example: `75`,
		Rule: "exit statuses from 0 to 255, their names, and signals", Doc: "ends after which there is always a restart",
	}, exits(func(d *draft) *fleet.ExitSet { return &d.Policy.RestartForce })},
	{Key{
		Name: "success_exit_status", Kind: KindExits, Example: `"TEMPFAIL 250 SIGKILL"`,
		Rule: "exit statuses from 0 to 255, their names, and signals", Doc: "ends that count as clean, beside 0, SIGHUP, SIGINT, SIGTERM and SIGPIPE",
	}, exits(func(d *draft) *fleet.ExitSet { return &d.Policy.Success })},
	{Key{
		Name: "start_limit_burst", Kind: KindInteger, Default: `0`, Example: `5`,
		Rule: "a whole number from 0 to 1000", Doc: "so many starts within start_limit_interval_sec, then the slot has failed; 0: no limit",
	}, burst()},
	{Key{
		Name: "start_limit_interval_sec", Kind: KindSpan, Example: `"1min"`,
		Rule: "a time span", Doc: "see start_limit_burst; 10s if only that is given",
		Only: "with start_limit_burst",
	}, interval()},
	{Key{
		Name: "timeout_start_sec", Kind: KindSpan, Default: `"90s"`, Example: `"3min"`,
		Rule: "a time span", Doc: "how long it may take until the process is ready, see type; 0 or infinity: for ever",
	}, timeout(func(d *draft) *time.Duration { return &d.Policy.TimeoutStart })},
	{Key{
		Name: "timeout_stop_sec", Kind: KindSpan, Default: `"15s"`, Example: `"1min"`,
		Rule: "a time span", Doc: "SIGKILL follows so long after kill_signal; 0 or infinity: never",
	}, timeout(func(d *draft) *time.Duration { return &d.Policy.TimeoutStop })},
}
