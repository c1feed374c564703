// SPDX-License-Identifier: AGPL-3.0-or-later

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNames(t *testing.T) {
	tr := tree(t)
	for _, name := range []string{"", "a/b", ".", "..", ".hidden", "cgroup.procs", "a\nb"} {
		if _, err := tr.Make(name); err == nil {
			t.Errorf("made %q", name)
		}
	}
}

func TestLocate(t *testing.T) {
	const mounts = `24 30 0:22 / /proc rw - proc proc rw
30 1 8:1 / / rw - ext4 /dev/sda1 rw
31 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro
42 31 0:39 /part /sys/fs/cgroup\040two rw shared:9 - cgroup2 cgroup rw,nsdelegate
43 31 0:39 / /sys/fs/cgroup/unified rw shared:9 master:1 - cgroup2 cgroup rw
`
	for group, want := range map[string]string{
		"/part/web": "/sys/fs/cgroup two/web", "/part": "/sys/fs/cgroup two", "/partial": "/sys/fs/cgroup/unified/partial",
		"/": "/sys/fs/cgroup/unified", "/a.slice/b.service": "/sys/fs/cgroup/unified/a.slice/b.service",
	} {
		if got, ok := locate(mounts, group); !ok || got != want {
			t.Errorf("%s: got %s, %t, want %s", group, got, ok, want)
		}
	}
	if got, ok := locate("30 1 8:1 / / rw - ext4 /dev/sda1 rw\n\nx\n", "/"); ok {
		t.Errorf("without cgroup2: got %s", got)
	}
}

// The virtual machines have the real controllers; here plain files stand for
// theirs.
func TestLimits(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	g := &Group{fd: fd, path: dir}
	limits := Limits{MemoryHigh: 1 << 20, MemoryMax: ^uint64(0), TasksMax: 7, CPUWeight: 50, IOWeight: 60, CPUQuota: 1500 * time.Millisecond}
	if err := g.Limit(limits); err == nil || !strings.Contains(err.Error(), "memory.high: the memory controller is not on") {
		t.Errorf("without controllers: %v", err)
	}
	want := map[string]string{
		"memory.high": "1048576", "memory.max": "max", "pids.max": "7", "cpu.weight": "50", "io.weight": "60", "cpu.max": "150000 100000",
	}
	for name := range want {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Limit(limits); err != nil {
		t.Fatal(err)
	}
	for name, value := range want {
		if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) != value {
			t.Errorf("%s: got %q, want %q", name, got, value)
		}
	}
	if got := fmt.Sprint(limits.Controllers()); got != "[memory pids cpu io]" {
		t.Errorf("got %s", got)
	}
	for quota, want := range map[time.Duration]string{
		200 * time.Millisecond: "20000 100000", time.Millisecond: "1000 1000000", 5 * time.Millisecond: "1000 200000", 4 * time.Second: "400000 100000",
	} {
		if got := (Limits{CPUQuota: quota}).settings(); got[0].value != want {
			t.Errorf("%s: got %s, want %s", quota, got[0].value, want)
		}
	}
	for name, text := range map[string]string{
		"memory.events": "low 0\noom 3\noom_kill 2\n", "memory.peak": "4096\n", "cpu.stat": "usage_usec 1500\nuser_usec 1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := g.Usage(), (Usage{OOMKills: 2, MemoryPeak: 4096, CPU: 1500 * time.Microsecond}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := (&Group{fd: -1}).Usage(); got != (Usage{}) {
		t.Errorf("of nothing: got %+v", got)
	}
}

// What a slot has of its own is what its group has written, in memory or not; its page cache
// and what another group has are not.
func TestPrivateMemoryOfAGroup(t *testing.T) {
	dir := t.TempDir()
	tree := &Tree{path: dir, cgroup: "/unit"}
	if err := os.Mkdir(filepath.Join(dir, "p-7"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.PrivateOf("/unit/p-7"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the controller: %v", err)
	}
	files := []struct {
		name, text string
		want       uint64
	}{
		{"memory.stat", "anon 5242880\nfile 9999999\nkernel 1\nanon_thp 2097152\n", 5 << 20},
		{"memory.swap.current", "1048576\n", 6 << 20},
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, "p-7", f.name), []byte(f.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := tree.PrivateOf("/unit/p-7"); got != f.want || err != nil {
			t.Errorf("with %s: got %d, %v, want %d", f.name, got, err, f.want)
		}
	}
	for _, group := range []string{"/other/p-7", "/unit", "/unit/p-7/below", "/unit/../p-7"} {
		if _, err := tree.PrivateOf(group); err == nil {
			t.Errorf("%s was read", group)
		}
	}
}

// No path that a worker can make leads out of its group.
func TestLinksAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, "memory.max")); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := (&Group{fd: fd}).Limit(Limits{MemoryMax: 1}); err == nil {
		t.Error("a link was followed")
	}
	if got, _ := os.ReadFile(victim); string(got) != "mine" {
		t.Errorf("got %q", got)
	}
}
