// SPDX-License-Identifier: AGPL-3.0-or-later

// Package rights knows what this master may do for its workers, and refuses a fleet file
// that asks for more, before anything is started: with the key, what it needs, and how to
// get it.
package rights

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// Forbidden is a key of the fleet file that this master is not permitted to honour.
type Forbidden struct{ Text string }

func (f *Forbidden) Error() string { return f.Text }

// Check refuses what this master is not permitted to do, before anything is
// started. managed says that systemd started it. An error is a [*Forbidden].
func Check(file *fleetfile.File, managed bool) error {
	return checkFor(file, managed, lowestOOMAdjust)
}

// Recheck refuses what a master that runs a file already is not permitted to do for
// another, without a trial that its workers could notice. It is for any goroutine.
func Recheck(running, file *fleetfile.File, managed bool) error {
	return checkFor(file, managed, func(int) int {
		lowest := OOMScoreAdjust()
		if permittedCapabilities()&(1<<unix.CAP_SYS_RESOURCE) != 0 {
			lowest = lowestOOMScore
		}
		for i := range running.Workers {
			if n := running.Workers[i].OOMScoreAdjust; n != nil {
				lowest = min(lowest, *n) // that was tried
			}
		}
		return lowest
	})
}

// checkFor takes the lowest oom_score_adj of a worker that wants so much from a function.
func checkFor(file *fleetfile.File, managed bool, oomAdjust func(wanted int) int) error {
	r := ask(file, oomAdjust)
	c := &check{file: file, managed: managed}
	if file.Floor != nil {
		c.floor(file.Floor, r)
	}
	for i := range file.Workers {
		c.worker(&file.Workers[i], r)
	}
	return c.err
}

type check struct {
	file    *fleetfile.File
	managed bool
	err     error // the first one
}

func (c *check) floor(f *fleetfile.Floor, r mayDo) {
	if f.User != "" && !r.users {
		c.refuse("floor.user", "change users", "users")
	}
	if f.User != "" && !r.give {
		c.refuse("floor.user", giveNotify, "users")
	}
	if f.Zygote != nil {
		c.visible("floor.zygote", r, f.Zygote[0])
	} else {
		c.visible("floor.python", r, f.Python)
	}
	c.visible("floor.path", r, f.Path...)
}

func (c *check) worker(w *fleetfile.Worker, r mayDo) {
	key := func(name string) string { return "worker." + w.Name + "." + name }
	if !r.users {
		switch {
		case w.User != "":
			c.refuse(key("user"), "change users", "users")
		case w.Group != "":
			c.refuse(key("group"), "change groups", "users")
		case len(w.SupplementaryGroups) > 0:
			c.refuse(key("supplementary_groups"), "change groups", "users")
		}
	}
	if w.User != "" && !r.give && w.NotifyAccess != fleetfile.NotifyNone {
		c.refuse(key("user"), giveNotify, "users")
	}
	if w.Nice != nil && *w.Nice < r.nice {
		c.refuse(key("nice"), fmt.Sprintf("set nice %d", *w.Nice), "priorities")
	}
	if w.OOMScoreAdjust != nil && *w.OOMScoreAdjust < r.oomAdjust {
		c.refuse(key("oom_score_adjust"), fmt.Sprintf("set oom_score_adjust %d", *w.OOMScoreAdjust), "priorities")
	}
	for _, l := range w.Limits {
		if !r.limits && raises(l) {
			c.refuse(key(l.Name), "raise a hard limit", "priorities")
		}
	}
	for _, name := range w.AmbientCapabilities {
		if n, ok := fleetfile.CapabilityNumber(name); ok && r.permitted&(1<<n) == 0 {
			c.refuse(key("ambient_capabilities"), "give "+name, dropInFor(name))
		}
	}
	c.visible(key("working_directory"), r, w.WorkingDirectory)
	if len(w.Exec) > 0 { // what its arguments mean is its own affair
		c.visible(key("exec"), r, w.Exec[0])
	}
	for _, f := range w.EnvironmentFiles {
		c.visible(key("environment_file"), r, f.Path)
	}
}

const giveNotify = "give a notify socket to another user (CAP_CHOWN)"

// visible refuses paths that the unit hides.
func (c *check) visible(key string, r mayDo, paths ...string) {
	for _, path := range paths {
		for _, dir := range r.hidden {
			if path == dir || strings.HasPrefix(path, dir+"/") {
				c.refuse(key, "see "+path, "home")
			}
		}
	}
}

// dropInFor is the shipped drop-in that has a capability.
func dropInFor(capability string) string {
	switch capability {
	case "CAP_NET_RAW", "CAP_NET_ADMIN":
		return "raw-sockets"
	case "CAP_SYS_NICE", "CAP_SYS_RESOURCE":
		return "priorities"
	default:
		return ""
	}
}

// refuse names the key, what it needs, and how to get it.
func (c *check) refuse(key, what, dropIn string) {
	if c.err != nil {
		return
	}
	remedy := "run prefork as root, or remove the key"
	unit := "prefork@" + c.file.Name + ".service"
	switch {
	case c.managed && dropIn != "":
		remedy = fmt.Sprintf("remove the key, or allow it: install -D -m0644 -t /etc/systemd/system/%s.d /usr/share/prefork/%s.conf && "+
			"systemctl daemon-reload && systemctl restart %s", unit, dropIn, unit)
	case c.managed:
		remedy = fmt.Sprintf("remove the key, or add the capability to AmbientCapabilities= and CapabilityBoundingSet= with systemctl edit %s", unit)
	}
	c.err = &Forbidden{Text: fmt.Sprintf("%s: %s: this master is not permitted to %s: %s", c.file.Path, key, what, remedy)}
}
