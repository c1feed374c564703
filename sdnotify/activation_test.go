// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
)

// childReport is what an activated child found.
type childReport struct {
	Passed      []sdnotify.Activated
	Infos       []sdnotify.SocketInfo
	CloseOnExec []bool
	Err         string
	Again       string // error of a second call
	Left        []string
	Names       []string // by go-systemd
}

// The marks stand in an environment for what only the child can know.
const (
	markPID     = "own-pid"
	markPIDFDID = "own-pidfd"
)

// occupyVariable tells the child to open descriptors of its own first.
const occupyVariable = "SDNOTIFY_TEST_OCCUPY"

// becomeActivated fills in what systemd would have filled in after fork.
func becomeActivated() {
	if os.Getenv("LISTEN_PID") == markPID {
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	if os.Getenv("LISTEN_PIDFDID") == markPIDFDID {
		id, err := pidfdInode(os.Getpid())
		if err != nil {
			panic(err)
		}
		_ = os.Setenv("LISTEN_PIDFDID", strconv.FormatUint(id, 10))
	}
}

func pidfdInode(pid int) (uint64, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return st.Ino, err
}

func activatedChild() {
	becomeActivated()
	if os.Getenv(occupyVariable) != "" {
		if _, _, err := os.Pipe(); err != nil {
			panic(err)
		}
	}
	env := sdnotify.TakeEnvironment()
	passed, err := sdnotify.Listeners(env)
	report := childReport{Passed: passed}
	if err != nil {
		report.Err = err.Error()
	}
	if _, err := sdnotify.Listeners(env); err != nil {
		report.Again = err.Error()
	}
	for _, a := range passed {
		info, err := sdnotify.Describe(a.FD)
		if err != nil {
			panic(err)
		}
		flags, err := unix.FcntlInt(uintptr(a.FD), unix.F_GETFD, 0)
		if err != nil {
			panic(err)
		}
		report.Infos = append(report.Infos, info)
		report.CloseOnExec = append(report.CloseOnExec, flags&unix.FD_CLOEXEC != 0)
	}
	for _, entry := range os.Environ() {
		if strings.HasPrefix(entry, "LISTEN_") {
			report.Left = append(report.Left, entry)
		}
	}
	writeReport(report)
}

func oracleChild() {
	becomeActivated()
	var report childReport
	for _, file := range activation.Files(true) {
		report.Names = append(report.Names, file.Name())
	}
	writeReport(report)
}

func writeReport(report childReport) {
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		panic(err)
	}
}

// activate starts this binary in a role with fds from 3 on. It forks without
// os/exec, whose ExtraFiles would change the flags that are under test.
func activate(t *testing.T, role string, fds []int, environ ...string) childReport {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	files := []uintptr{0, w.Fd(), 2}
	for _, fd := range fds {
		files = append(files, uintptr(fd))
	}
	// A program built with -race sleeps for a second before it exits.
	environ = append(environ, roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
	pid, err := syscall.ForkExec("/proc/self/exe", []string{role}, &syscall.ProcAttr{Env: environ, Files: files})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	output, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		t.Fatalf("%s: %v, wait status %#x", role, err, status)
	}
	var report childReport
	if err := json.Unmarshal(output, &report); err != nil {
		t.Fatalf("%s wrote %q: %v", role, output, err)
	}
	return report
}

// bound returns a new socket with an address, listening if it can.
func bound(t testing.TB, domain, typ int, address unix.Sockaddr) int {
	t.Helper()
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if address == nil {
		return fd
	}
	if err := unix.Bind(fd, address); err != nil {
		t.Fatal(err)
	}
	if typ&^unix.SOCK_NONBLOCK != unix.SOCK_DGRAM {
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

func loopback() unix.Sockaddr { return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}} }

func TestListeners(t *testing.T) {
	path := socketPath(t)
	fds := []int{
		bound(t, unix.AF_INET, unix.SOCK_STREAM, loopback()),
		bound(t, unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: path}),
		bound(t, unix.AF_INET, unix.SOCK_DGRAM, loopback()),
	}
	report := activate(t, "activated", fds,
		"LISTEN_PID="+markPID, "LISTEN_FDS=3", "LISTEN_FDNAMES=http:http:dns", "LISTEN_ADDRESS=:80")
	want := []sdnotify.Activated{{FD: 3, Name: "http"}, {FD: 4, Name: "http"}, {FD: 5, Name: "dns"}}
	if !slices.Equal(report.Passed, want) || report.Err != "" {
		t.Fatalf("got %v, %q, want %v", report.Passed, report.Err, want)
	}
	for i, fd := range fds {
		info, err := sdnotify.Describe(fd)
		if err != nil {
			t.Fatal(err)
		}
		if report.Infos[i] != info {
			t.Errorf("fd %d is %+v there, %+v here", 3+i, report.Infos[i], info)
		}
		if !report.CloseOnExec[i] {
			t.Errorf("fd %d is not close on exec", 3+i)
		}
	}
	if !slices.Equal(report.Left, []string{"LISTEN_ADDRESS=:80"}) {
		t.Errorf("left in the environment: %q", report.Left)
	}
	if report.Again == "" {
		t.Error("the second call gave the descriptors out again")
	}
}

