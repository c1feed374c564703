// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/text"
)

// holderOf says who listens at an address that is in use, "" if that cannot be seen: the
// kernel tells the socket and its user, and those of /proc whom this process may look at are
// searched for it. That costs as much as there are processes, and is for a failure only.
func holderOf(a fleetfile.Address, t fleetfile.SocketType) string {
	var inode, uid string
	if a.Unix != "" {
		inode = unixInode(a.Unix)
	} else {
		inode, uid = ipInode(a, t)
	}
	if inode == "" || inode == "0" {
		return ""
	}
	if who := processWith("socket:[" + inode + "]"); who != "" {
		return who
	}
	if u, err := user.LookupId(uid); err == nil {
		return "a process of user " + text.Printable(u.Username)
	}
	return ""
}

// ipInode finds a listening socket in /proc/net/tcp and its like (proc_pid_net(5)):
//
//	sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
func ipInode(a fleetfile.Address, t fleetfile.SocketType) (inode, uid string) {
	table, state := "tcp", "0A" // TCP_LISTEN
	if t == fleetfile.Datagram {
		table, state = "udp", "07" // TCP_CLOSE: it is not connected
	}
	for _, name := range []string{table, table + "6"} {
		content, _ := os.ReadFile("/proc/self/net/" + name) // there may be no IPv6
		for line := range strings.Lines(string(content)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != state {
				continue
			}
			if at, ok := hexAddress(f[1]); ok && at.Port() == a.IP.Port() && meets(at.Addr(), a.IP.Addr()) {
				return f[9], f[7]
			}
		}
	}
	return "", ""
}

// meets reports whether two sockets of a port are in each other's way.
func meets(a, b netip.Addr) bool {
	a, b = a.Unmap(), b.Unmap().WithZone("")
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}

// hexAddress reads an address as the kernel prints it: words of 32 bits, in the order of the
// machine's bytes, and a port.
func hexAddress(s string) (at netip.AddrPort, ok bool) {
	ip, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(ip)
	n, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || len(b)%4 != 0 {
		return at, false
	}
	for word := range slices.Chunk(b, 4) {
		binary.BigEndian.PutUint32(word, binary.NativeEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(n)), ok
}

// unixInode finds a listening socket in /proc/net/unix (proc_pid_net(5)):
//
//	Num RefCount Protocol Flags Type St Inode Path
func unixInode(path string) string {
	content, _ := os.ReadFile("/proc/self/net/unix") // without it nobody is found
	for line := range strings.Lines(string(content)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 2)
		if len(f) == 2 && strings.HasSuffix(f[1], " "+path) {
			if f = strings.Fields(line); len(f) > 7 && f[5] == "01" { // SS_UNCONNECTED: it is not a connection
				return f[6]
			}
		}
	}
	return ""
}

// processWith names who has a socket: the fleet whose master it is, or the oldest process.
func processWith(socket string) string {
	found, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is one
	var pids []int
	for _, path := range found {
		if target, err := os.Readlink(path); err == nil && target == socket {
			pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
			pids = append(pids, pid)
		}
	}
	pids = slices.Compact(slices.Sorted(slices.Values(pids)))
	for _, pid := range pids {
		if fleet := fleetOf(pid); fleet != "" {
			return fleet
		}
	}
	if len(pids) > 1 && pids[0] == 1 {
		pids = pids[1:] // who had it from systemd
	}
	switch {
	case len(pids) == 0:
		return ""
	case pids[0] == 1:
		return "systemd, for a socket unit (systemctl list-sockets)"
	}
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pids[0])) // it may have ended
	return fmt.Sprintf("%s, process %d", text.OneLine(string(bytes.TrimSpace(comm)), 32), pids[0])
}

// fleetOf names the fleet of a process of prefork's: that of its unit, or of its command
// line, "" if it is none.
func fleetOf(pid int) string {
	groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)) // it may have ended
	if _, rest, ok := strings.Cut(string(groups), "/prefork@"); ok {
		name, _, _ := strings.Cut(rest, ".service")
		return fmt.Sprintf("fleet %s (prefork@%s.service)", text.OneLine(name, 64), text.OneLine(name, 64))
	}
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	if len(args) < 3 || filepath.Base(args[0]) != "prefork" || args[1] != "run" {
		return ""
	}
	i := slices.IndexFunc(args[2:], func(arg string) bool { return !strings.HasPrefix(arg, "-") })
	if i < 0 {
		return ""
	}
	return fmt.Sprintf("fleet %s, process %d", text.OneLine(args[2+i], 128), pid)
}
