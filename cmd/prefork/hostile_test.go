// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/rundir"
)

const hostileFleet = `
[floor]
path = ["DIR"]
preload = ["hostile"]
[defaults]
type = "notify"
[worker.calm]
entry = "hostile:calm"
watchdog_sec = "10s"
[worker.attack]
entry = "hostile:attack"
user = "nobody"
file_descriptor_store_max = 2
`

// as does something with the rights of another user.
func as(uid int, do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and ends with its thread
		id := uintptr(uid)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); errno == 0 {
			do()
		}
	}()
	<-done
}

// notifySocket is where a slot of a fleet that was started by startSeen notifies.
func (r *rig) notifySocket(slot string) string {
	r.t.Helper()
	all, err := rundir.ControlsOfFile(r.path("fleet.toml"))
	if err != nil || len(all) != 1 {
		r.t.Fatal(all, err)
	}
	return filepath.Join(filepath.Dir(all[0].Socket), "notify", slot)
}

// TestHostileWorker has a worker send descriptors of which the last close blocks for
// an hour, in every kind of datagram: the master answers at once, as before, nobody
// else's keep-alive is missed, and no thread or descriptor stays. Nobody but a slot's
// user can send to it.
func TestHostileWorker(t *testing.T) {
	needRoot(t)
	t.Setenv("XDG_RUNTIME_DIR", "")
	for name, start := range map[string]func(*rig){
		"in a terminal": func(r *rig) {
			screen, terminal := openTerminal(t)
			r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = terminal, terminal, terminal
			r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := r.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			r.watch(screen)
		},
		"without one": func(r *rig) { r.start() },
	} {
		t.Run(name, func(t *testing.T) { attack(t, start) })
	}
}

func attack(t *testing.T, start func(*rig)) {
	t.Helper()
	r := prepare(t, hostileFleet)
	text, err := os.ReadFile("testdata/hostile.py")
	if err != nil {
		t.Fatal(err)
	}
	r.write("hostile.py", string(text))
	if err := errors.Join(os.Mkdir(r.path("pub"), 0o777), os.Chmod(r.path("pub"), 0o777)); err != nil {
		t.Fatal(err)
	}
	r.open()
	start(r)
	r.waitReady()
	var longest time.Duration
	look := func() (restarts uint32, calm uint32) {
		t.Helper()
		begin := time.Now()
		f, err := reach.Look(r.path("fleet.toml"))
		if longest = max(longest, time.Since(begin)); err != nil {
			t.Fatalf("status during the attack: %v", err)
		}
		for _, s := range f.Slots {
			if s.Name == "calm.0" {
				calm = s.MainPID
			}
		}
		return f.NRestarts, calm
	}
	_, calm := look()
	said := ""
	r.eventually("the end of the attack", func() bool {
		look()
		text, _ := os.ReadFile(r.path("pub/done"))
		said = string(text)
		return said != ""
	})
	if said != "EACCES open" {
		t.Errorf("the sockets of another and its own: got %s, want EACCES open", said)
	}
	if restarts, now := look(); restarts != 0 || now != calm {
		t.Errorf("%d restarts; the calm one was %d and is %d", restarts, calm, now)
	}
	if longest > time.Second {
		t.Errorf("status took %s", longest)
	}
	t.Logf("the longest answer took %s", longest)
	r.eventually("no lingering socket is left", func() bool {
		for _, fd := range r.fdTable() {
			if strings.Contains(fd, "socket:") && r.isTCP(fd) {
				return false
			}
		}
		return true
	})
	for _, slot := range []string{"calm.0", "attack.0"} {
		want := map[string]error{"calm.0": unix.EACCES, "attack.0": nil}[slot]
		got, path := errors.New("it was not tried"), r.notifySocket(slot)
		as(65534, func() { got = sendTo(path) })
		if !errors.Is(got, want) {
			t.Errorf("nobody sends to %s: got %v, want %v", slot, got, want)
		}
		as(4711, func() { got = sendTo(path) })
		if !errors.Is(got, unix.EACCES) {
			t.Errorf("a stranger sends to %s: got %v, want EACCES", slot, got)
		}
	}
}

func sendTo(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte("STATUS=x"), 0, &unix.SockaddrUnix{Name: path})
}

// isTCP reports whether a line of fdTable is of a TCP socket.
func (r *rig) isTCP(line string) bool {
	table, _ := os.ReadFile("/proc/net/tcp")
	_, inode, _ := strings.Cut(line, "socket:[")
	return strings.Contains(string(table), " "+strings.TrimSuffix(inode, "]")+" ")
}

// TestNoCommandActsOnAnotherFleet: whoever owns the directory of a fleet may put
// the socket of another one there. No command does anything to that one.
func TestNoCommandActsOnAnotherFleet(t *testing.T) {
	const file = "[worker.w]\nexec = [\"sleep\", \"987673\"]\n"
	r := startSeen(t, file)
	r.waitReady()
	victim := r.child("sleep 987673").pid
	r.write("edge.toml", file)
	all, err := rundir.ControlsOfFile(r.path("edge.toml"))
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	at := all[0]
	other := filepath.Join(filepath.Dir(r.notifySocket("")), "control")
	if err := os.MkdirAll(filepath.Dir(at.Socket), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		put  func() error
		want string
	}{
		{func() error { return os.Symlink(other, at.Socket) }, "is a symbolic link"},
		{func() error { return os.Link(other, at.Socket) }, "is served by the master of another fleet"},
	} {
		if err := c.put(); err != nil {
			t.Fatal(err)
		}
		for name, args := range commandsOnSlots {
			out, stderr, code := prefork(t, append([]string{name, r.path("edge.toml")}, args...)...)
			if code != 1 || out != "" || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "Nothing was asked of it") {
				t.Errorf("%s: exit status %d, %q, %q; want %q", name, code, out, stderr, c.want)
			}
		}
		if _, stderr, code := prefork(t, "status"); code != 1 || !strings.Contains(stderr, c.want) {
			t.Errorf("status of all: exit status %d, %q; want %q", code, stderr, c.want)
		}
		if err := os.Remove(at.Socket); err != nil {
			t.Fatal(err)
		}
	}
	f, err := reach.Look(r.path("fleet.toml"))
	if err != nil || f.NRestarts != 0 || f.Slots[0].State != "ready" || int(f.Slots[0].MainPID) != victim {
		t.Errorf("the other fleet: %+v, %v", f, err)
	}
}
