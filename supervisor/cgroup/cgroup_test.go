// SPDX-License-Identifier: AGPL-3.0-or-later

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// TestMain lets the test binary be a process that enters a group of its own.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CGROUP_TEST_OPEN"); dir != "" {
		_, err := openAt(dir, os.Getenv("CGROUP_TEST_GROUP"), os.Getpid())
		own, _ := ownGroup("/proc/self/cgroup")
		fmt.Println(own, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// unit makes a control group as systemd does for a unit with Delegate=, and
// removes it after the test.
func unit(t *testing.T) (path, group string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	own, err := ownGroup("/proc/self/cgroup")
	if err != nil {
		t.Skip(err)
	}
	top, ok := locate(string(mounts), own)
	if !ok || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root and cgroup v2")
		}
		t.Skip("needs root and cgroup v2")
	}
	name := fmt.Sprintf("prefork-test-%d", time.Now().UnixNano())
	path, group = filepath.Join(top, name), filepath.Join(own, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(path, "user.delegate", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
		testutil.Eventually(t, "removal of "+path, func() bool {
			out, _ := exec.Command("find", path, "-depth", "-type", "d").Output()
			for dir := range strings.FieldsSeq(string(out)) {
				_ = os.Remove(dir)
			}
			_, err := os.Stat(path)
			return os.IsNotExist(err)
		})
	})
	return path, group
}

