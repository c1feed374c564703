// SPDX-License-Identifier: AGPL-3.0-or-later

package rights

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// mayDo is what the kernel and the unit's sandbox let this master do for its
// workers. It is asked of the kernel, since capabilities alone do not tell: a
// system call filter refuses too.
type mayDo struct {
	users     bool // change to any user and group
	give      bool // files to any user
	nice      int  // the lowest that a worker can be given
	limits    bool // raise hard limits
	oomAdjust int  // the lowest that a worker can be given
	permitted uint64
	hidden    []string // directories of homes that nobody can look into
}

// ask asks only for what the file needs: a probe changes nothing, but
// costs system calls and could be noticed by an audit.
func ask(file *fleetfile.File, lowestOOMAdjust func(wanted int) int) mayDo {
	r := mayDo{permitted: permittedCapabilities(), nice: -20, oomAdjust: lowestOOMScore}
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

// hides reports whether something without any permission stands in the place of a
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

// lowestOOMScore is the kernel's (proc_pid_oom_score_adj(5)).
const lowestOOMScore = -1000

const oomScoreFile = "/proc/self/oom_score_adj"

// OOMScoreAdjust is the master's own, 0 if it cannot be read.
func OOMScoreAdjust() int {
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
	current := OOMScoreAdjust()
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

// raises reports whether a limit is above the hard limit of this process.
func raises(l fleetfile.Limit) bool {
	var own unix.Rlimit
	return unix.Getrlimit(l.Resource, &own) == nil && l.Hard > own.Max
}