// TestNonblockStays shares open file descriptions with a child, as systemd does:
// the flags must be the same after it took and described them.
func TestNonblockStays(t *testing.T) {
	fds := []int{
		bound(t, unix.AF_INET, unix.SOCK_STREAM, loopback()),
		bound(t, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, loopback()),
	}
	want := []bool{false, true}
	for range 3 {
		activate(t, "activated", fds, "LISTEN_PID="+markPID, "LISTEN_FDS=2")
		for i, fd := range fds {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := flags&unix.O_NONBLOCK != 0; got != want[i] {
				t.Errorf("socket %d: non-blocking %t, want %t", i, got, want[i])
			}
		}
	}
}

func TestListenersForOthers(t *testing.T) {
	fds := []int{bound(t, unix.AF_INET, unix.SOCK_STREAM, loopback())}
	own, err := pidfdInode(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	parents := strconv.FormatUint(own, 10)
	tests := []struct {
		name, pid, pidfdid string
		want               int
		ok                 bool
	}{
		{"no pid", "", "", 0, true},
		{"another's pid", strconv.Itoa(os.Getpid()), "", 0, true},
		{"own pid", markPID, "", 1, true},
		{"own pid and pidfd", markPID, markPIDFDID, 1, true},
		{"own pid, another's pidfd", markPID, parents, 0, true},
		{"pidfd not a number", markPID, "x", 0, false},
	}
	if !pidfdsDiffer(t) {
		tests[4].want = 1 // before Linux 6.9 the pid has to do
	}
	for _, test := range tests {
		environ := []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=http"}
		if test.pid != "" {
			environ = append(environ, "LISTEN_PID="+test.pid)
		}
		if test.pidfdid != "" {
			environ = append(environ, "LISTEN_PIDFDID="+test.pidfdid)
		}
		report := activate(t, "activated", fds, environ...)
		if len(report.Passed) != test.want || (report.Err == "") != test.ok {
			t.Errorf("%s: got %v, %q, want %d", test.name, report.Passed, report.Err, test.want)
		}
	}
}

func pidfdsDiffer(t *testing.T) bool {
	t.Helper()
	own, err := pidfdInode(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	parents, err := pidfdInode(os.Getppid())
	if err != nil {
		t.Fatal(err)
	}
	return own != parents
}

func TestListenersErrors(t *testing.T) {
	fd := bound(t, unix.AF_INET, unix.SOCK_STREAM, loopback())
	tests := []struct {
		name    string
		fds     []int
		environ []string
		want    string
	}{
		{"fd 3 closed", nil, []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=a"}, "fd 3 (a)"},
		{"fd 4 closed", []int{fd}, []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=a:b"}, "fd 4 (b)"},
		{"fd 3 is another's", nil, []string{"LISTEN_FDS=1", occupyVariable + "=1"}, "fd 3 (unknown) was not passed"},
		{"too few names", []int{fd, fd}, []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=a"}, "LISTEN_FDNAMES"},
		{"too many names", []int{fd}, []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=a:b"}, "LISTEN_FDNAMES"},
		{"zero", []int{fd}, []string{"LISTEN_FDS=0"}, `LISTEN_FDS="0"`},
		{"not a number", []int{fd}, []string{"LISTEN_FDS=x"}, `LISTEN_FDS="x"`},
	}
	for _, test := range tests {
		report := activate(t, "activated", test.fds, append(test.environ, "LISTEN_PID="+markPID)...)
		if !strings.Contains(report.Err, test.want) || len(report.Passed) != 0 {
			t.Errorf("%s: got %v, %q, want an error about %s", test.name, report.Passed, report.Err, test.want)
		}
	}
}

// TestOracle reads the same environments with go-systemd. Where there is no name
// its own invention is left out of the comparison.
func TestOracle(t *testing.T) {
	fd := bound(t, unix.AF_INET, unix.SOCK_STREAM, loopback())
	for _, environ := range [][]string{
		{"LISTEN_FDS=1", "LISTEN_FDNAMES=http"},
		{"LISTEN_FDS=3", "LISTEN_FDNAMES=http:dns:http"},
		{"LISTEN_FDS=2", "LISTEN_FDNAMES=prefork-fleet.socket:x y"},
		{"LISTEN_FDS=2"},
		{"LISTEN_FDNAMES=http"},
		{},
	} {
		fds := []int{fd, fd, fd}
		for _, pid := range []string{markPID, "1"} {
			environ := append(slices.Clone(environ), "LISTEN_PID="+pid)
			ours := activate(t, "activated", fds, environ...)
			theirs := activate(t, "oracle", fds, environ...)
			var names []string
			for _, a := range ours.Passed {
				if a.Name == "unknown" {
					a.Name = fmt.Sprintf("LISTEN_FD_%d", a.FD)
				}
				names = append(names, a.Name)
			}
			if !slices.Equal(names, theirs.Names) || ours.Err != "" {
				t.Errorf("%q: got %q, %q, go-systemd %q", environ, names, ours.Err, theirs.Names)
			}
		}
	}
}
