// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/revisions"
	"github.com/decnet/prefork/supervisor/sockets"
	"github.com/decnet/prefork/supervisor/zygote"
)

// What comes later wins: the files in their order, then environment, then what the master
// itself says, which nothing in a file can change.
func TestTheEnvironmentOfASlot(t *testing.T) {
	h := newHouse(t, &fleetfile.File{
		Name: "test", Floor: &fleetfile.Floor{Python: "python3"},
		Workers: []fleetfile.Worker{{
			Name: "web", Count: 2, Entry: "a:b", NotifyAccess: fleetfile.NotifyMain, FDStoreMax: 3,
			Environment: map[string]string{"B": "table"},
		}},
	})
	s := h.slots.All()[1]
	o, fds := h.book.slotOrders(&procs.Process{Invocation: "x", Generation: 4}, s, []string{"A=file", "B=file", "PREFORK_SLOT=none"}, "8:9")
	want := []string{
		"A=file", "B=file", "PREFORK_SLOT=none", "B=table",
		"PREFORK_FLEET=test", "PREFORK_WORKER=web", "PREFORK_SLOT=web.1", "PREFORK_INDEX=1", "PREFORK_COUNT=0", "PREFORK_INVOCATION_ID=x",
		"NOTIFY_SOCKET=" + s.NotifySocket(), "FDSTORE=3", "JOURNAL_STREAM=8:9",
	}
	if !slices.Equal(o.Env, want) || len(fds) != 0 {
		t.Errorf("got\n%q, want\n%q", o.Env, want)
	}
	if o.Notify != s.NotifySocket() || o.Title != "prefork: web.1 [test] gen 4" || o.Index != 1 || o.Entry != "a:b" || o.Argv != nil {
		t.Errorf("got %+v", o)
	}
}

// What is the same for each start of a worker is made once, and no start changes it.
func TestOrdersAreNotMixed(t *testing.T) {
	h := newHouse(t, &fleetfile.File{Name: "test", Workers: []fleetfile.Worker{
		{Name: "a", Count: 2, Exec: []string{"/bin/a"}, Policy: policy.Policy{Watchdog: time.Second}},
		{Name: "b", Count: 1, Exec: []string{"/bin/b"}, Nice: new(5), Limits: []fleetfile.Limit{{Resource: 7, Soft: 1, Hard: 2}}, Policy: policy.Policy{Watchdog: policy.Forever}},
	}})
	var all []*gate.Orders
	for _, s := range h.slots.All() {
		o, _ := h.book.slotOrders(&procs.Process{}, s, nil, "")
		all = append(all, o)
	}
	for i, want := range []string{"a.0", "a.1", "b.0"} {
		if all[i].Slot != want || !slices.Contains(all[i].Env, "PREFORK_SLOT="+want) || all[i].Comm != want {
			t.Errorf("got %+v, want those of %s", all[i], want)
		}
	}
	a, b := all[0], all[2]
	if a.Watchdog != time.Second || a.Nice != nil || !slices.Equal(a.Argv, []string{"/bin/a"}) || len(a.Limits) != 0 {
		t.Errorf("a: %+v", a)
	}
	if b.Watchdog != 0 || *b.Nice != 5 || !slices.Equal(b.Argv, []string{"/bin/b"}) || !slices.Equal(b.Limits, []gate.Limit{{Resource: 7, Soft: 1, Hard: 2}}) {
		t.Errorf("b: %+v", b)
	}
}

// A master that systemd runs is ended with its unit: only another ends its children by
// their death signal. Who is protected from the OOM killer does not hand that down.
func TestWhatDependsOnTheMaster(t *testing.T) {
	file := &fleetfile.File{
		Floor:   &fleetfile.Floor{Python: "python3"},
		Workers: []fleetfile.Worker{{Name: "a", Exec: []string{"x"}}, {Name: "b", Entry: "a:b", FDStoreMax: 2}, {Name: "c", Exec: []string{"x"}, OOMScoreAdjust: new(3)}},
	}
	told := revisions.New(file, &sockets.Sockets{})
	r := &revisions.Revision{File: file, Sockets: &sockets.Set{}}
	for _, managed := range []bool{false, true} {
		b := newBook(Config{Revisions: told, Managed: managed, OOMScore: -100})
		floor, program := b.floorOrders(r, 1), b.workerOrders(file, &file.Workers[0])
		if floor.DeathSignal == managed || program.DeathSignal == managed || b.floorMessage(r, 1).Prctl == managed {
			t.Errorf("managed: %t, floor %+v, program %+v", managed, floor, program)
		}
		if *floor.OOMScoreAdjust != 0 || *program.OOMScoreAdjust != 0 || b.workerOrders(file, &file.Workers[1]).OOMScoreAdjust != nil || *b.workerOrders(file, &file.Workers[2]).OOMScoreAdjust != 3 {
			t.Error("oom_score_adj is handed down")
		}
		if floor.Reserve != 16 || !slices.Equal(b.floorMessage(r, 1).Entries, []string{"a:b"}) {
			t.Errorf("got %+v", floor)
		}
	}
	if o := newBook(Config{Revisions: told}).workerOrders(file, &file.Workers[0]); o.OOMScoreAdjust != nil {
		t.Errorf("nothing is to be reset: got %d", *o.OOMScoreAdjust)
	}
}

// What runs tasks reads every key of a task that it is sent, and no other.
func TestTasksAreSentWhatTheyRead(t *testing.T) {
	h := newHouse(t, &fleetfile.File{
		Name: "test", Floor: &fleetfile.Floor{Python: "python3", AfterFork: "a:after"},
		Workers: []fleetfile.Worker{{
			Name: "io", Count: 1, NotifyAccess: fleetfile.NotifyMain, Lifespan: "a:lifespan",
			Tasks: []fleetfile.Task{{Name: "t", Entry: "a:b", Args: []any{int64(1)}, Policy: policy.Policy{RestartSec: time.Second}}},
		}},
	})
	o, _ := h.book.slotOrders(&procs.Process{}, h.slots.All()[0], nil, "")
	if o.Entry != "" || o.Argv != nil || o.Lifespan != "a:lifespan" || o.AfterFork != "a:after" || !strings.Contains(o.Tasks, `"restart_sec": 1000000000`) {
		t.Errorf("got %+v", o)
	}
	keysOf := func(pattern, text string) (keys []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			keys = append(keys, m[1])
		}
		slices.Sort(keys)
		return keys
	}
	sent, read := keysOf(`"(\w+)": `, o.Tasks), keysOf(`table\["(\w+)"\]`, zygote.Tasks())
	if !slices.Equal(sent, read) || len(read) < 10 {
		t.Errorf("sent\n%q, read\n%q", sent, read)
	}
	if msg := h.book.floorMessage(h.slots.All()[0].Revision, 1); !msg.Python.Tasks || len(msg.Entries) != 0 {
		t.Errorf("the floor is told %+v", msg.Entries)
	}
}
