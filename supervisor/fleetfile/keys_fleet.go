// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"strconv"
	"strings"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

// fleetDraft is a Fleet while it is read. Its tables wait until those that they
// refer to have been read.
type fleetDraft struct {
	*File
	tables map[string]any
}

var topTable = table[fleetDraft]{
	fields: []field[fleetDraft]{
		{Key{
			Name: "description", Kind: KindString, Class: policy.Live, Example: `"edge collectors"`,
			Rule: "a string of one line",
		}, specified(func(f *fleetDraft) *string { return &f.Description }, isLine)},
		{Key{
			Name: "ready_when", Kind: KindReady, Class: policy.Live, Default: `"all"`, Example: `1`,
			Rule: `"all", "floor" or a number from 1 up`,
			Only: "cannot be more than there are slots",
		}, value[fleetDraft]{setReady, showReady}},
		{Key{
			Name: "timeout_start_sec", Kind: KindSpan, Class: policy.Live, Default: `"5min"`, Example: `"10min"`,
			Rule: "a time span",
		}, timeout(func(f *fleetDraft) *time.Duration { return &f.TimeoutStart })},
		{Key{
			Name: "stop_delay_sec", Kind: KindSpan, Class: policy.Live, Default: `0`, Example: `"5s"`,
			Rule: "a time span",
		}, span(func(f *fleetDraft) *time.Duration { return &f.StopDelay }, false)},
		{Key{
			Name: "start", Kind: KindChoice, Class: policy.Live, Default: `"manual"`, Example: `"boot"`,
			Rule: `"manual", "boot" or "connection"`,
			Only: "\"connection\" with a [socket.NAME]",
		}, choice(func(f *fleetDraft) *Start { return &f.Start }, StartManual, StartBoot, StartConnection)},
		{Key{
			Name: "floor", Kind: KindTable, Example: `{ preload = ["json"] }`,
			Rule: "a table",
		}, later("floor")},
		{Key{
			Name: "log", Kind: KindTable, Example: `{ format = "json" }`,
			Rule: "a table",
		}, later("log")},
		{Key{
			Name: "metrics", Kind: KindTable, Example: `{ listen = "127.0.0.1:9090" }`,
			Rule: "a table",
		}, later("metrics")},
		{Key{
			Name: "socket", Kind: KindTable, Example: `{ extra = { listen = "9090" } }`,
			Rule: "a table of tables",
		}, later("socket")},
		{Key{
			Name: "defaults", Kind: KindTable, Example: `{ count = 2 }`,
			Rule: "a table",
		}, later("defaults")},
		{Key{
			Name: "worker", Kind: KindTable, Example: `{ extra = { exec = ["sleep", "1"] } }`,
			Rule: "a table of tables",
		}, later("worker")},
	},
}

func later(name string) value[fleetDraft] {
	return value[fleetDraft]{set: func(c *cell, f *fleetDraft) { f.tables[name] = c.v }}
}

var logTable = table[Log]{
	header: "[log]",
	fields: []field[Log]{
		{Key{
			Name: "format", Kind: KindChoice, Class: policy.Start, Example: `"json"`,
			Rule: `"name" or "json"`, Only: "is needed",
		}, choice(func(l *Log) *LogFormat { return &l.Format }, LogByName, LogAsJSON)},
	},
}

// log reads [log].
func (l *loader) log(f *File, v any) {
	g := newGiven()
	walk(l, "log", v, &logTable, &f.Log, g, false)
	if table, ok := v.(map[string]any); ok && table["format"] == nil {
		l.errorf("log", "must have format; write format = \"json\", for example")
	}
}

// masterKeys are those that the master was started with, by the names of the top of the
// file.
func (f *File) masterKeys() (keys []policy.Key) {
	if f.Log != (Log{}) {
		keys = append(keys, within("log", sums(&logTable, &f.Log))...)
	}
	if f.Metrics != nil {
		keys = append(keys, within("metrics", sums(&metricsTable, &metricsDraft{Metrics: *f.Metrics}))...)
	}
	return keys
}

