// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/policy"
)

// Real-time signals as the C library numbers them: it keeps 32 and 33 for
// itself.
const (
	rtMin = 34
	rtMax = 64
)

// ParseSignal reads SIGTERM, TERM, 15, SIGRTMIN+3 or SIGRTMAX-1.
func ParseSignal(s string) (policy.Signal, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return policy.Signal(n), s == strconv.Itoa(n) && (n >= 1 && n < 32 || n >= rtMin && n <= rtMax)
	}
	name := strings.TrimPrefix(s, "SIG")
	if n := unix.SignalNum("SIG" + name); n > 0 {
		return policy.Signal(n), true
	}
	if name == "RTMIN" {
		return rtMin, true
	}
	if name == "RTMAX" {
		return rtMax, true
	}
	if offset, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		n, err := strconv.ParseUint(offset, 10, 8)
		return policy.Signal(rtMin + n), err == nil && rtMin+n <= rtMax
	}
	if offset, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		n, err := strconv.ParseUint(offset, 10, 8)
		return policy.Signal(rtMax - n), err == nil && n <= rtMax-rtMin
	}
	return 0, false
}

// SignalNames are the names that [ParseSignal] reads, without those of real-time signals
// between the first and the last.
func SignalNames() (names []string) {
	for n := syscall.Signal(1); n < 32; n++ {
		if name := unix.SignalName(n); name != "" {
			names = append(names, strings.TrimPrefix(name, "SIG"))
		}
	}
	return append(names, "RTMIN", "RTMAX")
}

// signalName is the inverse of ParseSignal.
func signalName(s policy.Signal) string {
	if s >= rtMin {
		return "SIGRTMIN+" + strconv.Itoa(int(s)-rtMin)
	}
	return unix.SignalName(syscall.Signal(s))
}

// Names of exit statuses that systemd.exec(5) lists and that are not systemd's
// own.
var exitNames = map[string]int{
	"SUCCESS": 0, "FAILURE": 1, "USAGE": 64, "DATAERR": 65, "NOINPUT": 66,
	"NOUSER": 67, "NOHOST": 68, "UNAVAILABLE": 69, "SOFTWARE": 70, "OSERR": 71,
	"OSFILE": 72, "CANTCREAT": 73, "IOERR": 74, "TEMPFAIL": 75, "PROTOCOL": 76,
	"NOPERM": 77, "CONFIG": 78,
}

// exitSet collects exit statuses and signals without repetitions.
type exitSet struct {
	codes   map[int]bool
	signals map[policy.Signal]bool
}

// add takes one status or signal and reports whether it is one.
func (e *exitSet) add(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		e.codes[n] = true
		return n >= 0 && n <= 255
	}
	if n, ok := exitNames[s]; ok {
		e.codes[n] = true
		return true
	}
	sig, ok := ParseSignal(s)
	e.signals[sig] = true
	return ok
}

func (e *exitSet) set() policy.ExitSet {
	return policy.ExitSet{
		Codes:   slices.Sorted(maps.Keys(e.codes)),
		Signals: slices.Sorted(maps.Keys(e.signals)),
	}
}

// capabilities are the names of capabilities(7). The kernel numbers them from 0
// without a gap, in this order.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
	"CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
	"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

// CapabilityNumber returns the kernel's number of a capability, such as 13 for
// CAP_NET_RAW. Whether the running kernel has it is another question.
func CapabilityNumber(name string) (number int, ok bool) {
	number = slices.Index(capabilities, name)
	return number, number >= 0
}

// setCapabilities keeps the order of the file, without repetitions.
func setCapabilities(c *cell, d *draft) {
	d.AmbientCapabilities = nil
	for _, it := range c.items(false) {
		name, ok := it.v.(string)
		_, known := CapabilityNumber(name)
		near := nearCapability(name)
		switch {
		case known && !slices.Contains(d.AmbientCapabilities, name):
			d.AmbientCapabilities = append(d.AmbientCapabilities, name)
		case known:
		case ok && near != "":
			c.fail(it.path, "there is no capability "+quote(shorten(name)), "did you mean "+near+"?")
		default:
			c.refuseItem(it.path, it.v)
		}
	}
}

// nearCapability also knows what is meant by net_raw.
func nearCapability(name string) string {
	name = strings.ToUpper(name[:min(len(name), maxLikely)])
	return Nearest("CAP_"+strings.TrimPrefix(name, "CAP_"), capabilities)
}
