// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

var update = flag.Bool("update", false, "write the transcripts in testdata anew")

// TestTranscripts plays the scripts in testdata/*.txt. Such a file holds
//
//	# a comment
//	fleet spares=1 ready_when=2       the fleet and
//	worker web entry count=2          its workers
//	worker api exec type=notify       (also watchdog_sec=5s, on_demand, kill_mode=...)
//	0s  stop SIGTERM                  an event, at a time since the start
//	+5ms running web.0                or since the event before it
//	+5ms notified api.0 READY=1 STATUS=all is well
//	+5ms demand web                   a connection waits; or no-demand
//	+5ms exited web.0 by SIGKILL oom  for its memory
//	due                               a tick at the deadline
//	next worker web entry version=2   a line of the file that is read next, and
//	+1s reload                        the fleet is to be what it says
//	+1s restart fresh web.0           these slots anew; fresh: from a new floor
//	+1s cancel
//	+1s operate stop web.0            an operator wants that; or another verb
//	+1s examine 1                     the floor of that generation
//	+1s measured web.0 200            so many MB are its own
//	+1s stacks web.0                  it does not write them, what there was has been told
//
// and after each event, indented, what the fleet does about it: that is
// compared, or with -update written anew. A process is named by its number
// (#3), by its slot (web.0+ is the successor of
// web.0), or as floor (floor+ is the next one); a connection by the worker it is for. What a
// process says are the words of sd_notify(3), with times like 5s, and STATUS=
// takes the rest of the line; CAUSE= is the cause of its end, with _ for blanks.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := perform(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compare(t, got, string(want))
		})
	}
}

func compare(t *testing.T, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			t.Fatalf("line %d differs; got:\n%s\nwant:\n%s", i+1,
				strings.Join(g[max(0, i-3):min(len(g), i+4)], "\n"),
				strings.Join(w[max(0, i-3):min(len(w), i+4)], "\n"))
		}
	}
}

// stage is where a script is performed.
type stage struct {
	t   *testing.T
	cfg policy.Config
	f   *Fleet
	now policy.Instant

	next     policy.Config // of the file that is read next
	revision Revision
}

// perform returns the script with what the fleet does about it.
func perform(t *testing.T, script string) string {
	st := &stage{t: t, cfg: policy.Config{TimeoutStart: 5 * time.Minute, Host: policy.Host{Seed: 1}}}
	var out strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "\t") {
			continue
		}
		out.WriteString(line + "\n")
		if line != "" && line[0] != '#' {
			out.WriteString(st.line(strings.Fields(line)))
		}
	}
	return out.String()
}

func (st *stage) line(words []string) string {
	cfg := &st.cfg
	if words[0] == "next" {
		cfg, words = &st.next, words[1:]
	}
	switch words[0] {
	case "fleet":
		st.fleet(cfg, words[1:])
		return ""
	case "worker":
		st.worker(cfg, words[1:])
		return ""
	}
	if st.f == nil {
		st.f = New(st.cfg)
	}
	ev, heading := Event(Tick{}), ""
	if words[0] == "due" {
		st.now = st.f.Deadline()
		heading = fmt.Sprintf("\t(it is %s)\n", time.Duration(st.now).Round(ms))
	} else {
		st.moment(words[0])
		ev = st.event(words[1], words[2:])
	}
	text := heading + transcribe(st.f.Decide(st.now, ev))
	if !st.f.Ended() && st.f.Deadline() <= st.now {
		st.t.Fatalf("%s: deadline %d, now %d", words, st.f.Deadline(), st.now)
	}
	return text
}

// moment sets the time, which does not go back.
func (st *stage) moment(text string) {
	st.t.Helper()
	last := st.now
	if after, ok := strings.CutPrefix(text, "+"); ok {
		st.now = last.Add(st.span(after))
	} else {
		st.now = policy.Instant(st.span(text))
	}
	if st.now < last {
		st.t.Fatalf("%s lies before %s", text, time.Duration(last))
	}
}

func (st *stage) span(text string) time.Duration {
	st.t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		st.t.Fatal(err)
	}
	return d
}

func (st *stage) number(text string) int {
	st.t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		st.t.Fatal(err)
	}
	return n
}

func (st *stage) fleet(cfg *policy.Config, settings []string) {
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		switch key {
		case "spares":
			cfg.Spares = st.number(value)
		case "ready_when":
			cfg.ReadyWhen.N = st.number(value)
		case "timeout_start_sec":
			cfg.TimeoutStart = st.span(value)
		case "stop_delay_sec":
			cfg.StopDelay = st.span(value)
		case "extend":
			cfg.Extend = true
		case "floor":
			cfg.FloorKeys = []policy.Key{{Name: "preload", Class: policy.Birth, Sum: uint64(st.number(value))}}
		default:
			st.t.Fatalf("unknown setting %s", s)
		}
	}
}

// settings that are not born with.
var liveSettings = []string{
	"count", "restart", "start_limit_burst", "kill_mode", "max_unavailable", "settle_sec", "roll", "recycle_after", "recycle_private",
	"failure_action", "success_action", "after",
}

