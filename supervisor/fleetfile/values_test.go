// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

var (
	badIDs   = []string{`""`, `"-a"`, `"a b"`, `65535`, `4294967295`, `"a\u0000"`, `"4294967296"`, `1.0`}
	badSpans = []string{`""`, `"soon"`, `-1`, `"-1s"`, `"5 parsecs"`, `"300y"`, `nan`, `inf`, `"1min,"`}
	badModes = []string{`"0888"`, `"1777"`, `"rw"`, `660`, `-1`, `0o1777`, `""`}
	badExits = []string{`256`, `-1`, `"SIGFOO"`, `[1, "EXIT"]`, `""`, `1.0`, `[[1]]`, `"1, 2"`}
	badBytes = []string{`"-1"`, `"1X"`, `"16E"`, `"2:1"`, `"1:2:3"`, `""`, `":"`, `"infinity:1"`, `-1`}
	badCount = []string{`"-1"`, `"1K"`, `"2:1"`, `""`, `1.5`, `-1`, `"18446744073709551615"`}
	badSizes = []string{`"-1"`, `"1X"`, `"16E"`, `""`, `"1:2"`, `"50%"`, `0`, `"0"`, `"4095"`, `"0.5K"`, `"Infinity"`, `1.5`, `-1`}
	badShare = []string{`0`, `10001`, `-1`, `"idle"`, `"100"`}
	badCalls = []string{`""`, `"app.web"`, `"app:"`, `":serve"`, `"app/web:serve"`, `"a:b:c"`, `"a..b:c"`, `"1a:b"`, `"a:b()"`}
)

