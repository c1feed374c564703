// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/revisions"
	"github.com/decnet/prefork/supervisor/rights"
	"github.com/decnet/prefork/supervisor/slots"
	"github.com/decnet/prefork/supervisor/zygote"
)

// book writes the orders of all processes.
type book struct {
	revisions *revisions.Table
	managed   bool
	pid, uid  int      // of this process
	oomScore  int      // its oom_score_adj
	base      []string // the environment of programs
}

func newBook(c Config) *book {
	others := func(variable string) bool {
		return strings.HasPrefix(variable, recycleRequests) || strings.HasPrefix(variable, fleetfile.CountPrefix)
	}
	return &book{
		revisions: c.Revisions, managed: c.Managed,
		pid: os.Getpid(), uid: os.Geteuid(), oomScore: c.OOMScore, base: slices.DeleteFunc(os.Environ(), others),
	}
}

// recycleRequests tells a worker that has recycle_requests after how many it is to be
// replaced. A fleet can be a worker of another one.
const recycleRequests = "PREFORK_RECYCLE_REQUESTS="

// floorOrders make the shim the interpreter of a floor.
func (b *book) floorOrders(r *revisions.Revision, generation int) *gate.Orders {
	floor := r.File.Floor
	o := &gate.Orders{
		Fleet: r.File.Name, Slot: "floor", Generation: generation,
		User:        floor.User,
		DeathSignal: !b.managed, Master: b.pid,
		OOMScoreAdjust: b.resetOOMScore(),
		Base:           b.base,
		// Workers inherit the variable: what is the same need not be set in each.
		Env:     append(list(floor.Env), "PREFORK_FLEET="+r.File.Name),
		Reserve: r.Descriptors(),
		Argv:    floor.Zygote,
	}
	if b.uid != 0 { // root has them, and loses the others when it becomes the worker's user
		o.Ambient = rights.AmbientOfForked(r.File)
	}
	if o.Argv == nil {
		o.Argv = zygote.Argv(floor.Python, o.Reserve)
	} else {
		o.Env = append(o.Env, zygote.Environment(o.Reserve)...)
	}
	return o
}

// floorMessage tells the interpreter what to load.
func (b *book) floorMessage(r *revisions.Revision, generation int) zygote.LoadRequest {
	floor := r.File.Floor
	msg := zygote.LoadRequest{
		Fleet: r.File.Name, Generation: generation,
		Title:   fmt.Sprintf("prefork: floor [%s] gen %d", r.File.Name, generation),
		Path:    floor.Path,
		Preload: floor.Preload, Setup: floor.Setup, Warm: floor.Warm,
		AllowThreads: floor.Threads == fleetfile.Allow,
		AllowFDs:     floor.FDs == fleetfile.Allow,
		Prctl:        !b.managed,
	}
	if floor.Zygote == nil {
		msg.Python = &zygote.Python{Repack: floor.Repack, Immortal: floor.Immortal, GCFreeze: floor.GCFreeze}
		for _, call := range r.File.Calls() {
			msg.Python.Calls = append(msg.Python.Calls, call.Place+" "+call.Name)
		}
	}
	for i := range r.File.Workers {
		w := &r.File.Workers[i]
		if !w.Forked() {
			continue
		}
		if w.Entry != "" {
			msg.Entries = append(msg.Entries, w.Entry)
		}
		if msg.Python != nil && len(w.Tasks) > 0 {
			msg.Python.Tasks = true
		}
		msg.Prctl = msg.Prctl || w.NoNewPrivileges
		if msg.Python != nil && len(w.AmbientCapabilities) > 0 {
			msg.Python.Capable = true
		}
	}
	return msg
}

// slotOrders make a process at its gate one slot, with what its environment files hold.
// The descriptors, of which that of the output is not one, stay the master's.
func (b *book) slotOrders(p *procs.Process, s *slots.Slot, env []string, journal string) (*gate.Orders, []int) {
	w, name := s.Config.Of(s.Index, p.Birth.Count), s.Revision.File.Name
	o := b.workerOrders(s.Revision.File, w)
	o.Slot, o.Index, o.Comm, o.Generation = s.Name, s.Index, s.Name, p.Generation
	p.Title = fmt.Sprintf("prefork: %s [%s] gen %d", s.Name, name, p.Generation)
	o.Title = p.Title
	o.Env = append(append(env, list(w.Environment)...), slotVariables(name, w.Name, s.Index, p.Birth.Count, p.Invocation)...)
	if path := s.NotifySocket(); path != "" {
		o.Env, o.Notify = append(o.Env, "NOTIFY_SOCKET="+path), path
	}
	if w.FDStoreMax > 0 {
		o.Env = append(o.Env, fmt.Sprintf("FDSTORE=%d", w.FDStoreMax))
	}
	if n := w.Recycle.Requests; n > 0 {
		n += mathrand.IntN(n/10 + 1) // slots that share a load do not have theirs at the same time
		o.Env = append(o.Env, recycleRequests+strconv.Itoa(n))
	}
	if journal != "" {
		o.Env = append(o.Env, "JOURNAL_STREAM="+journal)
	}
	var fds []int
	for _, l := range s.Sockets() {
		o.Listen = append(o.Listen, l.Name)
		fds = append(fds, l.FD)
	}
	names, stored := s.Stored()
	o.Stored = names
	return o, append(fds, stored...)
}

