// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile_test

import (
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/envfile"
	"github.com/decnet/prefork/supervisor/policy"
)

func mustParse(t *testing.T, text string) *fleetfile.File {
	t.Helper()
	f, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	wantRoundTrip(t, f)
	return f
}

const exampleFile = `
description = "edge collectors"
ready_when = 3
timeout_start_sec = 0
stop_delay_sec = 5
start = "connection"
worker.last.exec = ["sleep", "1"] # first in the file

[floor]
python = "./venv/bin/python3"
path = ["/opt/app", "lib"]

[socket.http]
listen = ["0.0.0.0:8080", "[::]:8080", "[::1]:9090"]
reuse_port = true
[socket.dns]
listen = "8080"
type = "datagram"
free_bind = true

[defaults]
restart = "always"
restart_sec = "1min"
environment = { A = "1", B = "1" }
supplementary_groups = ["adm"]
limit_nofile = 1024
limit_cpu = "1500ms"
memory_high = "1.5G"
memory_max = 3221225472
cpu_weight = 10
ambient_capabilities = ["CAP_SYS_NICE", "CAP_CHOWN", "CAP_SYS_NICE"]
watchdog_sec = "1min"
notify_access = "all"

[worker.web]
entry = "app.web:Server.run"
args = ["x", 1, 1.0, true, [], [{}], { "a b" = [1] }]
kwargs = { a = 1e30 }
count = 4
sockets = ["http", "dns"]
environment = { B = "2", C = "3" }
environment_file = ["env", "-/etc/default/web"]
supplementary_groups = [27]
umask = 0o27
nice = 0
limit_nofile = "2048:infinity"
limit_nice = -5
limit_rttime = 200
restart = "on-abort"
restart_prevent_exit_status = ["TEMPFAIL 3 KILL", 0]
start_limit_burst = 2
timeout_stop_sec = "infinity"
kill_signal = "RTMAX-1"
kill_mode = "control-group"
failure_action = "exit"
success_action = "exit"
type = "notify"
watchdog_sec = "infinity"
file_descriptor_store_max = 128
on_demand = true
oom_score_adjust = 0
ambient_capabilities = []
memory_high = "infinity"
memory_max = "2G"
tasks_max = "infinity"
cpu_quota = "12.5%"
io_weight = 10000
[[worker.web.kwargs.list]]
b = 1.5
`

