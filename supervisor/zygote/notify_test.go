// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
)

// notifySocket returns a datagram socket that is bound to a path or an abstract
// "@name".
func notifySocket(t *testing.T, address string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("socket", err))
	}
	t.Cleanup(func() { _ = unix.Close(fd) }) // nothing can be lost in it
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		t.Fatal(os.NewSyscallError("setsockopt", err))
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		t.Fatal(os.NewSyscallError("bind", err))
	}
	return fd
}

// datagram is a notification, and what came with it.
type datagram struct {
	text string
	pid  int
	fds  []int
}

// datagrams reads what is in the queue. The descriptors are the test's.
func datagrams(t *testing.T, fd int) (all []datagram) {
	t.Helper()
	b, oob := make([]byte, 1<<13), make([]byte, 1024)
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EAGAIN) {
			return all
		}
		if err != nil {
			t.Fatal(os.NewSyscallError("recvmsg", err))
		}
		d := datagram{text: string(b[:n])}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			t.Fatal(err)
		}
		for i := range messages {
			if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
				d.pid = int(cred.Pid)
			}
			if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
				d.fds = append(d.fds, fds...)
			}
		}
		for _, fd := range d.fds {
			t.Cleanup(func() { _ = unix.Close(fd) }) // read only
		}
		all = append(all, d)
	}
}

// notifications is what probe.notifies says.
var notifications = []string{
	"READY=1", "STATUS=one READY=1   ä", "STATUS=" + strings.Repeat("ä", 2044), "STATUS=", "WATCHDOG=1",
	"RELOADING=1\nMONOTONIC_USEC=N", "EXTEND_TIMEOUT_USEC=1500000",
	"EXTEND_TIMEOUT_USEC=0", "EXTEND_TIMEOUT_USEC=1000000000000000000", "STOPPING=1", "X_APP=ä\nERRNO=5",
	"FDSTORE=1\nFDNAME=cache", "FDSTORE=1\nFDNAME=" + strings.Repeat("x", 255), "FDSTOREREMOVE=1\nFDNAME=cache",
}

// What a worker says arrives whole, from itself, at both kinds of address. It
// keeps no descriptor for it. The queue may have room for ten only.
func TestWorkerNotifies(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		for _, address := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@prefork-test-%d", z.cmd.Process.Pid)} {
			socket := notifySocket(t, address)
			for first := 0; first < len(notifications); first += 7 {
				w := z.fork()
				r := w.run(fmt.Sprintf("entry=probe:notifies args=(%d,%d) env=NOTIFY_SOCKET=%s", first, first+7, address))
				checkNotified(t, r, 7)
				got, want := datagrams(t, socket), notifications[first:first+7]
				if len(got) != len(want) {
					t.Fatalf("%s: got %d datagrams, want %d: %+v", address, len(got), len(want), got)
				}
				for i := range want {
					checkDatagram(t, got[i], want[i], w.pid)
				}
			}
		}
	})
}

func checkDatagram(t *testing.T, got datagram, want string, pid int) {
	t.Helper()
	stores := strings.HasPrefix(want, "FDSTORE=1")
	if clock.ReplaceAllString(got.text, "MONOTONIC_USEC=N") != want || got.pid != pid || stores != (len(got.fds) == 1) {
		t.Errorf("got %q from %d with %v, want %q from %d", got.text, got.pid, got.fds, want, pid)
		return
	}
	if stores && strings.HasSuffix(want, "x") {
		link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", got.fds[0]))
		if err != nil || filepath.Base(link) != "probe.py" {
			t.Errorf("stored: %s, %v, want probe.py", link, err)
		}
	}
}

// systemd takes a reload for an old one if its time is not that of its own clock.
func TestReloadingTellsTheMonotonicTime(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		address := filepath.Join(t.TempDir(), "notify")
		socket := notifySocket(t, address)
		before := linux.Monotonic() / 1000
		checkNotified(t, z.fork().run("entry=probe:notifies args=(5,6) env=NOTIFY_SOCKET="+address), 1)
		after := linux.Monotonic() / 1000
		var usec int64
		got := datagrams(t, socket)
		if _, err := fmt.Sscanf(got[0].text, "RELOADING=1\nMONOTONIC_USEC=%d", &usec); err != nil || usec < before || usec > after {
			t.Errorf("%q: not between %d and %d, %v", got[0].text, before, after, err)
		}
	})
}

// clock is the only part of a notification that is not known before.
var clock = regexp.MustCompile(`(?m)^MONOTONIC_USEC=[0-9]+$`)