// slotVariables tell a process which slot it is, of so many.
func slotVariables(fleet, worker string, index, count int, invocation string) []string {
	return []string{
		"PREFORK_FLEET=" + fleet,
		"PREFORK_WORKER=" + worker,
		"PREFORK_SLOT=" + worker + "." + strconv.Itoa(index),
		"PREFORK_INDEX=" + strconv.Itoa(index),
		"PREFORK_COUNT=" + strconv.Itoa(count),
		"PREFORK_INVOCATION_ID=" + invocation,
	}
}

// tasks are those of a worker, with the keys that what runs them reads. Times are
// nanoseconds.
func tasks(w *fleetfile.Worker) string {
	var all []any
	for i := range w.Tasks {
		t := &w.Tasks[i]
		p := &t.Policy
		kwargs := t.Kwargs
		if kwargs == nil {
			kwargs = map[string]any{}
		}
		all = append(all, map[string]any{
			"name": t.Name, "entry": t.Entry, "args": t.Args, "kwargs": kwargs,
			"failure_action": string(t.FailureAction), "notify": p.Notify, "timeout_start_sec": int64(p.TimeoutStart),
			"restart": string(p.Restart), "restart_sec": int64(p.RestartSec), "restart_max_delay_sec": int64(p.RestartMaxDelay),
			"restart_reset_sec": int64(p.RestartReset),
			"start_limit_burst": int64(p.StartLimitBurst), "start_limit_interval_sec": int64(p.StartLimitPeriod),
		})
	}
	return zygote.ListLiteral(all)
}

// resetOOMScore lets a process be killed for memory before the master is: the
// unit protects that one, and every child inherits it.
func (b *book) resetOOMScore() *int {
	if b.oomScore < 0 {
		return new(0)
	}
	return nil
}

// workerOrders is the part of the orders that is the same for each start of a
// worker.
func (b *book) workerOrders(file *fleetfile.File, w *fleetfile.Worker) *gate.Orders {
	o := &gate.Orders{
		Fleet: file.Name, Worker: w.Name,
		Dir: w.WorkingDirectory, User: w.User, Group: w.Group, ExtraGroups: w.SupplementaryGroups,
		Umask: w.Umask, Nice: w.Nice, NoNewPrivs: w.NoNewPrivileges, Ambient: rights.Ambient(w),
		DeathSignal: !b.managed, Master: b.pid,
	}
	for _, l := range w.Limits {
		o.Limits = append(o.Limits, gate.Limit{Resource: l.Resource, Soft: l.Soft, Hard: l.Hard})
	}
	if !w.Forked() {
		o.Base, o.Argv, o.IgnoreSIGPIPE = b.base, w.Exec, w.IgnoreSIGPIPE
		o.OOMScoreAdjust = b.resetOOMScore()
	} else {
		o.Entry, o.AfterFork = w.Entry, file.Floor.AfterFork
		o.Args, o.Kwargs = zygote.ListLiteral(w.Args), zygote.DictLiteral(w.Kwargs)
		o.Tasks, o.Lifespan = tasks(w), w.Lifespan
	}
	if w.OOMScoreAdjust != nil {
		o.OOMScoreAdjust = w.OOMScoreAdjust
	}
	if w.Policy.Watchdog > 0 && w.Policy.Watchdog != policy.Forever {
		o.Watchdog = w.Policy.Watchdog
	}
	return o
}

// newInvocation is fresh for each start, like systemd's INVOCATION_ID.
func newInvocation() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// list turns variables into NAME=VALUE, sorted.
func list(env map[string]string) []string {
	var kvs []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		kvs = append(kvs, name+"="+env[name])
	}
	return kvs
}
