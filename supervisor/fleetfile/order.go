// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"slices"
	"strings"

	"github.com/decnet/prefork/supervisor/policy"
)

func setAfter(c *cell, d *draft) {
	d.After = nil
	for _, it := range c.items(false) {
		name, ok := it.v.(string)
		switch {
		case !ok || !isName(name):
			c.refuseItem(it.path, it.v)
		case slices.Contains(d.After, name):
			c.fail(it.path, "the worker "+name+" is listed twice", "remove one of them")
		default:
			d.After = append(d.After, name)
		}
	}
}

// notAfterItself: what [defaults] names is what all others are after.
func (d *draft) notAfterItself() {
	if !strings.HasPrefix(d.from["after"], "defaults.") {
		return
	}
	var others []string
	for _, name := range d.After {
		if name != d.Name {
			others = append(others, name)
		}
	}
	d.After = others
}

// checkOrder looks at which workers are after which.
func (l *loader) checkOrder(names []string, workers []*draft) {
	at := func(d *draft) string { return ofWorker(d.from["after"], join("worker", d.Name)) }
	after := map[string][]string{}
	drafts := map[string]*draft{}
	for _, d := range workers {
		drafts[d.Name] = d
		for i, name := range d.After {
			switch near := Nearest(name, names); {
			case name == d.Name:
				l.errorf(elem(d.from["after"], i), "a worker cannot be after itself; remove it")
				continue
			case slices.Contains(names, name):
			case near != "":
				l.errorf(elem(d.from["after"], i), "there is no worker %s; did you mean %s? Else add [worker.%s]", name, near, name)
			default:
				l.errorf(elem(d.from["after"], i), "there is no worker %s; add [worker.%s]", name, name)
			}
			after[d.Name] = append(after[d.Name], name)
		}
	}
	circle := policy.Circle(names, func(name string) []string { return after[name] })
	if circle == nil {
		return
	}
	text := circle[0]
	for _, name := range append(circle[1:], circle[0]) {
		text += " is after " + name + ", which"
	}
	text = strings.TrimSuffix(text, ", which")
	l.errorf(at(drafts[circle[0]]), "%s: none of them could start; remove one of these", text)
}

// workerType is a serviceType that can be oneshot, too.
func workerType() value[draft] {
	v := serviceType(func(d *draft) *bool { return &d.Policy.Notify })
	return value[draft]{
		set: func(c *cell, d *draft) {
			if d.Oneshot = c.v == "oneshot"; d.Oneshot {
				d.Policy.Notify = false
				return
			}
			v.set(c, d)
		},
		show: func(d *draft) string {
			if d.Oneshot {
				return `"oneshot"`
			}
			return v.show(d)
		},
	}
}

// checkOneshot: what runs once is never ready, and there are never two of it. As in
// systemd, it may take as long as it does if nothing else is said.
func (d *draft) checkOneshot(l *loader) {
	if !d.Oneshot {
		return
	}
	if d.from["timeout_start_sec"] == "" {
		d.Policy.TimeoutStart = policy.Forever
	}
	at := d.from["type"]
	switch r := d.Policy.Restart; {
	case d.from["tasks"] != "":
		l.errorf(ofWorker(at, d.from["tasks"]), "cannot be oneshot with tasks, which run as long as their process; use entry or exec")
	case d.OnDemand:
		l.errorf(ofWorker(d.from["on_demand"], at), "a oneshot is not started by connections; remove it, or write type = \"simple\"")
	case r == policy.RestartAlways, r == policy.RestartOnSuccess:
		l.errorf(ofWorker(d.from["restart"], at), "cannot be %q with type = \"oneshot\", which ends when it has done its work; write restart = \"on-failure\"", string(r))
	case d.Roll.Order == policy.StartFirst:
		l.errorf(ofWorker(d.from["roll"], at), "cannot be \"start-first\" with type = \"oneshot\", of which there are never two; write roll = \"stop-first\"")
	}
}
