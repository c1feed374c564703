// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"strconv"
	"time"

	"github.com/decnet/prefork/supervisor/fleet"
)

// fleetDraft is a Fleet while it is read. Its tables wait until those that they
// refer to have been read.
type fleetDraft struct {
	*Fleet
	tables map[string]any
}

var topTable = table[fleetDraft]{
	doc: "keys before the first table: the whole fleet",
	fields: []field[fleetDraft]{
		{Key{
			Name: "description", Kind: KindString, Example: `"edge collectors"`,
			Rule: "a string of one line", Doc: "what the fleet is for, in one line",
		}, text(func(f *fleetDraft) *string { return &f.Description }, isLine)},
		{Key{
			Name: "ready_when", Kind: KindReady, Default: `"all"`, Example: `1`,
			Rule: `"all", "floor" or a number from 1 up`,
			Doc:  "when the fleet is ready: all slots, the loaded floor, or so many slots are ready",
			Only: "cannot be more than there are slots",
		}, value[fleetDraft]{setReady, showReady}},
		{Key{
			Name: "timeout_start_sec", Kind: KindSpan, Default: `"5min"`, Example: `"10min"`,
			Rule: "a time span", Doc: "how long the fleet may take to become ready; 0 or infinity: for ever",
		}, timeout(func(f *fleetDraft) *time.Duration { return &f.TimeoutStart })},
		{Key{
			Name: "start", Kind: KindChoice, Default: `"manual"`, Example: `"boot"`,
			Rule: `"manual", "boot" or "connection"`,
			Doc:  "what starts the fleet under systemd: an administrator, the boot, or the first connection to a socket",
			Only: "\"connection\" with a [socket.NAME]",
		}, choice(func(f *fleetDraft) *Start { return &f.Start }, StartManual, StartBoot, StartConnection)},
		{Key{
			Name: "floor", Kind: KindTable, Example: `{ preload = ["json"] }`,
			Rule: "a table", Doc: "what is loaded once for all workers that have an entry",
		}, later("floor")},
		{Key{
			Name: "socket", Kind: KindTable, Example: `{ extra = { listen = "9090" } }`,
			Rule: "a table of tables", Doc: "the sockets that are handed down to workers",
		}, later("socket")},
		{Key{
			Name: "defaults", Kind: KindTable, Example: `{ count = 2 }`,
			Rule: "a table", Doc: "keys for all workers; tables merge with those of a worker, lists are replaced",
		}, later("defaults")},
		{Key{
			Name: "worker", Kind: KindTable, Example: `{ extra = { exec = ["sleep", "1"] } }`,
			Rule: "a table of tables", Doc: "the workers",
		}, later("worker")},
	},
}

func later(name string) value[fleetDraft] {
	return value[fleetDraft]{set: func(c *cell, f *fleetDraft) { f.tables[name] = c.v }}
}

func setReady(c *cell, f *fleetDraft) {
	n, isInt := c.v.(int64)
	switch {
	case c.v == "all":
		f.ReadyWhen = fleet.ReadyWhen{}
	case c.v == "floor":
		f.ReadyWhen = fleet.ReadyWhen{Floor: true}
	case isInt && n > 0:
		f.ReadyWhen = fleet.ReadyWhen{N: int(n)}
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
	doc:    "what is loaded once; needed by workers that have an entry",
	fields: []field[Floor]{
		{Key{
			Name: "python", Kind: KindString, Default: `"python3"`, Example: `"/usr/bin/python3"`,
			Rule: "the name or the path of a program", Doc: "the interpreter; a name is looked for in PATH",
		}, file(func(f *Floor) *string { return &f.Python }, true)},
		{Key{
			Name: "preload", Kind: KindStrings, Example: `["json", "asyncio"]`,
			Rule: "a list of module names", Doc: "modules that are imported once, in this order",
		}, texts(func(f *Floor) *[]string { return &f.Preload }, isModule)},
		{Key{
			Name: "path", Kind: KindStrings, Example: `["/opt/app"]`,
			Rule: "a list of directories", Doc: "directories put before sys.path; relative ones start at the fleet file",
		}, directories(func(f *Floor) *[]string { return &f.Path })},
		{Key{
			Name: "setup", Kind: KindString, Example: `"app.base:load_model"`,
			Rule: `"module:callable"`, Doc: "called once after the imports",
		}, text(func(f *Floor) *string { return &f.Setup }, isCallable)},
		{Key{
			Name: "after_fork", Kind: KindString, Example: `"app.base:reopen"`,
			Rule: `"module:callable"`, Doc: "called in each worker before its entry",
		}, text(func(f *Floor) *string { return &f.AfterFork }, isCallable)},
		{Key{
			Name: "env", Kind: KindEnv, Example: `{ OPENBLAS_NUM_THREADS = "1" }`,
			Rule: "a table of strings", Doc: "environment of the floor and of all workers forked from it",
		}, environment(func(f *Floor) *map[string]string { return &f.Env })},
		{Key{
			Name: "user", Kind: KindID, Example: `"app"`,
			Rule: "the name or the number of a user", Doc: "who imports the floor; default: who the master is",
		}, identity(func(f *Floor) *string { return &f.User })},
		{Key{
			Name: "threads", Kind: KindChoice, Default: `"refuse"`, Example: `"allow"`,
			Rule: `"refuse" or "allow"`, Doc: "what to do if the floor has more than one thread",
		}, choice(func(f *Floor) *Guard { return &f.Threads }, Refuse, Allow)},
		{Key{
			Name: "fds", Kind: KindChoice, Default: `"refuse"`, Example: `"allow"`,
			Rule: `"refuse" or "allow"`, Doc: "what to do if the floor has left sockets, pipes or epoll open",
		}, choice(func(f *Floor) *Guard { return &f.FDs }, Refuse, Allow)},
		{Key{
			Name: "gc_freeze", Kind: KindBool, Default: `true`, Example: `false`,
			Rule: "true or false", Doc: "keep the garbage collector away from what the floor has loaded",
		}, truth(func(f *Floor) *bool { return &f.GCFreeze })},
		{Key{
			Name: "spares", Kind: KindInteger, Default: `1`, Example: `4`,
			Rule: "a whole number from 0 to 1000", Doc: "processes kept forked, ready to become any slot",
		}, whole(func(f *Floor) *int { return &f.Spares }, 0, 1000)},
	},
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
