// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A worker is what a freshly started python3 is, but for what its orders say.
func TestWorkerIsAsOrdered(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, func(f *LoadRequest) { f.Setup = "probe:load" }, environment("KEPT=1", "CHANGED=1"))
		w := z.fork()
		f := parseFacts(t, w.run("fleet=test worker=web index=0 generation=2 title=prefork:%20web.0%20[test]%20gen%202 "+
			"comm=web.0 env=CHANGED=2 env=NEW=a=b after_fork=probe:after_fork entry=probe:facts "+
			"args=(1,'a',[True,None],1e999) kwargs={'k':-1.5}"))
		master := os.Getpid()
		for what, equal := range map[string]bool{
			"pid":        f.PID == w.pid && f.SID == w.pid && f.PGID == w.pid && f.PPID == master,
			"title":      f.Cmdline == "prefork: web.0 [test] gen 2" && f.Comm == "web.0",
			"names":      f.Fleet == "test" && f.Worker == "web" && f.Slot == "web.0" && f.Index == 0 && f.Generation == 2,
			"nameless":   f.SlotAtImport == nil,
			"env":        f.Env["KEPT"] == "1" && f.Env["CHANGED"] == "2" && f.Env["NEW"] == "a=b",
			"no listen":  f.Env["LISTEN_PID"] == "" && f.Env["LISTEN_FDS"] == "" && f.Env["PREFORK_REHEARSAL"] == "",
			"gc":         f.GC && f.Frozen > 1000,
			"argv":       slices.Equal(f.Argv, []string{""}) && filepath.Base(f.Path[0]) == "testdata" && !slices.Contains(f.Path, ""),
			"setup":      f.Loaded,
			"after_fork": slices.Equal(f.Early, []string{"web.0"}),
			"args":       f.Args == "((1, 'a', [True, None], inf), {'k': -1.5})",
		} {
			if !equal {
				t.Errorf("%s: not as ordered: %+v", what, f)
			}
		}
	})
}

// The descriptors of a worker are 0, 1, 2, its sockets, and the file that the
// floor keeps open; also if there are more or fewer sockets than the floor
// reserved numbers for.
func TestWorkerHasExactlyItsDescriptors(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil, reserve(2))
		for sockets := range 4 {
			fds := listeners(t, sockets)
			orders := "entry=probe:facts" + strings.Repeat(" listen=http", sockets)
			r := z.fork().run(orders, fds...)
			if sockets == 3 {
				// The floor's file has number 6, and 5 was the command socket.
				f := parseFacts(t, r)
				checkTable(t, f, sockets, "6")
				continue
			}
			checkTable(t, parseFacts(t, r), sockets, "6")
		}
		r := z.fork().run("entry=probe:facts listen=a listen=b listen=c listen=d", listeners(t, 4)...)
		if r.status.ExitStatus() != 202 || r.failed != "failed\x00202\x00placing the descriptors: the floor uses fd 6; a reload makes room" {
			t.Errorf("four sockets: status %#x, gate %q, output %q", r.status, r.failed, r.output)
		}
	})
}

func checkTable(t *testing.T, f facts, sockets int, log string) {
	t.Helper()
	var got, want []string
	for fd, target := range f.FDs {
		got = append(got, fd)
		if n := fd[0] - '0'; (n >= 3 && int(n) < 3+sockets) != strings.HasPrefix(target, "socket:") {
			t.Errorf("%d sockets: fd %s is %s", sockets, fd, target)
		}
	}
	for fd := range 3 + sockets {
		want = append(want, fmt.Sprint(fd))
	}
	want = append(want, log)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d sockets: descriptors %v, want %v", sockets, f.FDs, want)
	}
	pid, names := fmt.Sprint(f.PID), strings.TrimSuffix(strings.Repeat("http:", sockets), ":")
	if sockets > 0 && (f.Env["LISTEN_PID"] != pid || f.Env["LISTEN_FDS"] != fmt.Sprint(sockets) || f.Env["LISTEN_FDNAMES"] != names) {
		t.Errorf("%d sockets: environment %v", sockets, f.Env)
	}
}

// listeners returns n listening sockets, all non-blocking or all blocking as
// their number is even or odd, which the test owns.
func listeners(t *testing.T, n int) []int {
	t.Helper()
	var fds []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		fds = append(fds, int(f.Fd()))
	}
	return fds
}

// A program that the entry becomes finds the sockets by the protocol.
func TestExecutedProgramFindsSockets(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		w := z.fork()
		r := w.run("entry=probe:inherited listen=a listen=b", listeners(t, 2)...)
		// ls has one more, of the directory.
		if want := fmt.Sprintf("2 a:b %d %[1]d\n0 1 2 3 4 5 ", w.pid); r.output != want {
			t.Errorf("got %q, want %q", r.output, want)
		}
	})
}