// outOfRange has values of the right type that are not allowed, for each key
// that is not just true or false.
var outOfRange = map[string][]string{
	"description":       {`"%i"`, `"100% ours"`, `"a\nb"`, `"a\u0000"`},
	"ready_when":        {`0`, `-1`, `"none"`, `"1"`, `1.0`},
	"timeout_start_sec": badSpans,
	"stop_delay_sec":    append([]string{`"infinity"`}, badSpans...),
	"start":             {`"yes"`, `"Boot"`, `""`, `"enabled"`},
	"floor":             {`{ a = 1 }`},
	"log":               {`{ a = 1 }`, `{}`},
	"metrics":           {`{ a = 1 }`, `{}`},
	"socket":            {`{ "a b" = { listen = "1" } }`, `{ a = 1 }`, `{ a = {} }`, `{ "-a" = { listen = "1" } }`},
	"defaults":          {`{ a = 1 }`},
	"worker":            {`{ "a.b" = { exec = ["a"] } }`, `{ a = 1 }`, `{ a = {} }`, `{ "" = { exec = ["a"] } }`, `{ ` + strings.Repeat("a", 65) + ` = { exec = ["a"] } }`},

	"[floor].zygote":     {`[]`, `[""]`, `["a", 1]`, `["a", "\u0000"]`, `"a -b"`},
	"[floor].python":     {`""`, `"a\u0000"`},
	"[floor].preload":    {`["a-b"]`, `["a", ""]`, `["a..b"]`, `[".a"]`, `["1"]`, `[1]`},
	"[floor].path":       {`[""]`, `["/a\u0000"]`, `[1]`},
	"[floor].setup":      badCalls,
	"[floor].warm":       badCalls,
	"[floor].after_fork": badCalls,
	"[floor].env":        {`{ "A=B" = "" }`, `{ A = 1 }`, `{ LISTEN_FDS = "1" }`, `{ A = "\u0000" }`},
	"[floor].user":       badIDs,
	"[floor].threads":    {`"no"`, `""`},
	"[floor].fds":        {`"no"`, `""`},
	"[floor].spares":     {`-1`, `1001`},

	"[log].format":     {`""`, `"JSON"`, `"text"`, `["json"]`, `1`, `true`},
	"[metrics].ready":  {`"w"`, `[]`, `["w", "w"]`, `["v"]`, `["www"]`, `["w.0"]`, `[1]`, `[["w"]]`},
	"[metrics].listen": {`"/run/%w"`, `""`, `"localhost:80"`, `"0"`, `"/"`, `["127.0.0.1:80"]`, `9090`},

	"[socket.NAME].listen": {
		`""`, `[]`, `":80"`, `"localhost:80"`, `"1.2.3.4:0"`, `"1.2.3.4:65536"`, `"[1.2.3.4]:80"`, `"::1:80"`,
		`"[::1]"`, `"0"`, `"65536"`, `"@"`, `"/"`, `"/a/"`, `"a.sock"`, `"[::ffff:1.2.3.4]:80"`, `"1.2.3.4]:80"`, `"[::1:80"`,
		`["/a", 1]`, `"/` + strings.Repeat("a", 107) + `"`, `"@` + strings.Repeat("a", 107) + `"`, `"/a\u0000"`, `8080`,
		`"/run/%i.sock"`, `"[fe80::1%eth0]:80"`, `["80", "/run/%c"]`, `"/a%"`,
	},
	"[socket.NAME].type":    {`"tcp"`, `"STREAM"`},
	"[socket.NAME].backlog": {`0`, `-1`, `2147483648`},
	"[socket.NAME].mode":    badModes,
	"[socket.NAME].user":    badIDs,
	"[socket.NAME].group":   badIDs,

	"[worker.NAME].entry":                               {`"a"`, `""`, `"a:1"`, `"a:"`, `"a b:c"`},
	"[worker.NAME].args":                                {`["%n"]`, `[[{ a = "10%" }]]`, deep(25), `[nan]`, `[1, 2020-01-01]`, `[[[inf]]]`, `[{ a = 10:00:00 }]`},
	"[worker.NAME].kwargs":                              {`{ a = "%H" }`, `{ a = nan }`, `{ a.b = 2020-01-01 }`},
	"[worker.NAME].tasks":                               {`{}`, `{ "a b" = "a:b" }`, `{ a = "a" }`, `{ a = 1 }`, `{ a = {} }`, `{ a = { entry = "a:b", exec = ["a"] } }`, `"a:b"`, `["a:b"]`, manyTasks(101)},
	"[worker.NAME].lifespan":                            {`"a"`, `""`, `"a:1"`},
	"[worker.NAME.tasks.NAME].entry":                    {`"a"`, `""`, `"a:1"`},
	"[worker.NAME.tasks.NAME].args":                     {`["%é"]`, deep(25), `[nan]`},
	"[worker.NAME.tasks.NAME].kwargs":                   {`{ a = nan }`},
	"[worker.NAME.tasks.NAME].failure_action":           {`"restart"`, `""`},
	"[worker.NAME.tasks.NAME].type":                     {`"exec"`, `""`},
	"[worker.NAME.tasks.NAME].restart":                  {`"never"`, `""`},
	"[worker.NAME.tasks.NAME].restart_sec":              badSpans,
	"[worker.NAME.tasks.NAME].restart_max_delay_sec":    badSpans,
	"[worker.NAME.tasks.NAME].restart_reset_sec":        badSpans,
	"[worker.NAME.tasks.NAME].start_limit_burst":        {`-1`, `1001`},
	"[worker.NAME.tasks.NAME].start_limit_interval_sec": badSpans,
	"[worker.NAME.tasks.NAME].timeout_start_sec":        badSpans,
	"[worker.NAME].exec":                                {`[]`, `[""]`, `["a", "%q"]`, `["%"]`, `["a", 1]`, `["a", "\u0000"]`, `"a -b"`},
	"[worker.NAME].count":                               {`-1`, `10001`, `"4"`, `""`, `"cpus"`, `"cpu*2"`, `"0*cpu"`, `"10001*cpu"`, `"cpu+10000"`, `"PREFORK_COUNT"`, `1.5`},
	"[worker.NAME].after":                               {`["w", "w"]`, `["a b"]`, `[1]`, `"w"`},
	"[worker.NAME].sockets":                             {`["http", "http"]`, `["a b"]`, `[1]`},
	"[worker.NAME].environment":                         {`{ "" = "" }`, `{ 1A = "" }`, `{ A = 1 }`, `{ "Ä" = "" }`, `{ A = "\u0000" }`, `{ A = "%a" }`, `{ A = "%" }`},
	"[worker.NAME].environment_file":                    {`""`, `"-"`, `["a", 1]`, `"a\u0000"`},
	"[worker.NAME].working_directory":                   {`""`, `"a"`, `"~"`, `"./a"`, `"/a\u0000"`, `"%i"`, `"/%I"`, `"%%t/a"`},
	"[worker.NAME].user":                                badIDs,
	"[worker.NAME].group":                               badIDs,
	"[worker.NAME].supplementary_groups":                {`[""]`, `["a", -1]`, `[1.5]`, `[65535]`},
	"[worker.NAME].umask":                               badModes,
	"[worker.NAME].nice":                                {`-21`, `20`},
	"[worker.NAME].limit_cpu":                           badSpans,
	"[worker.NAME].limit_fsize":                         badBytes,
	"[worker.NAME].limit_data":                          badBytes,
	"[worker.NAME].limit_stack":                         badBytes,
	"[worker.NAME].limit_core":                          badBytes,
	"[worker.NAME].limit_rss":                           badBytes,
	"[worker.NAME].limit_nofile":                        badCount,
	"[worker.NAME].limit_as":                            badBytes,
	"[worker.NAME].limit_nproc":                         badCount,
	"[worker.NAME].limit_memlock":                       badBytes,
	"[worker.NAME].limit_locks":                         badCount,
	"[worker.NAME].limit_sigpending":                    badCount,
	"[worker.NAME].limit_msgqueue":                      badBytes,
	"[worker.NAME].limit_nice":                          {`41`, `"+20"`, `"-21"`, `"--1"`, `"+"`, `""`, `"1K"`},
	"[worker.NAME].limit_rtprio":                        badCount,
	"[worker.NAME].limit_rttime":                        badSpans,
	"[worker.NAME].type":                                {`"exec"`, `"notify-reload"`, `"Notify"`, `""`},
	"[worker.NAME].notify_access":                       {`"exec"`, `"Main"`, `""`},
	"[worker.NAME].watchdog_sec":                        badSpans,
	"[worker.NAME].oom_score_adjust":                    {`-1001`, `1001`},
	"[worker.NAME].ambient_capabilities":                {`["CAP_FOO"]`, `["CAP_NET_RAW", "NET_RAW"]`, `["cap_net_raw"]`, `["~CAP_NET_RAW"]`, `[""]`, `[13]`, `"CAP_NET_RAW"`},
	"[worker.NAME].memory_high":                         badSizes,
	"[worker.NAME].memory_max":                          badSizes,
	"[worker.NAME].tasks_max":                           {`0`, `4194305`, `-1`, `"10%"`, `""`, `"-1"`, `"1K"`, `1.0`},
	"[worker.NAME].cpu_weight":                          badShare,
	"[worker.NAME].io_weight":                           badShare,
	"[worker.NAME].cpu_quota":                           {`"0%"`, `"0.00%"`, `20`, `"20"`, `"-20%"`, `".5%"`, `"1.%"`, `"1.234%"`, `"1 %"`, `"%"`, `""`, `"infinity"`, `"21474836.48%"`},

	"[worker.NAME].file_descriptor_store_max": {`-1`, `129`},

	"[worker.NAME].kill_signal": {`0`, `65`, `32`, `"SIGFOO"`, `"SIGRTMIN+31"`, `"SIGRTMAX-31"`, `"sigterm"`, `""`, `1.0`, `"+9"`},
	"[worker.NAME].kill_mode":   {`"process"`, `"none"`, `"Mixed"`, `"cgroup"`, `""`},
	"[worker.NAME].restart":     {`"sometimes"`, `"Always"`, `""`},

	"[worker.NAME].failure_action": {`"reboot"`, `"Exit"`, `""`, `true`},
	"[worker.NAME].success_action": {`"exit-force"`, `1`},

	"[worker.NAME].restart_sec":                 append([]string{`"infinity"`}, badSpans...),
	"[worker.NAME].restart_max_delay_sec":       append([]string{`"infinity"`}, badSpans...),
	"[worker.NAME].restart_reset_sec":           badSpans,
	"[worker.NAME].restart_prevent_exit_status": badExits,
	"[worker.NAME].restart_force_exit_status":   badExits,
	"[worker.NAME].success_exit_status":         badExits,
	"[worker.NAME].start_limit_burst":           {`-1`, `1001`},
	"[worker.NAME].start_limit_interval_sec":    badSpans,
	"[worker.NAME].timeout_start_sec":           badSpans,
	"[worker.NAME].roll":                        {`"none"`, `"Start-first"`, `""`},
	"[worker.NAME].max_unavailable":             {`0`, `10001`, `"10%"`},
	"[worker.NAME].settle_sec":                  append([]string{`"infinity"`}, badSpans...),
	"[worker.NAME].timeout_stop_sec":            badSpans,
	"[worker.NAME].recycle_after":               append([]string{`"infinity"`, `"9s"`, `1`}, badSpans...),
	"[worker.NAME].recycle_private":             append([]string{`200`, `"1023K"`}, badSizes...),
	"[worker.NAME].recycle_requests":            {`-1`, `1000000001`, `"10"`},
}

