// SPDX-License-Identifier: AGPL-3.0-or-later

package examine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/text"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/zygote"
)

// errTime is the end of the time that something may take.
var errTime = errors.New("not done within timeout_start_sec")

// await blocks until a descriptor can be read or has been hung up, or until the deadline,
// if there is one.
func await(fd int, deadline time.Time) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		wait := -1
		if !deadline.IsZero() {
			left := time.Until(deadline)
			if left <= 0 {
				return errTime
			}
			wait = int(min(left/time.Millisecond+1, 1<<30))
		}
		n, err := unix.Poll(fds, wait)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n > 0:
			return nil
		}
	}
}

// after is the deadline of what may take that long.
func after(limit time.Duration) time.Time {
	if limit <= 0 || limit == policy.Forever {
		return time.Time{}
	}
	return time.Now().Add(limit)
}

// process is a child of this one.
type process struct {
	pid   int
	pidfd int
	gate  int
	hung  bool // it has had its time
}

// leave ends a process that is not needed any more, as one that ends by itself: its exit
// handlers run, unless it hangs.
func (p *process) leave() {
	limit := exitHandlers
	if p.hung {
		limit = time.Nanosecond
	}
	linux.CloseFD(&p.gate)
	if p.pidfd >= 0 {
		_, _ = p.end(after(limit)) // how it ends is no concern any more
	}
}

// exitHandlers is how long those of a floor may take, as in a fleet.
const exitHandlers = 10 * time.Second

// end waits until the process has ended, and reaps it; after the deadline it is killed.
func (p *process) end(deadline time.Time) (linux.Wait, error) {
	defer linux.CloseFD(&p.pidfd)
	linux.CloseFD(&p.gate)
	if err := await(p.pidfd, deadline); err != nil {
		_ = linux.PidfdSendSignal(p.pidfd, unix.SIGKILL) // it has ended meanwhile, or will
		if err := await(p.pidfd, after(killed)); err != nil {
			return linux.Wait{}, err
		}
	}
	return linux.ReapPidfd(p.pidfd)
}

// killed is how long a process may take to end that was killed.
const killed = 10 * time.Second

// scratch is a floor that is examined.
type scratch struct {
	process
	command  int // our end of its command socket
	findings int // a memfd to which it writes what it does; -1: it does not
	forked   uint64
	doing    string // what it said last
}

// startFloor starts a zygote and tells it what to load. fds are those that it gets after
// the command socket: its program, and what it writes to. output is where it prints.
func startFloor(orders *gate.Orders, request zygote.LoadRequest, output *os.File, watch bool) (s *scratch, err error) {
	s = &scratch{process: process{pidfd: -1, gate: -1}, command: -1, findings: -1, doing: "starting python"}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return s, err
	}
	s.command = ours
	defer linux.CloseFD(&theirs)
	source, err := linux.Memfd("prefork-zygote", zygote.ScratchSource(watch))
	if err != nil {
		return s, err
	}
	defer linux.CloseFD(&source)
	fds := []int{int(output.Fd()), int(output.Fd()), theirs, source}
	if watch {
		if s.findings, err = unix.MemfdCreate("prefork-check", unix.MFD_CLOEXEC); err != nil {
			return s, os.NewSyscallError("memfd_create", err)
		}
		fds = append(fds, s.findings)
	}
	devNull, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return s, &os.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	defer linux.CloseFD(&devNull)
	shim, err := gate.StartShim(devNull, -1)
	if err != nil {
		return s, err
	}
	s.process = process{pid: shim.PID, pidfd: shim.PIDFD, gate: shim.Gate}
	orders.Stdout, orders.Stderr = true, true
	if err := gate.Send(s.gate, orders, fds...); err != nil {
		return s, err
	}
	return s, linux.Send(s.command, request.Encode())
}

// load waits until the floor has been loaded. broken is why it cannot be used, or that its
// time is over; an error is anything else that is in its way.
func (s *scratch) load(limit time.Duration) (broken string, err error) {
	deadline := after(limit)
	buf := make([]byte, zygote.MaxMessage)
	for {
		if err := await(s.command, deadline); err != nil {
			if errors.Is(err, errTime) {
				s.hung = true
				return fmt.Sprintf("not loaded within %s: %s", policy.Span(limit), s.doing), nil
			}
			return "", err
		}
		n, _, err := linux.Receive(s.command, buf)
		if err != nil {
			return s.lastWords(), nil
		}
		msg, err := zygote.Decode(buf[:n])
		if err != nil {
			return err.Error(), nil
		}
		switch msg.Kind {
		case zygote.Loaded:
			return "", nil
		case zygote.Broken:
			return msg.Text, nil
		case zygote.Progress:
			s.doing = msg.Text
		}
	}
}

// lastWords is why a floor has gone: what its shim said, or how it ended.
func (s *scratch) lastWords() string {
	if msg, err := gate.Receive(s.gate); err == nil {
		if failed, ok := msg.(gate.Failed); ok {
			return failed.Text
		}
	}
	how := "ended"
	if w, err := s.end(after(killed)); err == nil {
		how = fmt.Sprintf("exit status %d", w.Code)
		if w.Signal != 0 {
			how = "signal " + unix.SignalName(unix.Signal(w.Signal))
		}
	}
	return fmt.Sprintf("the floor: %s: %s", s.doing, how)
}

// stacks has the floor write where its threads are, and waits until it has.
func (s *scratch) stacks() {
	before := s.written()
	if s.findings < 0 || linux.PidfdSendSignal(s.pidfd, zygote.StackSignal) != nil {
		return
	}
	for deadline := after(2 * time.Second); time.Now().Before(deadline); {
		if await(s.pidfd, time.Now().Add(20*time.Millisecond)) == nil || s.written() > before {
			return
		}
	}
}

func (s *scratch) written() int64 {
	var st unix.Stat_t
	if s.findings < 0 || unix.Fstat(s.findings, &st) != nil {
		return 0
	}
	return st.Size
}

// maxFindings bounds what is read of a floor: it is user code, and can write there, too.
const maxFindings = 64 << 20

// read is what the floor has written of what it does.
func (s *scratch) read() []byte {
	buf := make([]byte, min(s.written(), maxFindings))
	done := 0
	for done < len(buf) {
		n, err := unix.Pread(s.findings, buf[done:], int64(done))
		if err != nil || n == 0 {
			break
		}
		done += n
	}
	return buf[:done]
}

// close ends the floor, if there is one.
func (s *scratch) close() {
	if s == nil {
		return
	}
	linux.CloseFD(&s.command)
	s.leave()
	linux.CloseFD(&s.findings)
}

// End kills and reaps all that this process has started and that is left, and what that
// left behind: it must be their subreaper. It is for any goroutine.
func End() {
	for deadline := after(killed); time.Now().Before(deadline); {
		pids, err := linux.Children(os.Getpid(), func(int) bool { return false })
		if err != nil || len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // it is a child that was not reaped: the pid is its own
		}
		_, _ = unix.Poll(nil, 1) // they take their time
		for _, pid := range pids {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // another may have reaped it
		}
	}
}

// copyLines shows what floors print, made printable, line by line, until nobody can print
// any more.
func copyLines(from io.Reader, to io.Writer) {
	const longest = 8192
	lines := bufio.NewReaderSize(from, longest)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			fmt.Fprintln(to, text.Printable(string(bytes.TrimRight(line, "\r\n")))) //nolint:errcheck // there is nobody to tell
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// number reads what an answer has; what is none is 0.
func number(said []string, i int) int {
	if i >= len(said) {
		return 0
	}
	n, _ := strconv.Atoi(said[i]) // 0 else
	return n
}
