// SPDX-License-Identifier: AGPL-3.0-or-later

// Package memory tells what of a process's memory is its own and what it shares,
// as the kernel counts it.
//
// A worker that was forked from a floor maps all of the floor's pages. Those that
// neither has written since are shared and exist once; what the worker has written
// is its private copy.
package memory

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/decnet/prefork/supervisor/internal/linux"
)

// Use is the memory of a process, in bytes.
type Use struct {
	Private uint64 // mapped by no other process: free when it ends
	Shared  uint64 // mapped by others too
	Swapped uint64 // its part of what is swapped out, and not resident
}

// Of asks the kernel for the memory of a process, by /proc/PID/smaps_rollup
// (proc_pid_smaps(5)), which it sums up for each call: some milliseconds for
// 100 MB. It blocks while the process changes its mappings. The error wraps
// fs.ErrPermission if the process is another user's, and ESRCH or fs.ErrNotExist if
// it has ended. Of one that is ending, the sum is 0.
func Of(pid int) (Use, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/smaps_rollup"
	var buf [4096]byte // for some thirty lines
	text, err := linux.ReadSmall(path, buf[:])
	if err != nil {
		return Use{}, err
	}
	use, err := parse(text)
	if err != nil {
		return Use{}, fmt.Errorf("%s: %w", path, err)
	}
	return use, nil
}

// parse sums up lines such as "Private_Dirty:      84 kB".
func parse(text []byte) (use Use, err error) {
	found := 0
	for line := range bytes.Lines(text) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		var to *uint64
		switch string(name) {
		case "Private_Clean", "Private_Dirty":
			to = &use.Private
		case "Shared_Clean", "Shared_Dirty":
			to = &use.Shared
		case "Private_Hugetlb":
			to = &use.Private
		case "Shared_Hugetlb":
			to = &use.Shared
		case "SwapPss":
			to = &use.Swapped
		default:
			continue
		}
		size, unit, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
		kB, err := strconv.ParseUint(string(size), 10, 50)
		if err != nil || string(unit) != "kB" {
			return Use{}, fmt.Errorf("not a size: %q", line)
		}
		*to += kB << 10
		if bytes.HasSuffix(name, []byte("_Clean")) || bytes.HasSuffix(name, []byte("_Dirty")) {
			found++
		}
	}
	if found != 4 {
		return Use{}, fmt.Errorf("%d sizes, want 4", found)
	}
	return use, nil
}