// The blocking mode of a socket is shared with other processes. Nothing on the
// way to the entry may change it, also with a default timeout in the floor.
func TestBlockingModeIsLeftAlone(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		change := module(t, "timeouts", "import socket, probe\nsocket.setdefaulttimeout(5)\nsockets = probe.sockets")
		z := load(t, python, change)
		fds := listeners(t, 2)
		for i, fd := range fds {
			if err := unix.SetNonblock(fd, i == 1); err != nil {
				t.Fatal(err)
			}
		}
		unixSocket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(unixSocket)
		r := z.fork().run("entry=timeouts:sockets listen=http listen=http listen=log", append(fds, unixSocket)...)
		var got struct {
			Sockets map[string][]struct {
				Family, Type, FD int
				Nonblock         bool
			}
			Same bool
		}
		if err := json.Unmarshal([]byte(r.output), &got); err != nil {
			t.Fatalf("%v: %q", err, r.output)
		}
		http, log := got.Sockets["http"], got.Sockets["log"]
		if len(http) != 2 || len(log) != 1 || !got.Same || http[0].Nonblock || !http[1].Nonblock || log[0].Nonblock ||
			http[0].Family != unix.AF_INET || http[1].FD != 4 || log[0].Type != unix.SOCK_DGRAM || log[0].Family != unix.AF_UNIX {
			t.Errorf("got %+v", got)
		}
	})
}

// What was stored comes after the sockets and is none of them.
func TestStoredDescriptorsComeAfterTheSockets(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		store := memfd(t, "kept")
		defer store.Close()
		fd := int(store.Fd())
		for _, test := range []struct {
			listen, stored string
			names          string
			want           string
		}{
			{" listen=a listen=b", " stored=x stored=y", "a:b:x:y", "map[a:[3] b:[4]] map[x:[5] y:[6]]"},
			{" listen=a", " stored=x stored=a stored=x", "a:x:a:x", "map[a:[3]] map[a:[5] x:[4 6]]"},
			{"", " stored=x", "x", "map[] map[x:[3]]"},
			{" listen=a", "", "a", "map[a:[3]] map[]"},
			{"", "", "", "map[] map[]"},
		} {
			fds := listeners(t, strings.Count(test.listen, "="))
			for range strings.Count(test.stored, "=") {
				fds = append(fds, fd)
			}
			// The order of the fields counts only within each name.
			h := parseHanded(t, z.fork().run("entry=probe:handed"+test.stored+test.listen, fds...))
			if got := fmt.Sprint(h.Sockets, " ", h.Stored); got != test.want {
				t.Errorf("%s%s: got %s, want %s", test.listen, test.stored, got, test.want)
			}
			if h.Env["LISTEN_FDNAMES"] != test.names {
				t.Errorf("%s%s: LISTEN_FDNAMES=%s, want %s", test.listen, test.stored, h.Env["LISTEN_FDNAMES"], test.names)
			}
			if n := len(fds); n > 0 && (h.Env["LISTEN_FDS"] != fmt.Sprint(n) || h.Env["LISTEN_PID"] != fmt.Sprint(h.PID)) {
				t.Errorf("%s%s: environment %v", test.listen, test.stored, h.Env)
			}
		}
	})
}

// A program that the worker becomes, or a child, must not be taken for who has
// the watchdog; and what the floor was started with is not the worker's.
func TestWatchdogIsToldToTheWorkerAlone(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil, environment("WATCHDOG_USEC=7", "WATCHDOG_PID=7"))
		h := parseHanded(t, z.fork().run("entry=probe:handed watchdog=1500000"))
		if h.WatchdogSec == nil || *h.WatchdogSec != 1.5 || h.OfChild != nil ||
			h.Env["WATCHDOG_USEC"] != "1500000" || h.Env["WATCHDOG_PID"] != fmt.Sprint(h.PID) {
			t.Errorf("got %+v", h)
		}
		h = parseHanded(t, z.fork().run("entry=probe:handed"))
		if h.WatchdogSec != nil || h.Env["WATCHDOG_USEC"] != "" || h.Env["WATCHDOG_PID"] != "" {
			t.Errorf("without a watchdog: got %+v", h)
		}
		for _, nonsense := range []string{"", "0", "-1", "1s", strings.Repeat("9", 400)} {
			h := parseHanded(t, z.fork().run("entry=probe:handed env=WATCHDOG_USEC="+nonsense))
			if h.WatchdogSec != nil {
				t.Errorf("WATCHDOG_USEC=%.20s: got %v", nonsense, *h.WatchdogSec)
			}
		}
	})
}