// within names keys by their table.
func within(table string, keys []policy.Key) []policy.Key {
	for i := range keys {
		keys[i].Name = join(table, keys[i].Name)
	}
	return keys
}

func setReady(c *cell, f *fleetDraft) {
	n, isInt := c.v.(int64)
	switch {
	case c.v == "all":
		f.ReadyWhen = policy.ReadyWhen{}
	case c.v == "floor":
		f.ReadyWhen = policy.ReadyWhen{Floor: true}
	case isInt && n > 0:
		f.ReadyWhen = policy.ReadyWhen{N: int(n)}
	default:
		c.refuse()
	}
}

func showReady(f *fleetDraft) string {
	switch {
	case f.ReadyWhen.Floor:
		return `"floor"`
	case f.ReadyWhen.N > 0:
		return strconv.Itoa(f.ReadyWhen.N)
	}
	return `"all"`
}

var floorTable = table[Floor]{
	header: "[floor]",
	fields: []field[Floor]{
		{Key{
			Name: "zygote", Kind: KindStrings, Class: policy.Birth, Example: `["ruby", "/usr/share/prefork/zygote.rb"]`,
			Rule: "a list of a program and its arguments",
			Only: "not with python, gc_freeze, immortal or repack",
		}, value[Floor]{setZygote, func(f *Floor) string { return showTexts(f.Zygote) }}},
		{Key{
			Name: "python", Kind: KindString, Class: policy.Birth, Default: `"python3"`, Example: `"/usr/bin/python3"`,
			Rule: "the name or the path of a program",
			Only: "not with zygote",
		}, ofPython(file(func(f *Floor) *string { return &f.Python }, true))},
		{Key{
			Name: "preload", Kind: KindStrings, Class: policy.Birth, Example: `["json", "asyncio"]`,
			Rule: "a list of module names, or of what zygote loads",
		}, byZygote(func(valid func(string) bool) value[Floor] {
			return texts(func(f *Floor) *[]string { return &f.Preload }, valid)
		}, isModule)},
		{Key{
			Name: "path", Kind: KindStrings, Class: policy.Birth, Example: `["/opt/app"]`,
			Rule: "a list of directories",
		}, directories(func(f *Floor) *[]string { return &f.Path })},
		{Key{
			Name: "setup", Kind: KindString, Class: policy.Birth, Example: `"app.base:load_model"`,
			Rule: callableRule,
		}, callable(func(f *Floor) *string { return &f.Setup })},
		{Key{
			Name: "warm", Kind: KindString, Class: policy.Birth, Example: `"app.base:warm"`,
			Rule: callableRule,
		}, callable(func(f *Floor) *string { return &f.Warm })},
		{Key{
			Name: "repack", Kind: KindBool, Class: policy.Birth, Default: `false`, Example: `true`,
			Rule: "true or false", Only: "with floor.warm; not with zygote",
		}, ofPython(truth(func(f *Floor) *bool { return &f.Repack }))},
		{Key{
			Name: "immortal", Kind: KindBool, Class: policy.Birth, Default: `false`, Example: `true`,
			Rule: "true or false",
			Only: "not with zygote",
		}, ofPython(truth(func(f *Floor) *bool { return &f.Immortal }))},
		{Key{
			Name: "after_fork", Kind: KindString, Class: policy.Birth, Example: `"app.base:reopen"`,
			Rule: callableRule,
		}, callable(func(f *Floor) *string { return &f.AfterFork })},
		{Key{
			Name: "env", Kind: KindEnv, Class: policy.Birth, Example: `{ OPENBLAS_NUM_THREADS = "1" }`,
			Rule: "a table of strings",
		}, environment(func(f *Floor) *map[string]string { return &f.Env }, "")},
		{Key{
			Name: "user", Kind: KindID, Class: policy.Birth, Example: `"app"`,
			Rule: "the name or the number of a user",
		}, identity(func(f *Floor) *string { return &f.User })},
		{Key{
			Name: "threads", Kind: KindChoice, Class: policy.Birth, Default: `"refuse"`, Example: `"allow"`,
			Rule: `"refuse" or "allow"`,
		}, choice(func(f *Floor) *Guard { return &f.Threads }, Refuse, Allow)},
		{Key{
			Name: "fds", Kind: KindChoice, Class: policy.Birth, Default: `"refuse"`, Example: `"allow"`,
			Rule: `"refuse" or "allow"`,
		}, choice(func(f *Floor) *Guard { return &f.FDs }, Refuse, Allow)},
		{Key{
			Name: "gc_freeze", Kind: KindBool, Class: policy.Birth, Default: `true`, Example: `false`,
			Rule: "true or false",
			Only: "not with zygote",
		}, ofPython(truth(func(f *Floor) *bool { return &f.GCFreeze }))},
		{Key{
			Name: "spares", Kind: KindInteger, Class: policy.Live, Default: `1`, Example: `4`,
			Rule: "a whole number from 0 to 1000",
		}, whole(func(f *Floor) *int { return &f.Spares }, 0, 1000)},
	},
}

