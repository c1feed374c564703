// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// table lists the open descriptors of a process.
func table(t *testing.T, pid int) []string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			open = append(open, e.Name()+" "+target)
		}
	}
	return open
}

// The process that enters the cgroup is neither the zygote nor the worker, and
// it has gone when the worker says hello. A socket tells who writes.
func TestMiddleProcessEntersTheCgroup(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pair[0])
		defer unix.Close(pair[1])
		if err := unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
			t.Fatal(err)
		}
		w := z.forkIn(pair[1])
		b, oob := make([]byte, 100), make([]byte, 256)
		n, oobn, _, _, err := unix.Recvmsg(pair[0], b, oob, unix.MSG_DONTWAIT)
		if err != nil || string(b[:n]) != "0" {
			t.Fatalf("at hello: %q was written, %v, want 0", b[:max(n, 0)], err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			t.Fatalf("credentials: %d messages, %v", len(messages), err)
		}
		cred, err := unix.ParseUnixCredentials(&messages[0])
		if err != nil {
			t.Fatal(err)
		}
		writer := int(cred.Pid)
		if writer == w.pid || writer == z.cmd.Process.Pid || !errors.Is(unix.Kill(writer, 0), unix.ESRCH) {
			t.Errorf("%d wrote; the worker is %d, the zygote %d, and it must have gone", writer, w.pid, z.cmd.Process.Pid)
		}
		if n, _, err := unix.Recvfrom(pair[0], b, unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("after it: %q and %v, want nothing", b[:max(n, 0)], err)
		}
		w.abandon()
	})
}

// Neither the worker nor the zygote keeps the descriptor.
func TestWorkerHoldsNoCgroup(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		before := table(t, z.cmd.Process.Pid)
		path := filepath.Join(t.TempDir(), "cgroup.procs")
		procs, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer procs.Close()
		plain := z.fork()
		w := z.forkIn(int(procs.Fd()))
		if text, err := os.ReadFile(path); err != nil || string(text) != "0" {
			t.Errorf("the file has %q, %v, want 0", text, err)
		}
		for _, line := range table(t, w.pid) {
			if strings.Contains(line, "cgroup.procs") {
				t.Errorf("at the gate the worker holds %s", line)
			}
		}
		if got, want := len(table(t, w.pid)), len(table(t, plain.pid)); got != want {
			t.Errorf("at the gate: %d descriptors, want %d", got, want)
		}
		if after := table(t, z.cmd.Process.Pid); !slices.Equal(after, before) {
			t.Errorf("the zygote has %q, want %q", after, before)
		}
		checkTable(t, parseFacts(t, w.run("entry=probe:facts listen=http", listeners(t, 1)...)), 1, "8")
		plain.abandon()
	})
}

// A cgroup that cannot be entered is told as such, and nothing is left of the
// attempt: no process, no descriptor, no worker.
func TestCgroupThatCannotBeEnteredIsRefused(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		before := table(t, z.cmd.Process.Pid)
		file := filepath.Join(t.TempDir(), "cgroup.procs")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			path  string
			flags int
			want  Message
		}{
			{file, os.O_RDONLY, Message{Kind: Refused, Errno: unix.EBADF, Text: "cgroup: Bad file descriptor"}},
			{"/dev/full", os.O_WRONLY, Message{Kind: Refused, Errno: unix.ENOSPC, Text: "cgroup: No space left on device"}},
		} {
			procs, err := os.OpenFile(test.path, test.flags, 0)
			if err != nil {
				t.Fatal(err)
			}
			gate := z.requestIn(int(procs.Fd()))
			_ = procs.Close() // the zygote has its own
			test.want.ID = z.next
			if m := z.read(); m != test.want {
				t.Errorf("%s: got %+v, want %+v", test.path, m, test.want)
			}
			if text := read(t, gate); text != "" {
				t.Errorf("%s: the gate of a refused worker has %q", test.path, text)
			}
			_ = unix.Close(gate) // it is at its end
		}
		wantNoChildBut(t, z.cmd.Process.Pid)
		z.fork().abandon() // it goes on, and has closed what came before
		if after := table(t, z.cmd.Process.Pid); !slices.Equal(after, before) {
			t.Errorf("the zygote has %q, want %q", after, before)
		}
	})
}

