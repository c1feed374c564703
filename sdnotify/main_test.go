// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roles are what a child process of the tests does instead of the tests.
var roles = map[string]func(){
	"activated": activatedChild,
	"oracle":    oracleChild,
}

const roleVariable = "SDNOTIFY_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		roles[role]()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// receiver stands for systemd: a datagram socket that reads when it is told to.
type receiver struct {
	t    testing.TB
	fd   int
	path string
}

// listen binds a receiver to a path or an abstract "@name".
func listen(t testing.TB, path string) *receiver {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, fd: fd, path: path}
	t.Cleanup(r.close)
	return r
}

func (r *receiver) close() {
	if r.fd >= 0 {
		unix.Close(r.fd)
		r.fd = -1
	}
}

// read returns the next datagram, "" if there is none, and its descriptors.
func (r *receiver) read() (string, []int) {
	r.t.Helper()
	buf, oob := make([]byte, 8192), make([]byte, 256)
	n, oobn, _, _, err := unix.Recvmsg(r.fd, buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err == unix.EAGAIN {
		return "", nil
	}
	if err != nil {
		r.t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		r.t.Fatal(err)
	}
	var fds []int
	for _, m := range messages {
		rights, err := unix.ParseUnixRights(&m)
		if err != nil {
			r.t.Fatal(err)
		}
		fds = append(fds, rights...)
	}
	return string(buf[:n]), fds
}

func (r *receiver) expect(want string) {
	r.t.Helper()
	if got, _ := r.read(); got != want {
		r.t.Errorf("datagram %q, want %q", got, want)
	}
}

// openFDs returns where each of this process's descriptors points.
func openFDs(t *testing.T) map[string]string {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	fds := make(map[string]string)
	for _, link := range links {
		// The descriptor that read the directory is gone by now.
		if target, err := os.Readlink(link); err == nil {
			fds[filepath.Base(link)] = target
		}
	}
	return fds
}

// within fails the test if f takes longer than limit. The limit is for a machine
// that is busy; what must not block takes microseconds.
func within(t *testing.T, limit time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if d := time.Since(start); d > limit {
		t.Errorf("took %v, want at most %v", d, limit)
	}
}

func assignments(datagram string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.SplitSeq(datagram, "\n") {
		key, value, _ := strings.Cut(line, "=")
		fields[key] = value
	}
	return fields
}