func (st *stage) worker(cfg *policy.Config, words []string) {
	w := policy.Worker{Name: words[0], Count: 1, Policy: defaults(), Roll: policy.Rolling{Order: policy.StartFirst, Settle: sec}}
	for _, s := range words[1:] {
		key, value, _ := strings.Cut(s, "=")
		class, value64 := policy.Birth, uint64(0)
		if slices.Contains(liveSettings, key) {
			class = policy.Live
		}
		for _, c := range value {
			value64 = value64*256 + uint64(c)
		}
		w.Keys = append(w.Keys, policy.Key{Name: key, Class: class, Sum: value64})
		switch key {
		case "version":
		case "memory_max":
			w.Keys[len(w.Keys)-1].Class = policy.Limit
		case "roll":
			w.Roll.Order = policy.Order(value)
		case "max_unavailable":
			w.Roll.MaxUnavailable = st.number(value)
		case "settle_sec":
			w.Roll.Settle = st.span(value)
		case "entry":
			w.Entry = true
		case "exec":
		case "counted":
			w.Counted = true
		case "count":
			w.Count = st.number(value)
		case "restart":
			w.Policy.Restart = policy.Restart(value)
		case "failure_action":
			w.Vital.FailureAction = policy.EndAction(value)
		case "success_action":
			w.Vital.SuccessAction = policy.EndAction(value)
		case "start_limit_burst":
			w.Policy.StartLimitBurst, w.Policy.StartLimitPeriod = st.number(value), 10*sec
		case "type":
			w.Policy.Notify, w.Oneshot = value == "notify", value == "oneshot"
		case "after":
			w.After = strings.Split(value, ",")
		case "watchdog_sec":
			w.Policy.Watchdog = st.span(value)
		case "on_demand":
			w.OnDemand = true
		case "sockets":
			w.Sockets = strings.Split(value, ",")
		case "recycle_after":
			w.Recycle.After = st.span(value)
		case "recycle_private":
			w.Recycle.Private = uint64(st.number(value)) << 20
		case "recycle_requests":
			w.Recycle.Requests = st.number(value)
		case "tasks":
			w.Tasks, w.Policy.Notify = strings.Split(value, ","), true
		case "kill_mode":
			w.Policy.KillMode = policy.KillMode(value)
		default:
			st.t.Fatalf("unknown setting %s", s)
		}
	}
	cfg.Workers = append(cfg.Workers, w)
}

func (st *stage) proc(name string) Proc {
	st.t.Helper()
	if number, ok := strings.CutPrefix(name, "#"); ok {
		return Proc(st.number(number))
	}
	switch name {
	case "floor":
		return st.f.floor.proc
	case "floor+":
		return st.f.change.floor.proc
	}
	base, next := strings.CutSuffix(name, "+")
	s := st.f.named(base)
	switch {
	case s == nil:
	case next:
		return s.next.proc
	default:
		return s.proc
	}
	st.t.Fatalf("no process %s", name)
	return 0
}

func (st *stage) workerNamed(name string) WorkerID {
	st.t.Helper()
	for i, w := range st.cfg.Workers {
		if w.Name == name {
			return WorkerID(i + 1)
		}
	}
	st.t.Fatalf("no worker %s", name)
	return 0
}

func (st *stage) event(name string, words []string) Event {
	switch name {
	case "tick":
		return Tick{}
	case "stop":
		return StopRequested{words[0]}
	case "demand":
		return Demand{st.workerNamed(words[0])}
	case "no-demand":
		return NoDemand{st.workerNamed(words[0])}
	case "saturated":
		return st.saturated(words)
	case "reload", "restart", "scale", "trial":
		return st.propose(ChangeKind(name), words)
	case "operate":
		return Operate{ID: 1, Slot: words[1], Call: verb.Call{Name: verb.Name(words[0])}, Who: "uid 0"}
	case "cancel":
		return Cancel{1, "uid 0"}
	case "examine":
		return Examine{1, st.number(words[0]), "uid 0"}
	}
	proc, rest := st.proc(words[0]), words[1:]
	text := strings.Join(rest, " ")
	switch name {
	case "progress":
		return FloorProgress{proc, text}
	case "loaded":
		return FloorLoaded{Proc: proc}
	case "broken":
		return FloorBroken{proc, text}
	case "introduced":
		return Introduced{proc, st.number(rest[1])}
	case "spawn-failed":
		return SpawnFailed{proc, text}
	case "running":
		return Running{proc}
	case "refused":
		return CannotBecome{proc, text}
	case "notified":
		return st.notified(proc, rest)
	case "exited":
		return st.exited(proc, rest)
	case "swept":
		return Swept{proc}
	case "measured":
		return Measured{Proc: proc, Private: uint64(st.number(rest[0])) << 20, Why: strings.Join(rest[1:], " ")}
	case "stacks":
		return StacksTaken{proc}
	case "task":
		return st.taskSaid(proc, rest)
	}
	st.t.Fatalf("unknown event %s", name)
	return nil
}

// saturated reads "http 37", "http 37 full" or "http ?", each for one socket.
func (st *stage) saturated(words []string) (ev Saturated) {
	st.t.Helper()
	for i := 0; i+1 < len(words); i += 2 {
		at := Saturation{Socket: words[i], Waiting: -1}
		if words[i+1] != "?" {
			at.Waiting = st.number(words[i+1])
		}
		if at.Full = i+2 < len(words) && words[i+2] == "full"; at.Full {
			i++
		}
		ev.At = append(ev.At, at)
	}
	return ev
}

func (st *stage) propose(kind ChangeKind, words []string) Event {
	st.revision = max(st.revision, 1) + 1
	ev := Propose{ID: uint64(st.revision), Kind: kind, Revision: st.revision, Who: "uid 0"}
	if len(words) > 0 && words[0] == "fresh" {
		ev.Fresh, words = true, words[1:]
	}
	if kind == ChangeReload || ev.Fresh && len(st.next.Workers) > 0 {
		next := st.next
		next.TimeoutStart = max(next.TimeoutStart, 5*time.Minute)
		ev.Config, ev.Reloads, st.next = &next, true, policy.Config{}
		return ev
	}
	if kind == ChangeScale {
		count := policy.FromFile
		if words[1] != "file" {
			count = st.number(words[1])
		}
		ev.Scale = &policy.Scale{Worker: words[0], Count: count}
		return ev
	}
	ev.Slots = words
	return ev
}
