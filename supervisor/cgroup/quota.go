// SPDX-License-Identifier: AGPL-3.0-or-later

package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Processors is how many processors the group of this process may use together: the least
// cpu.max of the group and of those above it, as far as they can be seen. 0 is that there is
// no such limit, or only cgroup v1. See the kernel's cgroup-v2.rst.
func Processors() float64 {
	own, err := ownGroup("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0
	}
	if strings.HasPrefix(own, "/..") {
		own = "/" // it is outside of the namespace of this process
	}
	path, ok := locate(string(mounts), own)
	if !ok {
		return 0
	}
	return least(path)
}

// least is the lowest quota from a group upwards, to where no group is any more.
func least(path string) (processors float64) {
	for ; isGroup(path); path = filepath.Dir(path) {
		if q, ok := quota(filepath.Join(path, "cpu.max")); ok && (processors == 0 || q < processors) {
			processors = q
		}
	}
	return processors
}

// isGroup looks for what each group has, the root too.
func isGroup(path string) bool {
	_, err := os.Lstat(filepath.Join(path, "cgroup.controllers"))
	return err == nil
}

// quota reads "max 100000" or "150000 100000": microseconds, of so many.
func quota(file string) (processors float64, limited bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false // the root group has none, nor has a group without the cpu controller
	}
	amount, period, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	n, err := strconv.ParseUint(amount, 10, 64)
	of, periodErr := strconv.ParseUint(period, 10, 64)
	if err != nil || periodErr != nil || n == 0 || of == 0 {
		return 0, false
	}
	return float64(n) / float64(of), true
}
