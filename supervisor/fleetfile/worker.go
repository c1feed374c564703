// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/decnet/prefork/supervisor/internal/envfile"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/quantity"
)

const (
	maxAddresses     = 250              // the kernel passes at most 253 descriptors in one message
	startLimitPeriod = 10 * time.Second // of a start limit without one
)

// draft is a Worker while it is read, with what [defaults] has given.
type draft struct {
	Worker
	given
	tasks map[string]any // as they were written; [draft.readTasks] makes Tasks of them
}

func newDraft() *draft {
	return &draft{given: newGiven(), Worker: Worker{Count: 1, NotifyAccess: NotifyMain, IgnoreSIGPIPE: true, Policy: policy.Policy{
		Restart:         policy.RestartOnFailure,
		RestartSec:      time.Second,
		RestartMaxDelay: 30 * time.Second,
		RestartReset:    -1,
		TimeoutStart:    90 * time.Second,
		TimeoutStop:     15 * time.Second,
		KillSignal:      policy.SIGTERM,
		KillMode:        policy.KillMixed,
	}, Roll: policy.Rolling{MaxUnavailable: 1, Settle: time.Second}, Vital: policy.Vital{FailureAction: policy.EndNone, SuccessAction: policy.EndNone}}}
}

// clone shares lists and maps: setters replace them.
func (d *draft) clone() *draft {
	c := *d
	c.from, c.bad = maps.Clone(d.from), maps.Clone(d.bad)
	return &c
}

// check looks at what the keys of a worker say together.
func (d *draft) check(l *loader, path string, floor *Floor) {
	d.checkProgram(l, path, floor != nil)
	d.checkRestart(l)
	d.readTasks(l)
	d.checkIdentity(l, floor)
	d.checkMemory(l)
	d.checkNotify(l)
	d.checkOneshot(l)
	d.checkDescriptors(l)
	d.checkEarly(l)
}

// defaultRoll: two processes of a slot can share the sockets that connections come to;
// what else a slot is, a queue's consumer or the only one of its kind, it may have to be
// alone.
func (d *draft) defaultRoll(f *File) {
	if d.Roll.Order != "" {
		return
	}
	d.Roll.Order = policy.StopFirst
	for i := range f.Sockets {
		if s := &f.Sockets[i]; !d.Oneshot && s.Type == Stream && slices.Contains(d.Sockets, s.Name) {
			d.Roll.Order = policy.StartFirst
		}
	}
}

// checkDescriptors: addresses and stored descriptors travel in one message.
func (d *draft) checkDescriptors(l *loader) {
	total := 0
	for _, name := range d.Sockets {
		total += l.addresses[name]
	}
	store := d.from["file_descriptor_store_max"]
	switch {
	case total > maxAddresses:
		l.errorf(d.from["sockets"], "can hand down at most %d addresses, these have %d; use fewer", maxAddresses, total)
	case total+d.FDStoreMax > maxAddresses && !d.bad["file_descriptor_store_max"]:
		l.errorf(ofWorker(store, d.from["sockets"]),
			"file_descriptor_store_max (%d) and the addresses of sockets (%d) must be at most %d together; lower it to %d, or use fewer sockets",
			d.FDStoreMax, total, maxAddresses, maxAddresses-total)
	}
	if d.OnDemand && len(d.Sockets) == 0 && !d.bad["sockets"] && !d.bad["on_demand"] {
		l.errorf(d.from["on_demand"], "needs sockets to wait for; add sockets to each worker that has it, or remove it")
	}
}

func (d *draft) checkNotify(l *loader) {
	if d.NotifyAccess != NotifyNone || d.bad["notify_access"] {
		return
	}
	for _, k := range []struct {
		name  string
		needs bool
	}{
		{"tasks", d.from["tasks"] != ""},
		{"type", d.Policy.Notify},
		{"watchdog_sec", d.Policy.Watchdog > 0 && d.from["watchdog_sec"] != ""},
		{"file_descriptor_store_max", d.FDStoreMax > 0},
		{"recycle_requests", d.Recycle.Requests > 0},
	} {
		if k.needs && !d.bad[k.name] {
			l.errorf(ofWorker(d.from["notify_access"], d.from[k.name]),
				"notify_access = \"none\" forbids what %s needs; write notify_access = \"main\", or remove %s", k.name, k.name)
		}
	}
}