// tree returns the tree of a unit whose master sits in its leaf already: the test
// itself must not move.
func tree(t *testing.T) *Tree {
	t.Helper()
	path, group := unit(t)
	leafPath := filepath.Join(path, leaf)
	if err := os.Mkdir(leafPath, 0o755); err != nil {
		t.Fatal(err)
	}
	tr, err := openAt(leafPath, filepath.Join(group, leaf), -1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	if tr.path != path || tr.cgroup != group {
		t.Fatalf("got %s and %s, want the unit's %s and %s", tr.path, tr.cgroup, path, group)
	}
	return tr
}

// spawn starts a shell in a group.
func spawn(t *testing.T, g *Group, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: g.FD()}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestAGroupAndItsProcesses(t *testing.T) {
	g, err := tree(t).Make("p-1")
	if err != nil {
		t.Fatal(err)
	}
	if populated, err := g.Populated(); populated || err != nil {
		t.Errorf("a new group: %t, %v", populated, err)
	}
	cmd := spawn(t, g, "sleep 1000 & sleep 1000 & wait")
	testutil.Eventually(t, "three processes", func() bool { pids, err := g.Processes(); return err == nil && len(pids) == 3 })
	if !g.Contains(cmd.Process.Pid) || g.Contains(os.Getpid()) || g.Contains(1<<22) {
		t.Error("a process is in the wrong group")
	}
	if populated, err := g.Populated(); !populated || err != nil {
		t.Errorf("with processes: %t, %v", populated, err)
	}
	if err := g.Remove(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("removed with processes: %v", err)
	}
	if err := g.Mark("web.0"); err != nil {
		t.Error(err)
	}
	var mark [16]byte
	if n, err := unix.Fgetxattr(g.FD(), "user.prefork.slot", mark[:]); err != nil || string(mark[:n]) != "web.0" {
		t.Errorf("mark %q, %v", mark[:max(n, 0)], err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	polled := []unix.PollFd{{Fd: int32(g.Watch()), Events: unix.POLLPRI}}
	for populated := true; populated; populated, _ = g.Populated() {
		if n, err := unix.Poll(polled, int(testutil.Patience.Milliseconds())); n != 1 || err != nil {
			t.Fatalf("no word of the end: %d, %v", n, err)
		}
	}
	if g.Usage().CPU == 0 {
		t.Error("three processes have used no processor time")
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

// A signal comes to all processes of a group, those in groups below it and those
// that are stopped too, but to the one that has had it, and to nobody else.
func TestSignalToAGroup(t *testing.T) {
	tr := tree(t)
	g, err := tr.Make("p-1")
	if err != nil {
		t.Fatal(err)
	}
	other, err := tr.Make("p-2")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	const told = `trap 'echo asked >"$0"; exit' TERM; echo runs >"$0"; while :; do sleep 0.02; done`
	start := func(g *Group, name, before string) *exec.Cmd {
		file := filepath.Join(dir, name)
		cmd := spawn(t, g, before+"exec sh -c '"+strings.ReplaceAll(told, "'", `'\''`)+"' "+file)
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()
		})
		testutil.Eventually(t, name+" runs", func() bool { text, _ := os.ReadFile(file); return string(text) == "runs\n" })
		return cmd
	}
	below := filepath.Join(g.path, "below")
	spared, stopped := start(g, "spared", ""), start(g, "stopped", "")
	start(g, "below", "mkdir "+below+"; echo $$ >"+below+"/cgroup.procs; ")
	start(other, "other", "")
	if err := stopped.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGCONT} {
		if err := g.Signal(sig, spared.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"stopped", "below"} {
		testutil.Eventually(t, name+" is asked", func() bool { text, _ := os.ReadFile(filepath.Join(dir, name)); return string(text) == "asked\n" })
	}
	for _, name := range []string{"spared", "other"} {
		if text, _ := os.ReadFile(filepath.Join(dir, name)); string(text) != "runs\n" {
			t.Errorf("%s: %q", name, text)
		}
	}
	if err := g.Signal(unix.SIGTERM, 0); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "the last one is asked", func() bool { populated, err := g.Populated(); return err == nil && !populated })
}

// What a worker makes below its group goes with it, and what it links to stays.
func TestRemoveNestedGroups(t *testing.T) {
	tr := tree(t)
	g, err := tr.Make("p-1")
	if err != nil {
		t.Fatal(err)
	}
	deep := g.path
	for range 10 {
		deep = filepath.Join(deep, "deeper")
		for _, dir := range []string{deep, deep + "-too"} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.Command("sleep", "1000")
	nested, err := unix.Open(deep, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(nested) }()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: nested}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Processes(); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) || !g.Contains(cmd.Process.Pid) {
		t.Errorf("got %v, %v", pids, err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	testutil.Eventually(t, "an empty group", func() bool { populated, _ := g.Populated(); return !populated })
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(g.path); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestTooManyNestedGroups(t *testing.T) {
	g, err := tree(t).Make("p-1")
	if err != nil {
		t.Fatal(err)
	}
	deep := g.path
	for range maxDepth + 2 {
		if deep = filepath.Join(deep, "d"); os.Mkdir(deep, 0o755) != nil {
			t.Fatal("mkdir " + deep)
		}
	}
	if _, err := g.Processes(); !errors.Is(err, errTooMuch) {
		t.Errorf("got %v", err)
	}
	if err := g.Remove(); err == nil {
		t.Error("removed")
	}
}

func TestWhatAnEarlierMasterLeft(t *testing.T) {
	tr := tree(t)
	for _, name := range []string{"p-1", "p-2", "floor-1"} {
		if _, err := tr.Make(name); err != nil {
			t.Fatal(err)
		}
	}
	g, err := tr.Make("p-3")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(tr.path, "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := spawn(t, g, "sleep 1000")
	next, err := openAt(filepath.Join(tr.path, leaf), filepath.Join(tr.cgroup, leaf), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	left := next.Leftover()
	if len(left) != 1 || left[0].Name() != "p-3" || len(next.Leftover()) != 0 {
		t.Fatalf("left: %v", left)
	}
	if names, err := namesIn(next.fd, 100); err != nil || len(names) != 3 {
		t.Errorf("got %v, %v, want other, p-3 and %s", names, err, leaf)
	}
	if err := left[0].Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // killed
}

// Systemd 252 has no DelegateSubgroup=: the master makes its leaf and enters it.
func TestTheMasterMakesItsLeaf(t *testing.T) {
	path, group := unit(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CGROUP_TEST_OPEN="+path, "CGROUP_TEST_GROUP="+group)
	out, err := cmd.CombinedOutput()
	if got, want := strings.TrimSpace(string(out)), filepath.Join(group, leaf)+" <nil>"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestNotDelegated(t *testing.T) {
	path, group := unit(t)
	if err := unix.Removexattr(path, "user.delegate"); err != nil {
		t.Fatal(err)
	}
	if _, err := openAt(path, group, -1); !errors.Is(err, ErrNotDelegated) {
		t.Errorf("got %v", err)
	}
	if names, err := os.ReadDir(path); err == nil && slices.ContainsFunc(names, os.DirEntry.IsDir) {
		t.Error("a group was made all the same")
	}
	for _, file := range []string{"/nonexistent", "/dev/null"} {
		if _, err := ownGroup(file); !errors.Is(err, ErrNotDelegated) {
			t.Errorf("%s: got %v", file, err)
		}
	}
}

func BenchmarkMakeAndRemove(b *testing.B) {
	own, err := ownGroup("/proc/self/cgroup")
	if err != nil {
		b.Skip(err)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	top, ok := locate(string(mounts), own)
	if !ok {
		b.Skip("no cgroup v2")
	}
	dir := filepath.Join(top, "prefork-bench-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Skip(err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		b.Fatal(err)
	}
	tr := &Tree{fd: fd, path: dir, cgroup: own}
	for b.Loop() {
		g, err := tr.Make("p-1")
		if err != nil {
			b.Fatal(err)
		}
		if err := g.Remove(); err != nil {
			b.Fatal(err)
		}
	}
	tr.Close()
	_ = os.Remove(dir)
}