// deep nests tables and lists; a list of one is the first level.
func deep(n int) string {
	return strings.Repeat("[", n%2+1) + strings.Repeat("{ a = [", n/2) + strings.Repeat("] }", n/2) + strings.Repeat("]", n%2+1)
}

func TestDeepestArgumentIsPrintedSoThatItCanBeRead(t *testing.T) {
	mustParse(t, "[floor]\n[worker.a]\nentry = \"a:b\"\nargs = "+deep(24)+"\nkwargs.a.b = "+deep(21))
}

func TestEveryKeyRefusesWhatIsOutOfRange(t *testing.T) {
	seen := 0
	eachKey(t, func(t *testing.T, header string, k fleetfile.Key) {
		rows, ok := outOfRange[strings.TrimPrefix(header+"."+k.Name, ".")]
		if !ok && k.Kind != fleetfile.KindBool {
			t.Fatal("no row")
		}
		if ok {
			seen++
		}
		for _, v := range rows {
			text, line, table := fileWith(header, k.Name, k.Name+" = "+v)
			wantError(t, text, line, table+k.Name)
		}
	})
	if seen != len(outOfRange) {
		t.Errorf("%d rows are for no key", len(outOfRange)-seen)
	}
}

// conflicts has files in which a key does not fit to others. The error is to be
// at the line marked by "#!", about that line's key.
var conflicts = map[string][]string{
	"ready_when": {"ready_when = 3 #!\n[worker.a]\nexec = [\"a\"]\ncount = 2", "ready_when = 1 #!"},
	"start": {
		"start = \"connection\" #!\n[worker.a]\nexec = [\"a\"]",
		"start = \"connection\" #!\n[socket]",
	},
	"[floor].zygote":    {"[floor]\nzygote = [\"a\"]\npython = \"python3\" #!"},
	"[floor].python":    {"[floor]\npython = \"python3\" #!\nzygote = [\"a\"]"},
	"[floor].immortal":  {"[floor]\nzygote = [\"a\"]\nimmortal = false #!"},
	"[floor].gc_freeze": {"[floor]\nzygote = [\"a\"]\ngc_freeze = true #!"},
	"[metrics].ready": {
		"[metrics]\nlisten = \"/a\"\nready = [\"web\"] #!",
		"[metrics]\nlisten = \"/a\"\nready = [\"wbe\"] #!\n[worker.web]\nexec = [\"a\"]",
		"[metrics]\nlisten = \"/a\"\nready = [\"a\", \"b\"] #!\n[worker.a]\nexec = [\"a\"]",
	},
	"[log].format": {"[log] #!"},
	"[metrics].listen": {
		"[metrics] #!",
		"[socket.a]\nlisten = \"1.2.3.4:80\"\n[metrics]\nlisten = \"1.2.3.4:80\" #!",
		"[metrics]\nlisten = \"/a/b\" #!\n[socket.a]\ntype = \"datagram\"\nlisten = \"/a//b\"",
	},
	"[socket.NAME].listen": {
		"[socket.a] #!\ntype = \"stream\"",
		"[socket.a]\nlisten = \"1.2.3.4:80\"\n[socket.b]\nlisten = \"1.2.3.4:80\" #!",
		"[socket.a]\nlisten = [\"80\",\n\"[::]:80\"] #!",
		"[socket.a]\nlisten = \"/a/b\"\n[socket.b]\ntype = \"datagram\"\nlisten = \"/a//b\" #!",
		"[socket.a]\nlisten = [\"@a\",\n\"@a\"] #!",
	},
	"[socket.NAME].type":    {"[socket.a]\ntype = \"seqpacket\"\nlisten = [\"/a\",\n\"80\"] #!"},
	"[socket.NAME].backlog": {"[socket.a]\ntype = \"datagram\"\nlisten = \"80\"\nbacklog = 3 #!"},
	"[socket.NAME].reuse_port": {
		"[socket.a]\nlisten = [\"/a\", \"@a\"]\nreuse_port = true #!",
	},
	"[socket.NAME].free_bind": {"[socket.a]\nlisten = \"@a\"\nfree_bind = true #!"},
	"[socket.NAME].mode":      {"[socket.a]\nlisten = \"80\"\nmode = \"0660\" #!", "[socket.a]\nlisten = \"@a\"\nmode = \"0660\" #!"},
	"[socket.NAME].user":      {"[socket.a]\nlisten = \"80\"\nuser = \"a\" #!"},
	"[socket.NAME].group":     {"[socket.a]\nlisten = \"80\"\ngroup = \"a\" #!"},
	"[worker.NAME].entry": {
		"[worker.a]\nentry = \"a:b\" #!",
		"[worker.a] #!\ncount = 1",
	},
	"[worker.NAME].exec": {"[floor]\n[worker.a]\nentry = \"a:b\"\nexec = [\"a\"] #!"},
	"[worker.NAME].tasks": {
		"[worker.a]\ntasks = { a = \"a:b\" } #!",
		"[floor]\n[worker.a]\nentry = \"a:b\"\ntasks = { a = \"a:b\" } #!",
		"[floor]\n[worker.a]\ntasks = { a = \"a:b\" }\nexec = [\"a\"] #!",
		"[floor]\n[worker.a]\ntasks = { a = \"a:b\" }\nargs = [] #!",
		"[floor]\n[worker.a]\nnotify_access = \"none\" #!\ntasks = { a = \"a:b\" }",
	},
	"[worker.NAME].lifespan": {
		"[floor]\n[worker.a]\nentry = \"a:b\"\nlifespan = \"a:b\" #!",
		"[worker.a]\nexec = [\"a\"]\nlifespan = \"a:b\" #!",
	},
	"[worker.NAME.tasks.NAME].entry": {"[floor]\n[worker.a]\n[worker.a.tasks.t] #!\ntype = \"notify\""},
	"[worker.NAME.tasks.NAME].restart_max_delay_sec": {
		"[floor]\n[worker.a.tasks.t]\nentry = \"a:b\"\nrestart_sec = \"1s\"\nrestart_max_delay_sec = \"500ms\" #!",
		"[floor]\n[worker.a]\nrestart_max_delay_sec = \"2s\"\n[worker.a.tasks.t]\nentry = \"a:b\"\nrestart_sec = \"5s\" #!",
	},
	"[worker.NAME].args":   {"[worker.a]\nexec = [\"a\"]\nargs = [] #!"},
	"[worker.NAME].kwargs": {"[worker.a]\nexec = [\"a\"]\nkwargs = {} #!"},
	"[worker.NAME].count": {
		"[worker.a]\nexec = [\"a\"]\ncount = 9999\n[worker.b]\nexec = [\"a\"]\ncount = 2 #!\n[worker.c]\nexec = [\"a\"]",
	},
	"[worker.NAME].after": {
		"[worker.a]\nexec = [\"a\"]\nafter = [\"b\"] #!",
		"[worker.a]\nexec = [\"a\"]\nafter = [\"a\"] #!",
		"[worker.a]\nexec = [\"a\"]\nafter = [\n\"migrate\",\n\"migrat\"] #!\n[worker.migrate]\nexec = [\"a\"]",
		"[worker.a]\nexec = [\"a\"]\nafter = [\"b\"] #!\n[worker.b]\nexec = [\"b\"]\nafter = [\"c\"]\n[worker.c]\nexec = [\"c\"]\nafter = [\"a\"]",
		"[defaults]\nafter = [\"a\"]\n[worker.a]\nexec = [\"a\"]\nafter = [\"b\"] #!\n[worker.b]\nexec = [\"b\"]",
	},
	"[worker.NAME].type": {
		"[floor]\n[worker.a]\ntasks = { t = \"a:b\" }\ntype = \"oneshot\" #!",
	},
	"[worker.NAME].restart": {
		"[worker.a]\nexec = [\"a\"]\ntype = \"oneshot\"\nrestart = \"always\" #!",
		"[defaults]\nrestart = \"on-success\"\n[worker.a]\nexec = [\"a\"]\ntype = \"oneshot\" #!",
	},
	"[worker.NAME].roll": {
		"[worker.a]\nexec = [\"a\"]\ntype = \"oneshot\"\nroll = \"start-first\" #!",
	},
	"[worker.NAME].sockets": {
		"[worker.a]\nexec = [\"a\"]\nsockets = [\"http\"] #!",
		"[worker.a]\nexec = [\"a\"]\nsockets = [\"many\"] #!\n[socket.many]\nlisten = [" + manyAddresses(251) + "]",
		"[defaults]\nsockets = [\"http\"] #!\n[worker.a]\nexec = [\"a\"]\n[worker.b]\nexec = [\"a\"]",
	},
	"[worker.NAME].on_demand": {
		"[socket.b]\nlisten = \"80\"\n[worker.a]\nexec = [\"a\"]\ntype = \"oneshot\"\nsockets = [\"b\"]\non_demand = true #!",
		"[worker.a]\nexec = [\"a\"]\non_demand = true #!",
		"[socket.b]\nlisten = \"80\"\n[defaults]\nsockets = [\"b\"]\non_demand = true #!\n[worker.a]\nexec = [\"a\"]\nsockets = []\n[worker.b]\nexec = [\"b\"]",
	},
	"[worker.NAME].notify_access": {
		"[worker.a]\nexec = [\"a\"]\ntype = \"notify\"\nnotify_access = \"none\" #!",
		"[worker.a]\nexec = [\"a\"]\nwatchdog_sec = 1\nnotify_access = \"none\" #!",
		"[worker.a]\nexec = [\"a\"]\nfile_descriptor_store_max = 1\nnotify_access = \"none\" #!",
		"[defaults]\nnotify_access = \"none\"\n[worker.a]\nexec = [\"a\"]\n[worker.b]\nexec = [\"b\"]\ntype = \"notify\" #!",
		"[defaults]\ntype = \"notify\"\n[worker.a]\nexec = [\"a\"]\nnotify_access = \"none\" #!",
	},
	"[worker.NAME].file_descriptor_store_max": {
		"[worker.a]\nexec = [\"a\"]\nsockets = [\"many\"]\nfile_descriptor_store_max = 51 #!\n[socket.many]\nlisten = [" + manyAddresses(200) + "]",
		"[defaults]\nfile_descriptor_store_max = 51\n[worker.b]\nexec = [\"b\"]\n[worker.a]\nexec = [\"a\"]\nsockets = [\"many\"] #!\n[socket.many]\nlisten = [" + manyAddresses(200) + "]",
	},
	"[worker.NAME].ambient_capabilities": {
		"[floor]\nuser = \"u\"\n[worker.a]\nentry = \"a:b\"\nambient_capabilities = [\"CAP_NET_RAW\"] #!",
		"[floor]\nuser = \"u\"\n[defaults]\nambient_capabilities = [\"CAP_NET_RAW\"]\n[worker.b]\nexec = [\"b\"]\n[worker.a]\nentry = \"a:b\" #!",
		"[floor]\nzygote = [\"a\"]\n[worker.a]\nentry = \"a:b\"\nambient_capabilities = [\"CAP_NET_RAW\"] #!",
	},
	"[worker.NAME].ignore_sigpipe": {
		"[floor]\nzygote = [\"a\"]\n[worker.a]\nentry = \"a\"\nignore_sigpipe = false #!",
		"[floor]\n[worker.a]\nentry = \"a:b\"\nignore_sigpipe = false #!",
		"[floor]\n[defaults]\nignore_sigpipe = false\n[worker.b]\nexec = [\"b\"]\n[worker.a]\nentry = \"a:b\" #!",
	},
	"[worker.NAME].memory_high": {
		"[worker.a]\nexec = [\"a\"]\nmemory_max = \"1M\"\nmemory_high = \"1025K\" #!",
		"[worker.a]\nexec = [\"a\"]\nmemory_high = \"1M\" #!\n[defaults]\nmemory_max = \"4K\"",
		"[defaults]\nmemory_high = \"1M\"\n[worker.b]\nexec = [\"b\"]\n[worker.a]\nexec = [\"a\"]\nmemory_max = \"4K\" #!",
		"[defaults]\nmemory_high = \"1M\" #!\nmemory_max = \"4K\"\n[worker.a]\nexec = [\"a\"]\n[worker.b]\nexec = [\"b\"]",
	},
	"[worker.NAME].recycle_private": {
		"[worker.a]\nexec = [\"a\"]\nmemory_max = \"2M\"\nrecycle_private = \"2M\" #!",
		"[defaults]\nrecycle_private = \"2M\"\n[worker.b]\nexec = [\"b\"]\n[worker.a]\nexec = [\"a\"]\nmemory_max = \"1M\" #!",
	},
	"[worker.NAME].recycle_requests": {
		"[worker.a]\nexec = [\"a\"]\nrecycle_requests = 10\nnotify_access = \"none\" #!",
	},
	"[worker.NAME].user": {
		"[floor]\nuser = \"a\"\n[worker.a]\nentry = \"a:b\"\nuser = \"b\" #!",
		"[floor]\nuser = \"a\"\n[defaults]\nuser = \"b\" #!\n[worker.a]\nentry = \"a:b\"\n[worker.b]\nentry = \"a:b\"",
	},
	"[worker.NAME].group":                {"[floor]\nuser = \"a\"\n[worker.a]\nentry = \"a:b\"\ngroup = \"b\" #!"},
	"[worker.NAME].supplementary_groups": {"[floor]\nuser = \"a\"\n[worker.a]\nentry = \"a:b\"\nsupplementary_groups = [\"b\"] #!"},
	"[worker.NAME].restart_max_delay_sec": {
		"[worker.a]\nexec = [\"a\"]\nrestart_sec = \"2min\"\nrestart_max_delay_sec = \"1min\" #!",
	},
	"[floor].repack": {"[floor]\nrepack = true #!", "[floor]\nzygote = [\"a\"]\nwarm = \"b\"\nrepack = false #!"},
	"[worker.NAME].start_limit_interval_sec": {
		"[worker.a]\nexec = [\"a\"]\nstart_limit_interval_sec = \"1min\" #!",
		"[defaults]\nstart_limit_interval_sec = \"1min\" #!\n[worker.a]\nexec = [\"a\"]\n[worker.b]\nexec = [\"a\"]",
	},
}