// A stream of the journal is a socket whose other end reads. Standard output is
// buffered there as a fresh python3 does it, standard error is not.
func TestOutputMayBeASocket(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		w := z.fork()
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pair[0])
		limitWaiting(t, pair[0])
		if err := unix.Shutdown(pair[1], unix.SHUT_RD); err != nil {
			t.Fatal(err)
		}
		orders := "go\x00stdout=1\x00stderr=1\x00slot=web.0\x00env=JOURNAL_STREAM=8:9\x00entry=probe:writes"
		if err := unix.Sendmsg(w.gate, []byte(orders), unix.UnixRights(pair[1], pair[1]), nil, 0); err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(pair[1]) // it is in the message now
		if status := w.wait(); status != 0 {
			t.Errorf("status %#x", status)
		}
		var got strings.Builder
		for text := read(t, pair[0]); text != ""; text = read(t, pair[0]) {
			got.WriteString(text)
		}
		if want := "false\nout\nerr 8:9\nchild\n"; got.String() != want {
			t.Errorf("got %q, want %q", got.String(), want)
		}
	})
}

// What a module of the floor did to signals does not reach the workers. One alone is
// not as in a fresh python3: that which asks for its stacks.
func TestSignalsAreThoseOfFreshPython(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		change := module(t, "signals", `
import os, signal, probe
signal.signal(signal.SIGTERM, lambda *a: None)
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, lambda *a: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
`)
		for _, variable := range []string{"PYTHONFAULTHANDLER=", "PYTHONFAULTHANDLER=1"} {
			fresh := exec.Command(python, "-c", "print(open('/proc/self/status').read())")
			fresh.Env = append(os.Environ(), variable)
			status, err := fresh.Output()
			if err != nil {
				t.Fatal(err)
			}
			f := parseFacts(t, load(t, python, change, environment(variable)).fork().run("entry=probe:facts"))
			for line := range strings.Lines(string(status)) {
				name, value, _ := strings.Cut(line, ":")
				if caught, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); name == "SigCgt" && err == nil {
					value = fmt.Sprintf("%016x", caught|1<<(StackSignal-1))
				}
				if got, ok := f.Signals[name]; ok && got != strings.TrimSpace(value) {
					t.Errorf("%s: %s is %s, want %s", variable, name, got, strings.TrimSpace(value))
				}
			}
		}
		z := load(t, python, change)
		if r := z.fork().run("entry=probe:terminated"); r.status.Signal() != unix.SIGTERM {
			t.Errorf("after SIGTERM: status %#x", r.status)
		}
		if r := z.fork().run("entry=probe:child_of_pipe"); r.output != "alive\n" {
			t.Errorf("after SIGPIPE: status %#x, output %q", r.status, r.output)
		}
	})
}

func TestWorkersDrawDifferentNumbers(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		numpy := exec.Command(python, "-c", "import numpy.random").Run() == nil
		t.Logf("numpy can be imported: %v", numpy)
		z := load(t, python, func(f *LoadRequest) {
			if numpy {
				f.Preload = append(f.Preload, "numpy.random")
				f.AllowThreads = true // of numpy's library
			}
		})
		first := parseFacts(t, z.fork().run("entry=probe:facts"))
		second := parseFacts(t, z.fork().run("entry=probe:facts"))
		if first.Random == second.Random {
			t.Errorf("random.random() is %v in both", first.Random)
		}
		if numpy && *first.Numpy == *second.Numpy {
			t.Errorf("numpy.random.random() is %v in both", *first.Numpy)
		}
	})
}

// A stand-in for numpy shows what its generator is seeded with.
func TestNumpyIsSeededOncePerWorker(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"__init__.py": "",
		"random.py":   "seeds = []\ndef seed(n): seeds.append(n)\ndef entry(): print(seeds[-1] >> 32, seeds[-1], len(seeds))",
	} {
		if err := os.MkdirAll(filepath.Join(dir, "numpy"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "numpy", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, func(f *LoadRequest) { f.Path, f.Preload = []string{dir}, []string{"numpy.random"} })
		known := map[string]bool{}
		for range 3 {
			seed := z.fork().run("entry=numpy.random:entry").output
			if !strings.HasPrefix(seed, "0 ") || !strings.HasSuffix(seed, " 41\n") || known[seed] {
				t.Errorf("seed %q, want a new one of 32 bits, after the rehearsals", seed)
			}
			known[seed] = true
		}
	})
}
