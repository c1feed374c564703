// SPDX-License-Identifier: AGPL-3.0-or-later

package rights

import (
	"maps"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheHostOfAFile(t *testing.T) {
	t.Setenv("PREFORK_COUNT_WEB", "2*cpu")
	t.Setenv("PREFORK_COUNT", "7")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7/")
	runtime := ""
	if os.Geteuid() != 0 {
		runtime = "/run/user/7"
	}
	h := Host()
	if h.Runtime != runtime || !maps.Equal(h.Counts, map[string]string{"PREFORK_COUNT_WEB": "2*cpu"}) {
		t.Errorf("got %+v", h)
	}
	if t.Setenv("XDG_RUNTIME_DIR", "here"); Host().Runtime != "" {
		t.Errorf("got %q of a path that is not absolute", Host().Runtime)
	}
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &all); err != nil || h.Affinity != all.Count() {
		t.Errorf("got %d processors, want %d; %v", h.Affinity, all.Count(), err)
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(os.Getpid(), &one); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.SchedSetaffinity(os.Getpid(), &all) }() // it was so
	if n := Host().Affinity; n != 1 {
		t.Errorf("got %d processors, want the one that it may use now", n)
	}
}
