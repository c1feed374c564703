// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func addressOf(v *int32) uintptr { return uintptr(unsafe.Pointer(v)) }

func TestShimEndsQuietlyWithoutAMaster(t *testing.T) {
	s := startShim(t)
	if err := unix.Shutdown(s.gate, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if output, status := s.wait(); output != "" || status != 0 {
		t.Errorf("got exit status %d and %q, want 0 and nothing", status, output)
	}
}

// descriptors returns what is open in a program that the shim became, less the
// folder that ls reads: number, and what it is.
func descriptors(t *testing.T, o *Orders, fds ...int) []string {
	t.Helper()
	o.Argv = []string{"/bin/sh", "-c", "ls -l /proc/$$/fd"}
	var open []string
	for line := range strings.Lines(become(t, o, fds...)) {
		if _, link, ok := strings.Cut(strings.TrimSpace(line), " -> "); ok {
			fields := strings.Fields(line)
			open = append(open, fields[len(fields)-3]+" "+link)
		}
	}
	slices.Sort(open)
	return open
}

func link(t *testing.T, fd int) string {
	t.Helper()
	target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// The program has exactly the standard three and its sockets. The orders are
// such that what the shim opens itself gets in the way: a memfd, an output, and
// a user to be looked up.
func TestShimHandsDownExactlyTheSockets(t *testing.T) {
	for _, c := range []struct {
		name    string
		sockets int
		orders  Orders
	}{
		{"none", 0, Orders{}},
		{"one", 1, Orders{}},
		{"more than there were", 7, Orders{}},
		{"a memfd before them", 7, Orders{Title: strings.Repeat("t", InlineMax)}},
		{"above numbers that are held", 2, Orders{Reserve: 4}},
		{"a user", 7, Orders{Title: strings.Repeat("t", InlineMax), User: "nobody"}},
	} {
		if c.orders.User != "" && os.Geteuid() != 0 {
			continue
		}
		c.orders.Base = []string{"PATH=/usr/bin:/bin"}
		want := []string{"0 /dev/null"}
		for i := range c.orders.Reserve {
			want = append(want, fmt.Sprintf("%d /dev/null", firstFD+i))
		}
		var fds []int
		for i := range c.sockets {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			fds = append(fds, fd)
			want = append(want, fmt.Sprintf("%d %s", firstFD+c.orders.Reserve+i, link(t, fd)))
			c.orders.Listen = append(c.orders.Listen, "http")
		}
		got := descriptors(t, &c.orders, fds...)
		got = slices.DeleteFunc(got, func(s string) bool { return s[0] == '1' || s[0] == '2' }) // the output is a pipe of the test's
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", c.name, got, want)
		}
	}
}

func TestShimWritesToTheOutputThatItIsGiven(t *testing.T) {
	r, w := pipe(t)
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	o := &Orders{
		Stdout: true, Stderr: true, Listen: []string{"http"}, Base: []string{"PATH=/usr/bin:/bin"},
		Argv: []string{"/bin/sh", "-c", `echo out; echo err >&2; readlink /proc/$$/fd/3; for n in 0 1 2 3 4 5 6 7 8 9; do test ! -e /proc/$$/fd/$n || echo -n $n; done`},
	}
	if direct := become(t, o, int(w.Fd()), int(w.Fd()), socket); direct != "" {
		t.Errorf("beside the output: %q", direct)
	}
	_ = w.Close()
	got, err := io.ReadAll(r)
	if want := "out\nerr\n" + link(t, socket) + "\n0123"; string(got) != want || err != nil {
		t.Errorf("got %q and %v, want %q", got, err, want)
	}
}

// A stream of the journal is a socket whose other end reads.
func TestShimWritesToASocket(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := unix.Shutdown(pair[1], unix.SHUT_RD); err != nil {
		t.Fatal(err)
	}
	o := &Orders{Stdout: true, Stderr: true, Argv: []string{"/bin/sh", "-c", "echo out; echo err >&2"}}
	if direct := become(t, o, pair[1], pair[1]); direct != "" {
		t.Errorf("beside the output: %q", direct)
	}
	buf := make([]byte, 4096)
	n, err := unix.Read(pair[0], buf)
	if want := "out\nerr\n"; err != nil || string(buf[:n]) != want {
		t.Errorf("got %q and %v, want %q", buf[:max(n, 0)], err, want)
	}
}

func TestShimSetsTheEnvironment(t *testing.T) {
	s := startShim(t)
	o := &Orders{
		Base:   []string{"A=base", "B=base", "C=base", "LISTEN_FDS=9", "LISTEN_PIDFDID=1", "EMPTY="},
		Env:    []string{"B=env", "LISTEN_FDNAMES=mine", "C=", "D=x=y", "D=last"},
		Listen: []string{"http", "admin"},
		Stored: []string{"cache"},
		Argv:   []string{"/usr/bin/env"},
	}
	s.tell(o, 2, 2, 2)
	output, status := s.wait()
	got := strings.Split(strings.TrimSpace(output), "\n")
	slices.Sort(got)
	want := []string{
		"A=base", "B=env", "C=", "D=last", "EMPTY=",
		"LISTEN_FDNAMES=mine", "LISTEN_FDS=3", fmt.Sprintf("LISTEN_PID=%d", s.cmd.Process.Pid), "LISTEN_PIDFDID=1",
	}
	if !slices.Equal(got, want) || status != 0 {
		t.Errorf("exit status %d:\n got %q\nwant %q", status, got, want)
	}
	if output := become(t, &Orders{Argv: []string{"/usr/bin/env"}}); output != "" {
		t.Errorf("an environment without any variable: got %q", output)
	}
}

// What was stored comes after the sockets, as systemd does it.
func TestShimNamesWhatWasStoredAfterTheSockets(t *testing.T) {
	r, w := pipe(t)
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	script := `echo $LISTEN_FDS $LISTEN_FDNAMES; [ $LISTEN_PID = $$ ] && for fd in 3 4 5; do readlink /proc/$$/fd/$fd; done; true`
	for _, c := range []struct {
		listen, stored []string
		fds            []int
		want           string
	}{
		{
			[]string{"http"},
			[]string{"b", "a"},
			[]int{socket, int(r.Fd()), int(w.Fd())},
			"3 http:b:a\n" + link(t, socket) + "\n" + link(t, int(r.Fd())) + "\n" + link(t, int(w.Fd())) + "\n",
		},
		{nil, []string{"a"}, []int{int(w.Fd())}, "1 a\n" + link(t, int(w.Fd())) + "\n"},
		{nil, nil, nil, "\n"},
	} {
		o := &Orders{
			Listen: c.listen, Stored: c.stored,
			Base: []string{"PATH=/usr/bin:/bin"}, Argv: []string{"/bin/sh", "-c", script},
		}
		if c.want == "\n" {
			o.Argv[2] = "echo $LISTEN_FDS $LISTEN_FDNAMES $LISTEN_PID"
		}
		if got := become(t, o, c.fds...); got != c.want {
			t.Errorf("listen %q, stored %q: got %q, want %q", c.listen, c.stored, got, c.want)
		}
	}
}

// WATCHDOG_PID must be right, or sd_watchdog_enabled(3) says that there is none.
func TestShimTellsOfTheWatchdog(t *testing.T) {
	script := []string{"/bin/sh", "-c", "echo $WATCHDOG_USEC $((WATCHDOG_PID == $$)) $NOTIFY_SOCKET $JOURNAL_STREAM $FDSTORE"}
	env := []string{"NOTIFY_SOCKET=@prefork", "JOURNAL_STREAM=8:9", "FDSTORE=7"}
	if got, want := become(t, &Orders{Watchdog: 1500 * time.Millisecond, Env: env, Argv: script}), "1500000 1 @prefork 8:9 7\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := become(t, &Orders{Argv: []string{"/bin/sh", "-c", "echo $WATCHDOG_USEC $WATCHDOG_PID"}}), "\n"; got != want {
		t.Errorf("without a watchdog: got %q, want %q", got, want)
	}
}