// callableRule is that of what a zygote is to call.
const callableRule = `"module:callable", or what floor.zygote can call`

// callable is the name of what a zygote is to call.
func callable[T any](dst func(*T) *string) value[T] {
	return byZygote(func(valid func(string) bool) value[T] { return text(dst, valid) }, isCallable)
}

// byZygote is a value for a zygote: what it must be is known only of prefork's own. What
// another one makes of a text is its own affair.
func byZygote[T any](of func(valid func(string) bool) value[T], own func(string) bool) value[T] {
	v, other := of(own), of(isFile)
	return value[T]{show: v.show, set: func(c *cell, t *T) {
		if c.otherZygote {
			other.set(c, t)
			return
		}
		v.set(c, t)
	}}
}

// ofPython is a value that means something to prefork's own zygote alone.
func ofPython(v value[Floor]) value[Floor] {
	show := v.show
	v.show = func(f *Floor) string {
		if f.Zygote != nil {
			return ""
		}
		return show(f)
	}
	return v
}

func setZygote(c *cell, f *Floor) {
	list := c.texts(false, func(s string) bool { return !strings.ContainsRune(s, 0) })
	switch {
	case c.bad:
	case len(list) == 0 || list[0] == "":
		c.refuse()
	default:
		if strings.Contains(list[0], "/") {
			list[0] = c.abs(list[0])
		}
		f.Zygote = list
	}
}

// sigpipeOfEntry says what SIGPIPE does in an entry, and the remedy.
func (l *loader) sigpipeOfEntry() string {
	if l.otherZygote {
		return "what SIGPIPE does is its zygote's affair; use exec, or write ignore_sigpipe = true"
	}
	return "python3 ignores SIGPIPE by itself, whatever it is started with; use exec, " +
		"write ignore_sigpipe = true, or let the entry call signal.signal(signal.SIGPIPE, signal.SIG_DFL)"
}

// checkZygote looks at what the keys of a floor say together.
func (f *Floor) checkZygote(l *loader, g given) {
	for _, key := range []string{"python", "repack", "immortal", "gc_freeze"} {
		if f.Zygote != nil && g.from[key] != "" && !g.bad[key] {
			l.errorf(g.from[key], "is for prefork's own zygote, which is Python, and floor.zygote is another program; remove it, or remove floor.zygote")
		}
	}
}

// directories is a list of paths that are made absolute.
func directories[T any](dst func(*T) *[]string) value[T] {
	v := texts(dst, isFile)
	set := v.set
	v.set = func(c *cell, t *T) {
		set(c, t)
		for i, p := range *dst(t) {
			(*dst(t))[i] = c.abs(p)
		}
	}
	return v
}
