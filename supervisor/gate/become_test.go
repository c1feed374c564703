// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestShimSetsUmaskNiceDirectoryAndLimits(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &before); err != nil {
		t.Fatal(err)
	}
	got := become(t, &Orders{
		Dir: dir, Umask: new(uint32(0o027)), Nice: new(7), NoNewPrivs: true,
		Limits: []Limit{{unix.RLIMIT_NOFILE, 41, 57}, {unix.RLIMIT_FSIZE, 1 << 20, 1 << 20}, {unix.RLIMIT_CORE, 0, before.Max}},
		Base:   []string{"PATH=/usr/bin:/bin"},
		Argv: []string{"/bin/sh", "-c", `pwd; umask; nice; ulimit -Sn; ulimit -Hn; ulimit -c
			grep -E 'Max file size' /proc/$$/limits | tr -s ' ' | sed 's/ $//'
			grep NoNewPrivs /proc/$$/status`},
	})
	want := dir + "\n0027\n7\n41\n57\n0\nMax file size 1048576 1048576 bytes\nNoNewPrivs:\t1\n"
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

// What this process ignores is not passed on; only SIGPIPE is ignored, if it is to be.
func TestShimIgnoresSIGPIPEOnly(t *testing.T) {
	signal.Ignore(unix.SIGUSR1, unix.SIGPIPE)
	defer signal.Reset(unix.SIGUSR1, unix.SIGPIPE)
	for ignored, want := range map[bool]string{true: "0000000000001000", false: "0000000000000000"} {
		got := become(t, &Orders{
			IgnoreSIGPIPE: ignored,
			Base:          []string{"PATH=/usr/bin:/bin"},
			Argv:          []string{"grep", "SigIgn", "/proc/self/status"},
		})
		if got != "SigIgn:\t"+want+"\n" {
			t.Errorf("ignore_sigpipe %t: got %q, want %s", ignored, got, want)
		}
	}
}

// Without orders about them they stay the master's: above all the limit of open
// files, which Go's runtime raises for itself.
func TestShimLeavesTheRestAsItIs(t *testing.T) {
	old := unix.Umask(0o031)
	defer unix.Umask(old)
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 321, Max: files.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files) }() // it was so
	script := `umask; nice; ulimit -Sn; ulimit -Hn; pwd; grep NoNewPrivs /proc/$$/status`
	env := []string{"PATH=/usr/bin:/bin"}
	direct := startShim(t)
	direct.tell(&Orders{Base: env, Argv: []string{"/bin/sh", "-c", script}})
	got, _ := direct.wait()
	want := runDirectly(t, env, script)
	if got != want || !strings.Contains(want, "\n321\n") {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

// A limit that is too small for the descriptors of the shim itself does not
// keep a program from its sockets.
func TestShimSetsLimitsAfterItPlacedTheSockets(t *testing.T) {
	got := descriptors(t, &Orders{
		Limits: []Limit{{unix.RLIMIT_NOFILE, 9, 9}}, Listen: []string{"a", "b", "c", "d"},
		Base: []string{"PATH=/usr/bin:/bin"},
	}, 2, 2, 2, 2)
	if len(got) != 7 {
		t.Errorf("got %q, want 7 descriptors", got)
	}
}

// A limit of memory below what Go's runtime uses is the program's, not the
// shim's.
func TestShimSetsLimitsOfMemoryThatAreTooSmallForItself(t *testing.T) {
	for range 10 {
		got := become(t, &Orders{
			Limits: []Limit{{unix.RLIMIT_AS, 16 << 20, 32 << 20}, {unix.RLIMIT_DATA, 8 << 20, 8 << 20}},
			Argv:   []string{"/bin/sh", "-c", "ulimit -v; ulimit -Hv; ulimit -d"},
		})
		if want := "16384\n32768\n8192\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Whatever was ignored or blocked when the master was started, the program has
// the default action for every signal and none blocked.
func TestShimResetsSignals(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ignored := []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGPIPE, unix.SIGUSR1, unix.SIGTSTP}
	signal.Ignore(ignored...)
	defer signal.Reset(ignored...)
	var block, old unix.Sigset_t
	block.Val[0] = 1<<(unix.SIGTERM-1) | 1<<(unix.SIGUSR2-1) | 1<<(unix.SIGCHLD-1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &block, &old); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) }()
	var blocks, ignores uint64 // beside what the test was started with
	got := signals(runDirectly(t, nil, "exec cat /proc/self/status"))
	if n, err := fmt.Sscanf(got, "SigBlk %x SigIgn %x", &blocks, &ignores); n != 2 || blocks&0x14800 != 0x14800 || ignores&0x81203 != 0x81203 {
		t.Fatalf("a child of this process has %s (%v): the test proves nothing", got, err)
	}
	output := become(t, &Orders{Argv: []string{"/bin/cat", "/proc/self/status"}})
	if got, want := signals(output), "SigBlk 0 SigIgn 0 SigCgt 0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// signals returns the signal masks from /proc/PID/status.
func signals(status string) string {
	var masks []string
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		if name == "SigBlk" || name == "SigIgn" || name == "SigCgt" {
			mask, _ := strconv.ParseUint(value, 16, 64)
			masks = append(masks, fmt.Sprintf("%s %x", name, mask))
		}
	}
	return strings.Join(masks, " ")
}

func TestShimArmsTheDeathSignal(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PREFORK_TEST_ROLE=death-signal", "GORACE=atexit_sleep_ms=0"}
	for armed, want := range map[bool]string{true: "9 <nil>\n", false: "0 <nil>\n"} {
		o := &Orders{Argv: []string{exe}, Base: env, DeathSignal: armed, Master: os.Getpid()}
		if got := become(t, o); got != want {
			t.Errorf("armed %t: got %q, want %q", armed, got, want)
		}
	}
}

// The program keeps what the kernel knows of the shim: pid, session, parent.
func TestShimBecomesTheProgram(t *testing.T) {
	s := startShim(t)
	s.tell(&Orders{Argv: []string{"/bin/sh", "-c", "while read -r a b c d e f g; do echo $a $d $f; done </proc/self/stat"}})
	got, _ := s.wait()
	if want := fmt.Sprintf("%d %d %d\n", s.cmd.Process.Pid, os.Getpid(), s.cmd.Process.Pid); got != want {
		t.Errorf("pid, parent and session: got %q, want %q", got, want)
	}
}