// wantNoChildBut checks the children of this process and those of the zygote.
func wantNoChildBut(t *testing.T, zygote int) {
	t.Helper()
	for pid, want := range map[int]string{os.Getpid(): fmt.Sprint(zygote), zygote: ""} {
		var children []string
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range lists {
			text, err := os.ReadFile(list)
			if err == nil {
				children = append(children, strings.Fields(string(text))...)
			}
		}
		if got := strings.Join(children, " "); got != want {
			t.Errorf("children of %d: got %q, want %q", pid, got, want)
		}
	}
}

// Workers that are asked for together are each what one alone is: a child of the master, at
// its own gate, in its own cgroup, with no descriptor of another.
func TestWorkersAreForkedTogether(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		before := table(t, z.cmd.Process.Pid)
		alone := z.fork()
		want := len(table(t, alone.pid))
		alone.abandon()
		for _, grouped := range []bool{false, true} {
			const n = 5
			var procs []int
			var files []string
			for range n {
				if !grouped {
					break
				}
				f, err := os.Create(filepath.Join(t.TempDir(), "cgroup.procs"))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				procs, files = append(procs, int(f.Fd())), append(files, f.Name())
			}
			gates := z.requestMany(n, procs...)
			var workers []*playedWorker
			for i, gate := range gates {
				workers = append(workers, z.greet(gate, z.next-n+1+uint64(i)))
			}
			for _, name := range files {
				if text, err := os.ReadFile(name); err != nil || string(text) != "0" {
					t.Errorf("%s has %q, %v, want 0", name, text, err)
				}
			}
			for _, w := range workers {
				if got := table(t, w.pid); len(got) != want {
					t.Errorf("at its gate a worker of many has %q, want as many as one alone: %d", got, want)
				}
			}
			workers[1].abandon() // and no other
			for _, w := range slices.Delete(workers, 1, 2) {
				checkTable(t, parseFacts(t, w.run("entry=probe:facts listen=http", listeners(t, 1)...)), 1, "8")
			}
		}
		wantNoChildBut(t, z.cmd.Process.Pid)
		if after := table(t, z.cmd.Process.Pid); !slices.Equal(after, before) {
			t.Errorf("the zygote has %q, want %q", after, before)
		}
	})
}

// What cannot be forked is refused, and what comes after it; who came before lives.
func TestOneOfManyIsRefused(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		file, err := os.Create(filepath.Join(t.TempDir(), "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		gates := z.requestMany(3, int(file.Fd()), int(full.Fd()), int(file.Fd()))
		for id := z.next - 1; id <= z.next; id++ {
			want := Message{Kind: Refused, ID: id, Errno: unix.ENOSPC, Text: "cgroup: No space left on device"}
			if m := z.read(); m != want {
				t.Errorf("got %+v, want %+v", m, want)
			}
		}
		first := z.greet(gates[0], z.next-2)
		for _, gate := range gates[1:] {
			if text := read(t, gate); text != "" {
				t.Errorf("the gate of a refused worker has %q", text)
			}
			_ = unix.Close(gate)
		}
		first.abandon()
		wantNoChildBut(t, z.cmd.Process.Pid)
	})
}

func TestForkWithThreeDescriptorsIsRefused(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		z.send(EncodeFork(9), 2, 2, 2)
		want := Message{Kind: Refused, ID: 9, Errno: unix.EBADF, Text: "the request has 3 descriptors for 1 workers, not one or two for each"}
		if m := z.read(); m != want {
			t.Errorf("got %+v, want %+v", m, want)
		}
	})
}