func TestExampleIsReadAsItIsMeant(t *testing.T) {
	f := mustParse(t, exampleFile)
	nice, oomScore, umask := 0, 0, uint32(0o27)
	ofAll := policy.Policy{
		Restart: policy.RestartAlways, RestartSec: time.Minute, RestartMaxDelay: time.Minute,
		RestartReset: -1, TimeoutStart: 90 * time.Second, TimeoutStop: 15 * time.Second, KillSignal: policy.SIGTERM,
		Watchdog: time.Minute, KillMode: policy.KillMixed,
	}
	ofWeb := ofAll
	ofWeb.KillMode = policy.KillControlGroup
	ofWeb.Restart, ofWeb.TimeoutStop, ofWeb.KillSignal = policy.RestartOnAbort, policy.Forever, 63
	ofWeb.RestartPrevent = policy.ExitSet{Codes: []int{0, 3, 75}, Signals: []policy.Signal{policy.SIGKILL}}
	ofWeb.Notify, ofWeb.Watchdog = true, 0
	ofWeb.StartLimitBurst, ofWeb.StartLimitPeriod = 2, 10*time.Second
	ip := netip.MustParseAddrPort
	want := &fleetfile.File{
		Name: "test", Path: "/etc/prefork/test.toml", Description: "edge collectors",
		ReadyWhen: policy.ReadyWhen{N: 3}, TimeoutStart: policy.Forever, StopDelay: 5 * time.Second, Start: fleetfile.StartConnection,
		Floor: &fleetfile.Floor{
			Python: "/etc/prefork/venv/bin/python3", Path: []string{"/opt/app", "/etc/prefork/lib"},
			Threads: fleetfile.Refuse, FDs: fleetfile.Refuse, GCFreeze: true, Spares: 1,
		},
		Sockets: []fleetfile.Socket{
			{Name: "http", Type: fleetfile.Stream, Backlog: 4096, ReusePort: true, Mode: 0o666, Listen: []fleetfile.Address{
				{Text: "0.0.0.0:8080", IP: ip("0.0.0.0:8080")},
				{Text: "[::]:8080", IP: ip("[::]:8080"), V6Only: true},
				{Text: "[::1]:9090", IP: ip("[::1]:9090")},
			}},
			{Name: "dns", Type: fleetfile.Datagram, Backlog: 4096, FreeBind: true, Mode: 0o666, Listen: []fleetfile.Address{
				{Text: "8080", IP: ip("[::]:8080")},
			}},
		},
		Workers: []fleetfile.Worker{{
			Name: "last", Count: 1, IgnoreSIGPIPE: true, Exec: []string{"sleep", "1"}, NotifyAccess: fleetfile.NotifyAll,
			AmbientCapabilities: []string{"CAP_SYS_NICE", "CAP_CHOWN"},
			MemoryHigh:          3 << 29, MemoryMax: 3 << 30, CPUWeight: 10,
			Environment: map[string]string{"A": "1", "B": "1"}, SupplementaryGroups: []string{"adm"},
			Limits: []fleetfile.Limit{{Name: "cpu", Soft: 2, Hard: 2}, {Resource: 7, Name: "nofile", Soft: 1024, Hard: 1024}},
			Policy: ofAll,
			Vital:  policy.Vital{FailureAction: policy.EndNone, SuccessAction: policy.EndNone},
			Roll:   policy.Rolling{Order: policy.StopFirst, MaxUnavailable: 1, Settle: time.Second},
		}, {
			Name: "web", Count: 4, IgnoreSIGPIPE: true, Entry: "app.web:Server.run", Sockets: []string{"http", "dns"},
			OnDemand: true, NotifyAccess: fleetfile.NotifyAll, FDStoreMax: 128,
			MemoryHigh: math.MaxUint64, MemoryMax: 2 << 30, TasksMax: math.MaxUint64,
			CPUWeight: 10, CPUQuota: 125 * time.Millisecond, IOWeight: 10000,
			Args: []any{
				"x", int64(1), 1.0, true,
				[]any{},
				[]any{map[string]any{}},
				map[string]any{"a b": []any{int64(1)}},
			},
			Kwargs:           map[string]any{"a": 1e30, "list": []any{map[string]any{"b": 1.5}}},
			Environment:      map[string]string{"A": "1", "B": "2", "C": "3"},
			EnvironmentFiles: []envfile.File{{Path: "/etc/prefork/env"}, {Path: "/etc/default/web", Optional: true}},
			Umask:            &umask, Nice: &nice, OOMScoreAdjust: &oomScore, SupplementaryGroups: []string{"27"},
			Limits: []fleetfile.Limit{
				{Name: "cpu", Soft: 2, Hard: 2},
				{Resource: 7, Name: "nofile", Soft: 2048, Hard: math.MaxUint64},
				{Resource: 13, Name: "nice", Soft: 25, Hard: 25},
				{Resource: 15, Name: "rttime", Soft: 200, Hard: 200},
			},
			Policy: ofWeb,
			Vital:  policy.Vital{FailureAction: policy.EndExit, SuccessAction: policy.EndExit},
			Roll:   policy.Rolling{Order: policy.StartFirst, MaxUnavailable: 1, Settle: time.Second},
		}},
	}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("got\n%+v\nwant\n%+v", f, want)
	}
}

func TestEmptyFileIsAnEmptyFleet(t *testing.T) {
	f := mustParse(t, "")
	if len(f.Workers) != 0 || f.Floor != nil || f.TimeoutStart != 5*time.Minute || f.ReadyWhen != (policy.ReadyWhen{}) {
		t.Errorf("got %+v", f)
	}
}

