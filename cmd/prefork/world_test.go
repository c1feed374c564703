// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// listenForNotifications stands for systemd's end of sd_notify(3).
func (r *rig) listenForNotifications() {
	r.t.Helper()
	address := &net.UnixAddr{Name: r.path("notify"), Net: "unixgram"}
	conn, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.notify = conn
	r.t.Cleanup(func() { _ = conn.Close() })
	r.cmd.Env = append(r.cmd.Env, "NOTIFY_SOCKET="+address.Name)
	go func() {
		buf, oob := make([]byte, 8192), make([]byte, 64)
		for {
			n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
			if err != nil {
				return
			}
			closeBarrier(oob[:oobn])
			r.mu.Lock()
			r.said = append(r.said, strings.Split(strings.TrimSpace(string(buf[:n])), "\n")...)
			r.mu.Unlock()
		}
	}()
}

// closeBarrier closes the descriptor of BARRIER=1, as systemd does when it has
// dealt with all that came before.
func closeBarrier(oob []byte) {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for i := range cmsgs {
		fds, _ := unix.ParseUnixRights(&cmsgs[i])
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
}

func (r *rig) notifications() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.said)
}

// note is one line of OUT; see app.py.
type note struct {
	Slot       string
	PID        int
	Args       []any
	Kwargs     map[string]any
	FDs        map[string]string
	Environ    map[string]string
	Status     map[string]string
	Cwd        string
	SID        int
	UID, GID   int
	Nice       int
	Cmdline    string
	Generation int
	Loop       string
}

// process is what a test sees of one process.
type process struct {
	pid, parent int
	state       byte
	title       string
}

// processes lists all processes of the machine.
func processes(t *testing.T) (all []process) {
	t.Helper()
	names, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", name.Name(), "stat"))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		title, _ := os.ReadFile(filepath.Join("/proc", name.Name(), "cmdline"))
		parent, _ := strconv.Atoi(fields[1])
		all = append(all, process{
			pid: pid, parent: parent, state: fields[0][0],
			title: strings.TrimSpace(strings.ReplaceAll(string(title), "\x00", " ")),
		})
	}
	return all
}

// children lists the master's children whose title begins like this.
func (r *rig) children(title string) (found []process) {
	for _, p := range processes(r.t) {
		if p.parent == r.pid() && strings.HasPrefix(p.title, title) {
			found = append(found, p)
		}
	}
	return found
}

// child waits for the one child with that title.
func (r *rig) child(title string) process {
	r.t.Helper()
	var found []process
	r.eventually("a child titled "+title, func() bool {
		found = r.children(title)
		return len(found) == 1
	})
	return found[0]
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat[bytes.LastIndexByte(stat, ')'):]), ") Z")
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// fdTable lists the open descriptors of the master.
func (r *rig) fdTable() []string {
	r.t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.pid()))
	if err != nil {
		r.t.Fatal(err)
	}
	var fds []string
	for _, name := range names {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", r.pid(), name.Name()))
		fds = append(fds, name.Name()+" "+target)
	}
	slices.Sort(fds)
	return fds
}

func (r *rig) threads() int {
	r.t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.pid()))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(tasks)
}