// ofWorker returns the first of two keys that contradict each other, but the
// second if only that one stands in the worker itself: what is right for other
// workers is not to blame.
func ofWorker(first, second string) string {
	if strings.HasPrefix(first, "defaults.") && second != "" && !strings.HasPrefix(second, "defaults.") {
		return second
	}
	return first
}

// lastKey is the name of a key in its table.
func lastKey(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func (d *draft) checkProgram(l *loader, path string, hasFloor bool) {
	entry, exec, tasks := d.from["entry"], d.from["exec"], d.from["tasks"]
	switch forked := cmp.Or(entry, tasks); {
	case entry != "" && tasks != "":
		l.errorf(tasks, "entry and tasks exclude each other; remove one of them")
	case forked != "" && exec != "":
		l.errorf(exec, "%s and exec exclude each other; remove one of them", lastKey(forked))
	case forked == "" && exec == "":
		l.errorf(path, `must have entry, exec or tasks; write entry = "app.web:serve" or exec = ["/usr/bin/app"], for example`)
	case forked != "" && !hasFloor:
		l.errorf(forked, "needs a [floor] to be forked from; add [floor], or use exec")
	case tasks != "" && l.otherZygote:
		l.errorf(tasks, "are run by prefork's own zygote, which is Python, and floor.zygote is another program; use entry, or remove floor.zygote")
	case forked != "" && len(d.AmbientCapabilities) > 0 && !d.bad["ambient_capabilities"] && l.otherFloor != "":
		l.errorf(ofWorker(d.from["ambient_capabilities"], forked),
			"ambient_capabilities cannot be given to what is forked from a floor with %s; remove that, use exec, or write ambient_capabilities = []", l.otherFloor)
	case forked != "" && !d.IgnoreSIGPIPE:
		l.errorf(ofWorker(d.from["ignore_sigpipe"], forked),
			"cannot be false for an entry: %s", l.sigpipeOfEntry())
	}
	for _, key := range []string{"args", "kwargs"} {
		switch {
		case d.from[key] == "" || entry != "":
		case exec != "":
			l.errorf(d.from[key], "is for entry only; remove it, or move it into exec")
		case tasks != "":
			l.errorf(d.from[key], "is for entry only; remove it, or move it into one of tasks")
		}
	}
	if d.from["lifespan"] != "" && tasks == "" {
		l.errorf(d.from["lifespan"], "is for tasks only; remove it, or write tasks = { main = %q } instead of entry", cmp.Or(d.Entry, "app.web:serve"))
	}
}

// checkIdentity: what is forked from a floor that has a user of its own has no
// right left to become anybody else.
func (d *draft) checkIdentity(l *loader, floor *Floor) {
	if floor == nil || floor.User == "" || !d.forked() {
		return
	}
	for _, key := range []string{"user", "group", "supplementary_groups"} {
		if d.from[key] != "" && (key != "user" || d.User != floor.User) {
			l.errorf(d.from[key], "cannot be changed in a worker of a floor that runs as %s; remove it, or remove floor.user", floor.User)
		}
	}
}

func (d *draft) checkRestart(l *loader) {
	p := &d.Policy
	burst, interval := d.from["start_limit_burst"], d.from["start_limit_interval_sec"]
	switch {
	case interval != "" && burst == "":
		l.errorf(interval, "has no effect without start_limit_burst; write start_limit_burst = 5, or remove it")
	case interval == "" && p.StartLimitBurst > 0:
		p.StartLimitPeriod = startLimitPeriod
	}
	sec, most := d.from["restart_sec"], d.from["restart_max_delay_sec"]
	switch {
	case p.RestartSec <= p.RestartMaxDelay, d.bad["restart_sec"], d.bad["restart_max_delay_sec"]:
		return
	case most == "":
		p.RestartMaxDelay = p.RestartSec
		return
	case sec == "":
		p.RestartSec = p.RestartMaxDelay // who has said one of them means that one
		return
	case strings.HasPrefix(most, "defaults."):
		most = sec // the file is right but for this worker, or both are in [defaults]
	}
	l.errorf(most, "restart_max_delay_sec (%s) must not be less than restart_sec (%s); raise it, or lower restart_sec",
		quantity.FormatTimeSpan(p.RestartMaxDelay), quantity.FormatTimeSpan(p.RestartSec))
}

func setExec(c *cell, d *draft) {
	d.Exec = c.texts(false, func(s string) bool { return !strings.ContainsRune(s, 0) })
	switch {
	case c.bad:
	case len(d.Exec) == 0:
		c.refuse()
	case d.Exec[0] == "":
		c.refuseItem(elem(c.path, 0), d.Exec[0])
	default:
		for i, s := range d.Exec {
			c.specifiers(elem(c.path, i), s, slotSpecifiers+fileSpecifiers)
		}
	}
}

func setSockets(c *cell, d *draft) {
	d.Sockets = nil
	for _, it := range c.items(false) {
		name, ok := it.v.(string)
		switch {
		case !ok || !isName(name):
			c.refuseItem(it.path, it.v)
			continue
		case slices.Contains(d.Sockets, name):
			c.fail(it.path, "the socket "+name+" is listed twice", "remove one of them")
		case c.declared != nil && !c.declared[name]:
			c.undeclared(it.path, name)
		}
		d.Sockets = append(d.Sockets, name)
	}
}

func (c *cell) undeclared(path, name string) {
	remedy := "add [socket." + name + "]"
	if near := Nearest(name, slices.Sorted(maps.Keys(c.declared))); near != "" {
		remedy = "did you mean " + near + "? Else " + remedy
	}
	c.fail(path, "there is no socket "+name, remedy)
}

func setEnvFiles(c *cell, d *draft) {
	d.EnvironmentFiles = nil
	for _, s := range c.texts(true, func(s string) bool { return isFile(strings.TrimPrefix(s, "-")) }) {
		name, optional := strings.CutPrefix(s, "-")
		d.EnvironmentFiles = append(d.EnvironmentFiles, envfile.File{Path: c.abs(name), Optional: optional})
	}
}

func showEnvFiles(d *draft) string {
	var list []string
	for _, f := range d.EnvironmentFiles {
		if f.Optional {
			f.Path = "-" + f.Path
		}
		list = append(list, f.Path)
	}
	return showTexts(list)
}

func setGroups(c *cell, d *draft) {
	d.SupplementaryGroups = nil
	for _, it := range c.items(false) {
		s, ok := identityText(it.v)
		if !ok {
			c.refuseItem(it.path, it.v)
			continue
		}
		d.SupplementaryGroups = append(d.SupplementaryGroups, s)
	}
}

func setUmask(c *cell, d *draft) {
	if n, ok := mode(c); ok {
		d.Umask = &n
	}
}

func showUmask(d *draft) string {
	if d.Umask == nil {
		return ""
	}
	return showMode(*d.Umask)
}

// optional is a whole number that may be left to the master.
func optional(dst func(*draft) **int, lo, hi int64) value[draft] {
	return value[draft]{
		set: func(c *cell, d *draft) {
			if n, ok := c.integer(lo, hi); ok {
				i := int(n)
				*dst(d) = &i
			}
		},
		show: func(d *draft) string {
			if *dst(d) == nil {
				return ""
			}
			return strconv.Itoa(**dst(d))
		},
	}
}

func serviceType[T any](notify func(*T) *bool) value[T] {
	return value[T]{
		set: func(c *cell, t *T) {
			if s, ok := c.text(func(s string) bool { return s == "simple" || s == "notify" }); ok {
				*notify(t) = s == "notify"
			}
		},
		show: func(t *T) string {
			if *notify(t) {
				return `"notify"`
			}
			return `"simple"`
		},
	}
}

// watchdog is a span of which infinity means none, as 0 does.
func watchdog() value[draft] {
	v := span(func(d *draft) *time.Duration { return &d.Policy.Watchdog }, true)
	set := v.set
	v.set = func(c *cell, d *draft) {
		if set(c, d); d.Policy.Watchdog == policy.Forever {
			d.Policy.Watchdog = 0
		}
	}
	return v
}

// burst and interval are printed together or not at all: an interval alone would
// be refused when it is read again.
func burst() value[draft] {
	v := whole(func(d *draft) *int { return &d.Policy.StartLimitBurst }, 0, 1000)
	v.show = ifLimited(v.show)
	return v
}

func interval() value[draft] {
	v := span(func(d *draft) *time.Duration { return &d.Policy.StartLimitPeriod }, true)
	v.show = ifLimited(v.show)
	return v
}

func ifLimited(show func(*draft) string) func(*draft) string {
	return func(d *draft) string {
		if d.Policy.StartLimitBurst == 0 && d.Policy.StartLimitPeriod == 0 {
			return ""
		}
		return show(d)
	}
}