// The limit leaves no descriptor to open: the score comes before it.
func TestShimAdjustsTheScoreForOutOfMemory(t *testing.T) {
	before, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	own, err := strconv.Atoi(strings.TrimSpace(string(before)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		orders Orders
		want   int
	}{
		{Orders{OOMScoreAdjust: new(min(own+333, 1000))}, min(own+333, 1000)},
		{Orders{OOMScoreAdjust: new(1000)}, 1000},
		{Orders{}, own},
	} {
		c.orders.Argv = []string{"/bin/cat", "/proc/self/oom_score_adj"}
		if got, want := become(t, &c.orders), fmt.Sprintln(c.want); got != want {
			t.Errorf("%v: got %q, want %q", c.orders.OOMScoreAdjust, got, want)
		}
	}
	// cat cannot open its libraries then, but it is executed.
	s := startShim(t)
	s.tell(&Orders{OOMScoreAdjust: new(1000), Limits: []Limit{{unix.RLIMIT_NOFILE, 3, 3}}, Argv: []string{"/bin/cat"}})
	output, status := s.wait()
	if said := s.left(); len(said) > 0 {
		t.Errorf("with a limit of three: exit status %d, said %v, output %q", status, said, output)
	}
}

func TestShimFindsTheProgramInItsOwnPath(t *testing.T) {
	dir := t.TempDir()
	write := func(path, text string, mode os.FileMode) string {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("text/tool", "no program", 0o644)
	tool := write("bin/tool", "#!/bin/sh\necho found $0 $1\n", 0o755)
	write("folder/tool/file", "", 0o644)
	path := func(dirs ...string) []string {
		for i, name := range dirs {
			dirs[i] = filepath.Join(dir, name)
		}
		return []string{"PATH=" + strings.Join(dirs, ":")}
	}
	want := "found " + tool + " arg\n"
	for name, o := range map[string]*Orders{
		"in PATH":                      {Base: path("none", "bin")},
		"past what is no program":      {Base: path("folder", "text", "bin")},
		"in the PATH of env, not base": {Base: path("none"), Env: path("bin")},
	} {
		o.Argv = []string{"tool", "arg"}
		if got := become(t, o); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := become(t, &Orders{Argv: []string{tool, "arg"}}); got != want {
		t.Errorf("by its path: got %q, want %q", got, want)
	}
	if got := become(t, &Orders{Argv: []string{"echo", "default"}}); got != "default\n" {
		t.Errorf("without PATH: got %q", got)
	}
	for _, env := range [][]string{
		path("none"), path("text", "folder"), {"PATH="}, {"PATH=.:../bin"}, {"PATH=" + strings.Repeat("/x:", 5000)},
	} {
		t.Chdir(filepath.Join(dir, "bin")) // what is there is not in PATH
		cause := wantRefusal(t, &Orders{Slot: "web.0", Dir: dir, Base: env, Argv: []string{"tool"}}, ExitExec)
		if !strings.HasPrefix(cause, "tool: not found in PATH") {
			t.Errorf("%.40q: got %q", env, cause)
		}
	}
}

func TestShimSaysWhyItRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := []string{"/bin/sh", "-c", "echo executed"}
	for name, c := range map[string]struct {
		orders Orders
		status int
		fds    []int
		want   string
	}{
		"no program":          {Orders{}, ExitExec, nil, "no program to execute"},
		"no such program":     {Orders{Argv: []string{"/none"}}, ExitExec, nil, "exec /none: no such file or directory"},
		"no right to execute": {Orders{Argv: []string{file}}, ExitExec, nil, "exec " + file + ": permission denied"},
		"not in PATH":         {Orders{Argv: []string{"none"}, Base: []string{"PATH=/x:/y"}}, ExitExec, nil, "none: not found in PATH (/x:/y)"},
		"no such folder":      {Orders{Argv: script, Dir: "/none"}, ExitChdir, nil, "working directory /none: no such file or directory"},
		"a file for a folder": {Orders{Argv: script, Dir: file}, ExitChdir, nil, "working directory " + file + ": not a directory"},
		"no such user":        {Orders{Argv: script, User: "no such"}, ExitUser, nil, "user no such: does not exist"},
		"no such group":       {Orders{Argv: script, Group: "no such"}, ExitGroup, nil, "group no such: does not exist"},
		"no such extra group": {Orders{Argv: script, ExtraGroups: []string{"none."}}, ExitGroup, nil, "supplementary group none.: does not exist"},
		"user -1":             {Orders{Argv: script, User: "4294967295"}, ExitUser, nil, "user 4294967295: does not exist"},
		"a negative user":     {Orders{Argv: script, User: "-5"}, ExitUser, nil, "user -5: does not exist"},
		"a negative group":    {Orders{Argv: script, Group: "-5"}, ExitGroup, nil, "group -5: does not exist"},
		"no such limit":       {Orders{Argv: script, Limits: []Limit{{99, 1, 1}}}, ExitLimits, nil, "resource limit 99: setrlimit: invalid argument"},
		"soft over hard":      {Orders{Argv: script, Limits: []Limit{{7, 9, 8}}}, ExitLimits, nil, "resource limit 7: setrlimit: invalid argument"},
		"no output":           {Orders{Argv: script, Stderr: true}, ExitFDs, nil, "output without a descriptor"},
		"too few descriptors": {Orders{Argv: script, Listen: []string{"a"}, Stored: []string{"b"}}, ExitFDs, []int{2}, "1 descriptors came for 2 names"},
		"too many":            {Orders{Argv: script, Stored: []string{"b"}}, ExitFDs, []int{2, 2}, "2 descriptors came for 1 names"},
		"no such score":       {Orders{Argv: script, OOMScoreAdjust: new(1001)}, ExitOOMAdjust, nil, "oom_score_adjust 1001: write: invalid argument"},
		"no such capability":  {Orders{Argv: script, Ambient: []int{63}}, ExitCapabilities, nil, "ambient capability 63: the master does not have it"},
		"an orphan":           {Orders{Argv: script, DeathSignal: true, Master: 1}, ExitExec, nil, "the master has ended"},
		// The gate was moved away from 3 by then.
		"with many sockets": {Orders{Argv: []string{"/none"}}, ExitExec, slices.Repeat([]int{2}, 40), "exec /none: no such file or directory"},
	} {
		c.orders.Slot = "web.0"
		t.Run(name, func(t *testing.T) {
			if c.orders.Stderr {
				c.orders.Slot = ""
			}
			if got := wantRefusal(t, &c.orders, c.status, c.fds...); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestShimRefusesNonsense(t *testing.T) {
	s := startShim(t)
	if err := unix.Sendmsg(s.gate, []byte("go\x00colour=red"), nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	output, status := s.wait()
	want := "orders: colour: unknown field"
	if said := s.left(); status != ExitExec || output != "prefork: shim: "+want+"\n" || len(said) != 1 || said[0] != (Failed{want}) {
		t.Errorf("got exit status %d, %q and %v", status, output, said)
	}
}
