// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// playedWorker is a worker at its gate.
type playedWorker struct {
	z    *playedZygote
	gate int
	pid  int
}

// fork asks for a worker and waits for its hello.
func (z *playedZygote) fork() *playedWorker {
	z.t.Helper()
	return z.forkIn()
}

// forkIn is fork with a cgroup.procs, or what plays it.
func (z *playedZygote) forkIn(procs ...int) *playedWorker {
	z.t.Helper()
	return z.greet(z.requestIn(procs...), z.next)
}

// greet waits for the hello of the worker of a request.
func (z *playedZygote) greet(gate int, id uint64) *playedWorker {
	z.t.Helper()
	w := &playedWorker{z: z, gate: gate}
	z.t.Cleanup(func() { _ = unix.Close(gate) }) // closed already by tests that end it
	b, oob := make([]byte, 4096), make([]byte, 256)
	n, oobn, _, _, err := unix.Recvmsg(gate, b, oob, 0)
	for errors.Is(err, unix.EINTR) {
		n, oobn, _, _, err = unix.Recvmsg(gate, b, oob, 0)
	}
	if err != nil || n == 0 {
		z.t.Fatalf("waiting for hello: %d bytes, %v\n%s", n, err, z.output())
	}
	if want := fmt.Sprintf("hello\x00%d", id); string(b[:n]) != want {
		z.t.Fatalf("got %q, want %q", b[:n], want)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		z.t.Fatalf("credentials: %d messages, %v", len(messages), err)
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		z.t.Fatal(err)
	}
	w.pid = int(cred.Pid)
	w.settle()
	return w
}

// settle waits until a worker that has said hello has become a spare: it says so
// before the hooks of its fork run.
func (w *playedWorker) settle() {
	w.z.t.Helper()
	for deadline := time.Now().Add(testutil.Patience); ; time.Sleep(time.Millisecond) {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", w.pid))
		if err != nil || strings.TrimSpace(string(comm)) == "prefork-spare" {
			return
		}
		if time.Now().After(deadline) {
			w.z.t.Fatalf("pid %d has not become a spare: comm %q", w.pid, comm)
		}
	}
}

// request sends a fork request and returns our end of the gate.
func (z *playedZygote) request() int {
	z.t.Helper()
	return z.requestIn()
}

// requestIn is request with a cgroup.procs, or what plays it.
func (z *playedZygote) requestIn(procs ...int) int {
	z.t.Helper()
	return z.requestMany(1, procs...)[0]
}

// requestMany asks for workers together, and returns the other ends of their gates. The
// ids are the last ones up to next.
func (z *playedZygote) requestMany(n int, procs ...int) (gates []int) {
	z.t.Helper()
	var ids []uint64
	var theirs []int
	for range n {
		ours, their := z.gate()
		z.next++
		ids, gates, theirs = append(ids, z.next), append(gates, ours), append(theirs, their)
	}
	if err := Fork(z.command, ids, theirs, procs); err != nil {
		z.t.Fatal(err)
	}
	for _, fd := range theirs {
		_ = unix.Close(fd) // it is in the message now
	}
	return gates
}

// gate returns both ends of one.
func (z *playedZygote) gate() (ours, theirs int) {
	z.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		z.t.Fatal(os.NewSyscallError("socketpair", err))
	}
	limitWaiting(z.t, pair[0])
	if err := unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		z.t.Fatal(os.NewSyscallError("setsockopt", err))
	}
	return pair[0], pair[1]
}

// result is what became of a worker.
type result struct {
	status unix.WaitStatus
	output string
	failed string // the message at the gate
}

// run sends a worker its orders, with a pipe for its output and fds after it,
// and waits for its exit.
func (w *playedWorker) run(orders string, fds ...int) result {
	w.z.t.Helper()
	output := w.order(orders, fds...)
	return w.finish(output)
}

// read returns what comes at the gate; an empty text is its end.
func (w *playedWorker) read() string {
	w.z.t.Helper()
	return read(w.z.t, w.gate)
}

// read waits for one message, and returns it. With a timeout set, recv(2) is
// not restarted after a signal.
func read(t *testing.T, fd int) string {
	t.Helper()
	b := make([]byte, MaxMessage)
	for {
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ECONNRESET) {
			return "" // it ended with a message of ours unread
		}
		if err != nil {
			t.Fatal(os.NewSyscallError("read", err))
		}
		return string(b[:n])
	}
}

// order sends orders, written with spaces for NUL, and returns the reading end
// of the output.
func (w *playedWorker) order(orders string, fds ...int) *os.File {
	w.z.t.Helper()
	fields := strings.Fields(orders)
	for i := range fields {
		fields[i] = strings.ReplaceAll(fields[i], "%20", " ")
	}
	return w.orderFields(append([]string{"slot=web.0"}, fields...), fds...)
}

func (w *playedWorker) orderFields(fields []string, fds ...int) *os.File {
	t := w.z.t
	t.Helper()
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer wr.Close()
	t.Cleanup(func() { r.Close() })
	fields = append([]string{"stdout=1", "stderr=1"}, fields...)
	text := strings.Join(fields, "\x00")
	fds = append([]int{int(wr.Fd()), int(wr.Fd())}, fds...)
	if len(text) > 4000 {
		orders := memfd(t, text)
		defer orders.Close()
		fds = append([]int{int(orders.Fd())}, fds...)
		text = "memfd"
	}
	if err := unix.Sendmsg(w.gate, []byte("go\x00"+text), unix.UnixRights(fds...), nil, 0); err != nil {
		t.Fatal(os.NewSyscallError("sendmsg", err))
	}
	return r
}

// finish waits for a worker that has its orders.
func (w *playedWorker) finish(output *os.File) result {
	w.z.t.Helper()
	if err := output.SetReadDeadline(time.Now().Add(testutil.Patience)); err != nil {
		w.z.t.Fatal(err)
	}
	text, err := io.ReadAll(output)
	if err != nil {
		_ = unix.Kill(w.pid, unix.SIGKILL) // so that it can be waited for
		w.z.t.Errorf("reading the output: %v", err)
	}
	r := result{output: string(text)}
	r.failed = w.read()
	r.status = w.wait()
	return r
}

func (w *playedWorker) wait() unix.WaitStatus {
	w.z.t.Helper()
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(w.pid, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			w.z.t.Fatal(os.NewSyscallError("wait4", err))
		}
		return status
	}
}

// abandon closes a worker's gate before it has its orders, as a master does
// that ends, and waits for its silent exit.
func (w *playedWorker) abandon() {
	w.z.t.Helper()
	_ = unix.Close(w.gate) // nothing can be lost in it
	if status := w.wait(); status != 0 {
		w.z.t.Errorf("at the end of its gate a worker exits with %#x, want 0\n%s", status, w.z.output())
	}
}
