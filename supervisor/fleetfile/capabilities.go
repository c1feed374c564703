// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"slices"
	"strings"
)

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
	return nearest("CAP_"+strings.TrimPrefix(name, "CAP_"), capabilities)
}