func manyAddresses(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = `"@` + strings.Repeat("a", i%100) + string(rune('b'+i/100)) + `"`
	}
	return strings.Join(list, ", ")
}

func manyTasks(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`t%d = "a:b"`, i)
	}
	return "{ " + strings.Join(list, ", ") + " }"
}

func TestKeysThatDoNotFitTogetherAreRefused(t *testing.T) {
	eachKey(t, func(t *testing.T, header string, k fleetfile.Key) {
		rows := conflicts[strings.TrimPrefix(header+"."+k.Name, ".")]
		if (k.Only != "") != (rows != nil) {
			t.Fatalf("%d rows for the rule %q", len(rows), k.Only)
		}
		for _, text := range rows {
			before, _, _ := strings.Cut(text, "#!")
			_, err := parse(text)
			list, ok := err.(fleetfile.Errors)
			if !ok || len(list) != 1 || list[0].Line != 1+strings.Count(before, "\n") {
				t.Errorf("got %v, want one error at #! in\n%s", err, text)
				continue
			}
			wantRemedy(t, list[0])
			if !strings.Contains(list[0].Error(), k.Name) {
				t.Errorf("got %v, want it to name %s", err, k.Name)
			}
		}
	})
}

// What another zygote loads and calls has the names that are its own.
func TestAnotherZygoteHasItsOwnNames(t *testing.T) {
	text := `[worker.w]
entry = "App::Web.serve"
[floor]
preload = ["rack/builder", "./app"]
setup = "App.load!"
warm = "App.warm"
after_fork = "App.reopen"
zygote = ["bin/zygote", "-x"]
`
	f := mustParse(t, text)
	if want := []string{"/etc/prefork/bin/zygote", "-x"}; !slices.Equal(f.Floor.Zygote, want) {
		t.Errorf("got %q, want %q", f.Floor.Zygote, want)
	}
	wantRoundTrip(t, f)
	_, err := parse(strings.ReplaceAll(text, "zygote = ", "path = "))
	if list, ok := err.(fleetfile.Errors); !ok || len(list) != 6 {
		t.Errorf("a floor of prefork's own: %v, want an error for each name", err)
	}
	wantError(t, strings.Replace(text, "entry = \"App::Web.serve\"", "tasks = { a = \"a:b\" }", 1), 2, "worker.w.tasks")
}

// Keys of the contract that are not built yet must not be taken in silence.
func TestKeysWithoutEffectAreUnknown(t *testing.T) {
	for _, key := range []string{
		"survive",
	} {
		for _, header := range []string{"", "[floor]", "[socket.NAME]", "[worker.NAME]"} {
			text, line, table := fileWith(header, "", key+" = 1")
			wantError(t, text, line, table+key)
		}
	}
}