// A duplicate names the line of the first, whatever the spelling.
func TestDuplicateAddressNamesTheFirst(t *testing.T) {
	e := wantError(t, "[socket.a]\nlisten = \"8080\"\n\n[socket.b]\nlisten = \"[0::0]:8080\"\n", 5, "socket.b.listen")
	if !strings.Contains(e.Text, "line 2 by socket.a.listen") {
		t.Errorf("got %v", e)
	}
}

func TestSyntaxErrorsHaveLineAndKey(t *testing.T) {
	for text, want := range map[string]string{
		"a = 1\n[worker.x]\ncount = 1\ncount = 2\n": "4: worker.x.count: key 'worker.x.count' has already been defined; it is first in line 3, remove one of them",
		"[worker.a]\n[worker.a]\n":                  "2: worker.a: key 'worker.a' has already been defined; it is first in line 1, remove one of them",
		"count = \nfoo = 1":                         "1: count: expected value but found '\\n' instead; mend the TOML of this line",
		"x = \"abc\r\ny = 1":                        "1: x: strings cannot contain newlines; mend the TOML of this line",
		"\nx = \"\"\"abc\n":                         "2: x: unexpected EOF; expected '\"\"\"'; mend the TOML of this line",
		"\nfoo\n":                                   "2: expected '.' or '=', but got '\\n' instead; mend the TOML of this line",
		"\"\\\n\" = 1":                              "1: \"\\n\": invalid escape in string '\\\\n'; mend the TOML of this line",
		"a = 1\n\x01":                               "2: a control character (0x01) must be escaped; write \\u0001 in a string, or remove it",
		"\ufeff\ufeffa = 1":                         "1: a fleet file can have one byte order mark at most; remove the second",
		"a = 1\nb = '\xff'":                         "2: a fleet file must be UTF-8; save it in that encoding",
		"a = 1\rb = 2":                              "1: a line must not end in a carriage return alone; save the file with Unix line ends",
	} {
		if _, err := parse(text); err == nil || err.Error() != "/etc/prefork/test.toml:"+want {
			t.Errorf("got  %v\nwant %s\nin %q", err, want, text)
		}
	}
}

func TestWrongTableShapesAreRefused(t *testing.T) {
	for text, key := range map[string]string{
		"[[worker]]\nexec = [\"a\"]": "worker", "[[worker.a]]\nexec = [\"a\"]": "worker.a",
		"[[floor]]\n": "floor", "[[log]]\n": "log", "[[metrics]]\n": "metrics", "[[socket.a]]\nlisten = \"80\"": "socket.a", "[[defaults]]\n": "defaults",
	} {
		wantError(t, text, 1, key)
	}
}

