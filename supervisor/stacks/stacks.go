// SPDX-License-Identifier: AGPL-3.0-or-later

// Package stacks says where the threads of a process are, as the kernel has it: in what
// function they sleep, in which system call, and by which way they got there. That is
// all there is of a program, and all there is of any process that no signal reaches,
// because it sleeps in the kernel.
//
// All of it is the kernel's to give (proc_pid_wchan(5), proc_pid_syscall(5),
// proc_pid_stack(5)): the first two to who may trace the process, the last one to who
// has CAP_SYS_ADMIN.
package stacks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/text"
)

const (
	maxThreads = 16
	maxFrames  = 12
	maxName    = 64 // bytes of what the kernel calls a function
)

// Thread is where a thread is.
type Thread struct {
	TID     int
	Name    string // which it gave itself, printable
	State   byte   // that of proc_pid_stat(5); D is a sleep that no signal ends
	Where   string // the function in which it sleeps; "" is not known, or it runs
	Syscall string // the number of the system call; "" is not known, or in none
	Frames  []string
}

// Where is where the threads of a process are.
type Where struct {
	Threads []Thread // the first of them
	More    int      // that are not among those
	Hidden  []string // files that this process has no right to read
}

// Of looks at a process. It may block for as long as that executes a program from a file
// system that does not answer. An error means that it has ended, or is hidden.
func Of(pid int) (Where, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "task")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Where{}, err
	}
	var tids []int
	for _, entry := range entries {
		if tid, err := strconv.Atoi(entry.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	slices.Sort(tids)
	w := Where{More: max(0, len(tids)-maxThreads)}
	for _, tid := range tids[:min(len(tids), maxThreads)] {
		if thread, ok := w.look(filepath.Join(dir, strconv.Itoa(tid)), tid); ok {
			w.Threads = append(w.Threads, thread)
		}
	}
	return w, nil
}

// look is false if the thread has ended.
func (w *Where) look(dir string, tid int) (Thread, bool) {
	stat, err := linux.ReadStat(tid) // a thread has a folder of its own in /proc, which is not listed
	if err != nil {
		return Thread{}, false
	}
	t := Thread{TID: tid, Name: text.OneLine(w.read(dir, "comm"), maxName), State: stat.State}
	if where := word(w.read(dir, "wchan")); where != "0" {
		t.Where = where
	}
	if number := word(w.read(dir, "syscall")); number != "running" && number != "-1" {
		t.Syscall = number
	}
	for line := range strings.Lines(w.read(dir, "stack")) {
		_, function, _ := strings.Cut(line, " ") // "[<0>] do_epoll_wait+0x63/0x90"
		function, _, _ = strings.Cut(word(function), "+")
		if function == "" || len(t.Frames) == maxFrames {
			break
		}
		t.Frames = append(t.Frames, function)
		if strings.HasPrefix(function, "__") && strings.Contains(function, "_sys_") {
			break // what is below is the same for each system call
		}
	}
	return t, true
}

// word is the first one of a text.
func word(s string) string {
	fields := strings.Fields(text.Printable(s))
	if len(fields) == 0 {
		return ""
	}
	return text.Cut(fields[0], maxName)
}

func (w *Where) read(dir, name string) string {
	var buf [4096]byte
	found, err := linux.ReadSmall(filepath.Join(dir, name), buf[:])
	if errors.Is(err, fs.ErrPermission) && !slices.Contains(w.Hidden, name) {
		w.Hidden = append(w.Hidden, name)
	}
	return string(found)
}

var states = map[byte]string{
	'R': "runs", 'S': "sleeps", 'D': "sleeps, and no signal reaches it,", 'T': "is stopped", 't': "is traced",
	'Z': "has ended", 'X': "has ended", 'I': "idles",
}

// String is one line: "thread 7 (sniffer) sleeps in do_epoll_wait, system call 232: ...".
func (t Thread) String() string {
	line := fmt.Sprintf("thread %d (%s) %s", t.TID, t.Name, states[t.State])
	if t.Where != "" {
		line += " in " + t.Where
	}
	if t.Syscall != "" {
		line = strings.TrimSuffix(line, ",") + ", system call " + t.Syscall
	}
	if len(t.Frames) > 0 {
		line = strings.TrimSuffix(line, ",") + ": " + strings.Join(t.Frames, " < ")
	}
	return strings.TrimSuffix(line, ",")
}

// Lines are all that is known, a line for each thread.
func (w Where) Lines() (lines []string) {
	for _, t := range w.Threads {
		lines = append(lines, t.String())
	}
	if w.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more threads", w.More))
	}
	if len(w.Hidden) > 0 {
		lines = append(lines, fmt.Sprintf("no right to read /proc/PID/%s: that takes CAP_SYS_ADMIN for stack, "+
			"and CAP_SYS_PTRACE for the rest", strings.Join(w.Hidden, ", ")))
	}
	return lines
}

// Asleep leaves those that no signal reaches.
func (w Where) Asleep() Where {
	threads := slices.DeleteFunc(slices.Clone(w.Threads), func(t Thread) bool { return t.State != 'D' })
	if len(threads) == 0 {
		return Where{}
	}
	return Where{Threads: threads, Hidden: w.Hidden}
}
