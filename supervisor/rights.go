// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// rights is what the kernel and the unit's sandbox let this master do for its
// workers. It is asked of the kernel, since capabilities alone do not tell: a
// system call filter refuses too.
type rights struct {
	users     bool // change to any user and group
	give      bool // files to any user
	nice      int  // the lowest that a worker can be given
	limits    bool // raise hard limits
	oomAdjust int  // the lowest that a worker can be given
	permitted uint64
	hidden    []string // directories of homes that nobody can look into
}

// checkRights refuses what this master has no right to do, before anything is
// started.
func checkRights(file *fleetfile.Fleet, managed bool) error {
	r := askRights(file)
	c := &rightsCheck{file: file, managed: managed}
	if file.Floor != nil {
		c.floor(file.Floor, r)
	}
	for i := range file.Workers {
		c.worker(&file.Workers[i], r)
	}
	return c.err
}

type rightsCheck struct {
	file    *fleetfile.Fleet
	managed bool
	err     error // the first one
}

func (c *rightsCheck) floor(f *fleetfile.Floor, r rights) {
	if f.User != "" && !r.users {
		c.refuse("floor.user", "change users", "users")
	}
	if f.User != "" && !r.give {
		c.refuse("floor.user", giveNotify, "users")
	}
	c.visible("floor.python", r, f.Python)
	c.visible("floor.path", r, f.Path...)
}

func (c *rightsCheck) worker(w *fleetfile.Worker, r rights) {
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
func (c *rightsCheck) visible(key string, r rights, paths ...string) {
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
func (c *rightsCheck) refuse(key, what, dropIn string) {
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
	c.err = &forbidden{fmt.Sprintf("%s: %s: this master has no right to %s: %s", c.file.Path, key, what, remedy)}
}

// askRights asks only for what the file needs: a probe changes nothing, but
// costs system calls and could be noticed by an audit.
func askRights(file *fleetfile.Fleet) rights {
	r := rights{permitted: permittedCapabilities(), nice: -20, oomAdjust: -1000}
	r.users = r.permitted&(1<<unix.CAP_SETUID) != 0 && r.permitted&(1<<unix.CAP_SETGID) != 0 && mayCallSetuid()
	r.give = r.permitted&(1<<unix.CAP_CHOWN) != 0
	var nice, oomAdjust []int // what workers want
	for i := range file.Workers {
		w := &file.Workers[i]
		if w.Nice != nil {
			nice = append(nice, *w.Nice)
		}
		if w.OOMScoreAdjust != nil {
			oomAdjust = append(oomAdjust, *w.OOMScoreAdjust)
		}
	}
	if len(nice) > 0 {
		r.nice = lowestNice(r.permitted, slices.Min(nice))
	}
	if len(oomAdjust) > 0 {
		r.oomAdjust = lowestOOMAdjust(slices.Min(oomAdjust))
	}
	r.limits = r.permitted&(1<<unix.CAP_SYS_RESOURCE) != 0
	r.hidden = slices.DeleteFunc([]string{"/home", "/root", "/run/user"}, func(dir string) bool { return !hides(dir) })
	return r
}

// hides tells whether something without any permission stands in the place of a
// directory, as ProtectHome= puts it there (systemd.exec(5)). A home that is only
// closed to this user is no concern of the unit.
func hides(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Mode&0o7777 == 0
}

func permittedCapabilities() uint64 {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0
	}
	return uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted)
}

// mayCallSetuid changes no identity: -1 leaves each as it is (setresuid(2)).
func mayCallSetuid() bool {
	const same = ^uintptr(0)
	_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, same, same)
	return errno == 0
}

// lowestNice is wanted itself if a worker can have it, else what is above it. A
// filter that refuses setpriority(2) refuses every value.
func lowestNice(permitted uint64, wanted int) int {
	const never = 20
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return never
	}
	current := 20 - raw // the system call returns 20 - nice (getpriority(2))
	if unix.Setpriority(unix.PRIO_PROCESS, 0, current) != nil {
		return never
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NICE, &limit) != nil {
		limit.Cur = 0
	}
	if permitted&(1<<unix.CAP_SYS_NICE) != 0 || wanted >= current || uint64(20-wanted) <= limit.Cur {
		return wanted
	}
	return current
}

const oomScoreFile = "/proc/self/oom_score_adj"

// oomScoreAdjust is the master's own, 0 if it cannot be read.
func oomScoreAdjust() int {
	text, err := os.ReadFile(oomScoreFile)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text))) // the kernel wrote it
	return n
}

// lowestOOMAdjust tries it: how far down a process without CAP_SYS_RESOURCE may
// go is not to be read anywhere (proc_pid_oom_score_adj(5)).
func lowestOOMAdjust(wanted int) int {
	current := oomScoreAdjust()
	if wanted >= current {
		return wanted
	}
	write := func(n int) error { return os.WriteFile(oomScoreFile, []byte(strconv.Itoa(n)), 0) }
	if err := write(wanted); errors.Is(err, os.ErrPermission) {
		return current
	}
	_ = write(current) // upwards, which is always allowed
	return wanted
}

// raises tells whether a limit is above the hard limit of this process.
func raises(l fleetfile.Limit) bool {
	var own unix.Rlimit
	return unix.Getrlimit(l.Resource, &own) == nil && l.Hard > own.Max
}

// ambient are the numbers of a worker's capabilities.
func ambient(w *fleetfile.Worker) []int {
	var numbers []int
	for _, name := range w.AmbientCapabilities {
		if n, ok := fleetfile.CapabilityNumber(name); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// favour gives a forked worker what only a capability of the master can: nothing
// that is forked from a floor has one. The process is at its gate, and finds that
// it has been given already what it then asks for.
func favour(p *process, w *fleetfile.Worker) error {
	if w.Entry == "" || os.Geteuid() == 0 { // who is root can do it itself, before it is another
		return nil
	}
	if w.Nice != nil {
		if err := unix.Setpriority(unix.PRIO_PROCESS, p.pid, *w.Nice); err != nil {
			return fmt.Errorf("nice %d: %w", *w.Nice, err)
		}
	}
	if w.OOMScoreAdjust != nil {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.pid), []byte(strconv.Itoa(*w.OOMScoreAdjust)), 0); err != nil {
			return err
		}
	}
	for _, l := range w.Limits {
		if err := unix.Prlimit(p.pid, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
	}
	return nil
}