func checkNotified(t *testing.T, r result, count int) {
	t.Helper()
	var got struct {
		Sent []bool
		Same bool
	}
	if err := json.Unmarshal([]byte(r.output), &got); err != nil {
		t.Fatalf("%v: status %#x, output %q", err, r.status, r.output)
	}
	if len(got.Sent) != count || !got.Same || strings.Contains(fmt.Sprint(got.Sent), "false") {
		t.Errorf("sent %v, the descriptors after it the same: %v", got.Sent, got.Same)
	}
}

// A supervisor that is not there, or no text, is no failure of the program.
func TestWorkerNotifiesNobody(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		address := filepath.Join(t.TempDir(), "notify")
		socket := notifySocket(t, address)
		r := z.fork().run("entry=probe:notifies_nobody env=NOTIFY_SOCKET=" + address)
		if want := "[False] False\n"; r.output != want {
			t.Errorf("got %q, want %q", r.output, want)
		}
		if got := datagrams(t, socket); len(got) > 0 {
			t.Errorf("got %+v, want nothing", got)
		}
	})
}

// What a floor has counted is not a worker's. Who has counted enough says so until that was
// heard, and then no more.
func TestWorkerCountsRequests(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, module(t, "counting", `
import asyncio, os, prefork, threading

def wsgi(environ, start_response):
    if environ is None:
        raise KeyError("none")
    return [b"x"]

async def asgi(scope, receive, send):
    await asyncio.sleep(0)

prefork.done(1000)

def entry():
    address = os.environ.pop("NOTIFY_SOCKET")
    counted = prefork.count_wsgi(wsgi)
    told = [counted({}, None) == [b"x"]]
    try:
        counted(None, None)
    except KeyError:
        told.append(True)
    for kind in ("lifespan", "http"):
        asyncio.run(prefork.count_asgi(asgi)({"type": kind}, None, None))
    thread = threading.Thread(target=prefork.done, args=(3,))
    thread.start()
    thread.join()
    prefork.done(4)  # 10, but there is nobody to tell
    os.environ["NOTIFY_SOCKET"] = address
    print(told, prefork._done)
    if os.environ.get("PREFORK_RECYCLE_REQUESTS") == "11":
        prefork.done()
    prefork.done()
    prefork.done(1000)
    print(prefork.recycle())
`))
		address := filepath.Join(t.TempDir(), "notify")
		socket := notifySocket(t, address)
		for limit, want := range map[string]string{
			"":     "X_PREFORK_RECYCLE=asked",
			"10":   "X_PREFORK_RECYCLE=requests X_PREFORK_RECYCLE=asked",
			"11":   "X_PREFORK_RECYCLE=requests X_PREFORK_RECYCLE=asked",
			"9000": "X_PREFORK_RECYCLE=asked",
		} {
			orders := "entry=counting:entry env=NOTIFY_SOCKET=" + address
			if limit != "" {
				orders += " env=PREFORK_RECYCLE_REQUESTS=" + limit
			}
			r := z.fork().run(orders)
			if want := "[True, True] 10\nTrue\n"; r.output != want {
				t.Errorf("%s: got %q, want %q", limit, r.output, want)
			}
			var got []string
			for _, d := range datagrams(t, socket) {
				got = append(got, d.text)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: got %q, want %q", limit, got, want)
			}
		}
	})
}

// A supervisor that does not read does not hold a worker up.
func TestWorkerDoesNotWaitForAFullQueue(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/unix/max_dgram_qlen")
	if err != nil {
		t.Fatal(err)
	}
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		address := filepath.Join(t.TempDir(), "notify")
		socket := notifySocket(t, address)
		r := z.fork().run("entry=probe:floods env=NOTIFY_SOCKET=" + address)
		got := datagrams(t, socket)
		if want := fmt.Sprintf("%d False False\n", len(got)); r.output != want {
			t.Errorf("got %q, want %q", r.output, want)
		}
		if len(got) < number(t, string(bytes.TrimSpace(text))) {
			t.Errorf("%d arrived, want at least %s", len(got), text)
		}
	})
}

// The floor has no supervisor to tell, and a spare has no name yet.
func TestFloorNotifiesNobody(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, module(t, "early", `
import prefork
said = [prefork.ready(), prefork.watchdog(), prefork.watchdog_sec, prefork.stored()]
def entry():
    print(said, prefork.ready())
`))
		address := filepath.Join(t.TempDir(), "notify")
		socket := notifySocket(t, address)
		r := z.fork().run("entry=early:entry env=NOTIFY_SOCKET=" + address)
		if want := "[False, False, None, {}] True\n"; r.output != want {
			t.Errorf("got %q, want %q", r.output, want)
		}
		if got := datagrams(t, socket); len(got) != 1 || got[0].text != "READY=1" {
			t.Errorf("got %+v, want READY=1", got)
		}
	})
}