// A word of another supervisor leads to ours, wherever it is written, and is none of ours.
func TestWordsOfOthersLeadToOurs(t *testing.T) {
	for word := range fleetfile.Foreign {
		for _, where := range []string{"", "[defaults]\n", "[worker.a]\nexec = [\"a\"]\n"} {
			_, err := parse(where + word + " = 1")
			if err == nil || !strings.Contains(err.Error(), "unknown key in ") || strings.Contains(err.Error(), "; move it") || strings.Contains(err.Error(), "; remove it (") {
				t.Errorf("%s%s: %v", where, word, err)
			}
		}
	}
	for text, want := range map[string]string{
		"[program:web]\ncommand = \"x\"":                  "did you mean [worker.web]?",
		"[service.web]\nx = 1":                            "unknown key in the top level; did you mean [worker.NAME]?",
		"workers = 4":                                     "unknown key in the top level; did you mean count in [worker.NAME]?",
		"[worker.a]\nexec = [\"a\"]\nenv = { A = \"b\" }": "unknown key in [worker.NAME]; did you mean environment?",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

// What decides between names that differ in one letter is not their order.
func TestSuggestionsAreOfTheSameTable(t *testing.T) {
	for text, want := range map[string]string{
		"[worker.a]\nexec = [\"a\"]\nRestartSec = 1":  "unknown key in [worker.NAME]; did you mean restart_sec?",
		"[worker.a]\nexec = [\"a\"]\nLimitNOFILE = 1": "unknown key in [worker.NAME]; did you mean limit_nofile?",
		"[worker.a]\nexec = [\"a\"]\nlisten = \"80\"": "unknown key in [worker.NAME]; move it to [metrics] or [socket.NAME], where it belongs",
		"count = 3":                     "unknown key in the top level; move it to [worker.NAME], where it belongs",
		"[workers.a]\nexec = [\"a\"]":   "unknown key in the top level; did you mean worker?",
		"[defaults]\npreload = [\"a\"]": "unknown key in [defaults]; move it to [floor], where it belongs",
		"[worker.a]\nexec = [\"a\"]\nambient_capabilities = [\"net_raw\"]":            "there is no capability \"net_raw\"; did you mean CAP_NET_RAW?",
		"[floor]\ncolour = \"red\"":                                                   "unknown key in [floor]; remove it (prefork init prints all keys that there are)",
		"[worker.a]\nexec = [\"a\"]\nsockets = [\"a\"]\n[socket.ab]\nlisten = \"80\"": "there is no socket a; did you mean ab? Else add [socket.a]",
	} {
		_, err := parse(text)
		list, ok := err.(fleetfile.Errors)
		if !ok || list[0].Text != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(exampleFile)
	f.Add(fleetfile.Template())
	for _, rows := range conflicts {
		for _, text := range rows {
			f.Add(text)
		}
	}
	for _, s := range positionSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parse(text)
		start := fleetfile.StartOfText(text)
		if err == nil {
			wantRoundTrip(t, got)
			if start != got.Start {
				t.Errorf("StartOf says %q, Parse %q", start, got.Start)
			}
			// What follows is broken. A value of several lines may be lost by that.
			if start = fleetfile.StartOfText(text + "\n["); start != got.Start && start != fleetfile.StartManual {
				t.Errorf("StartOf of the broken file says %q, Parse %q", start, got.Start)
			}
			return
		}
		if start != fleetfile.StartManual && start != fleetfile.StartBoot && start != fleetfile.StartConnection {
			t.Errorf("StartOf says %q", start)
		}
		list, ok := err.(fleetfile.Errors)
		if !ok || len(list) == 0 {
			t.Fatalf("got %T", err)
		}
		for _, e := range list {
			if e.Line < 1 || e.Line > 1+strings.Count(text, "\n") || strings.Contains(e.Error(), "\n") {
				t.Errorf("line %d: %q", e.Line, e)
			}
		}
		if !slices.IsSortedFunc(list, func(a, b *fleetfile.Error) int { return a.Line - b.Line }) {
			t.Errorf("not sorted: %v", err)
		}
	})
}

// An IPv6 wildcard leaves IPv4 to who names it, in a socket or in [metrics].
func TestMetricsShareAPortWithASocket(t *testing.T) {
	for _, text := range []string{
		"[metrics]\nlisten = \"[::]:80\"\n[socket.a]\nlisten = \"0.0.0.0:80\"",
		"[metrics]\nlisten = \"0.0.0.0:80\"\n[socket.a]\nlisten = \"80\"",
	} {
		f := mustParse(t, text)
		if six := f.Metrics.Listen.V6Only || f.Sockets[0].Listen[0].V6Only; !six {
			t.Errorf("both want IPv4: %+v, %+v", f.Metrics.Listen, f.Sockets[0].Listen)
		}
	}
	if f := mustParse(t, "[metrics]\nlisten = \"80\""); f.Metrics.Listen.V6Only {
		t.Error("nobody else wants IPv4")
	}
}

func TestVariablesOfTheMasterCannotBeSet(t *testing.T) {
	for _, name := range []string{
		"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "WATCHDOG_USEC", "WATCHDOG_PID",
		"PREFORK_SLOT", "MAINPID", "MAINPIDFDID", "FDSTORE", "JOURNAL_STREAM", "INVOCATION_ID", "SYSTEMD_EXEC_PID",
	} {
		for header, key := range map[string]string{"[floor]": "env", "[worker.NAME]": "environment"} {
			text, line, table := fileWith(header, key, key+" = { "+name+" = \"1\" }")
			wantError(t, text, line, table+key+"."+name)
		}
	}
}
