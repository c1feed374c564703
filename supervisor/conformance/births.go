// SPDX-License-Identifier: AGPL-3.0-or-later

package conformance

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/zygote"
)

// floorChecks are about a floor: what a zygote loads, and what it refuses to share.
func floorChecks() []check {
	return []check{
		{"load", "loads what floor names, ignores a field that it does not know, and says loaded with its protocol", "", func(m *master) error {
			answer, _, err := m.ask(nil)
			if err == nil && (answer.Kind != zygote.Loaded || answer.Protocol != zygote.Protocol) {
				err = fmt.Errorf("want loaded %d, got %s", zygote.Protocol, shown(answer))
			}
			return err
		}},
		{"progress", "says what it does while it loads", "load", func(m *master) error {
			if len(m.Preload) == 0 && m.Setup == "" {
				return skipped("there is nothing to load: name something with --preload")
			}
			_, progress, err := m.ask(nil)
			if err == nil && progress == 0 {
				err = errors.New("want progress before loaded")
			}
			return err
		}},
		{"broken", "says broken with a cause, and exits with status 1, if something cannot be loaded", "load", func(m *master) error {
			return m.breaks(func(r *zygote.LoadRequest) { r.Preload = append(r.Preload, "prefork_no_such_module") })
		}},
		{"version", "does not say loaded to a master of another protocol", "load", func(m *master) error {
			if m.Zygote == nil {
				return skipped("prefork's own is of the same version by its making")
			}
			answer, _, err := m.ask(nil, zygote.ProtocolVariable+"=999")
			if err == nil && answer.Kind == zygote.Loaded {
				err = fmt.Errorf("want broken, got %s", shown(answer))
				if answer.Protocol != 999 {
					err = nil // a master of 999 would know
				}
			}
			if answer.Kind == zygote.Broken {
				return m.wantExit("a zygote that says broken", m.pid, m.pidfd, 1)
			}
			return ignoreEnd(err)
		}},
		{"thread", "refuses a floor that has started a thread (threads=refuse)", "load", func(m *master) error {
			if m.Thread == "" {
				return skipped("name a setup that starts a thread with --thread")
			}
			answer, _, err := m.ask(func(r *zygote.LoadRequest) { r.Setup = m.Thread })
			if err != nil || answer.Kind == zygote.Broken {
				return err
			}
			if _, err = m.fork(); err == nil {
				return errors.New("want broken, or each fork refused; it forks")
			}
			if errors.Is(err, errRefused) {
				return nil
			}
			return err
		}},
		{"thread-allowed", "forks a floor with a thread if that is allowed (threads=allow)", "load", func(m *master) error {
			if m.Thread == "" {
				return skipped("name a setup that starts a thread with --thread")
			}
			answer, _, err := m.ask(func(r *zygote.LoadRequest) { r.Setup, r.AllowThreads = m.Thread, true })
			if err == nil && answer.Kind != zygote.Loaded {
				err = fmt.Errorf("want loaded, got %s", shown(answer))
			}
			if err == nil {
				_, err = m.fork()
			}
			return err
		}},
		{"left-open", "refuses a floor that has left a socket open (fds=refuse)", "load", func(m *master) error {
			if m.Socket == "" {
				return skipped("name a setup that leaves a socket open with --socket")
			}
			return m.breaks(func(r *zygote.LoadRequest) { r.Setup = m.Socket })
		}},
	}
}

// ignoreEnd is for a zygote that may also just end.
func ignoreEnd(err error) error {
	if err != nil && strings.Contains(err.Error(), "closed its socket") {
		return nil
	}
	return err
}

func (m *master) breaks(change func(r *zygote.LoadRequest)) error {
	answer, _, err := m.ask(change)
	if err == nil && (answer.Kind != zygote.Broken || answer.Text == "") {
		err = fmt.Errorf("want broken with a cause, got %s", shown(answer))
	}
	if err != nil {
		return err
	}
	return m.wantExit("a zygote that says broken", m.pid, m.pidfd, 1)
}

// birthChecks are about what a worker is when it says hello.
func birthChecks() []check {
	return []check{
		{"fork", "a worker says hello with the id of its request, when it is a child of the master", "load", born(func(m *master, w *worker) error {
			stat, err := linux.ReadStat(w.pid)
			if err == nil && (stat.Parent != os.Getpid() || w.pid == m.pid) {
				err = fmt.Errorf("at hello its parent is %s; want the master", m.called(stat.Parent))
			}
			return err
		})},
		{"id", "an id has 64 bits, and one that comes again is one like any other", "fork", func(m *master) error {
			if err := m.load(); err != nil {
				return err
			}
			for range 2 {
				m.last = math.MaxUint64 - 1
				if _, err := m.fork(); err != nil {
					return err
				}
			}
			return nil
		}},
		{"middle", "at hello nothing is left of the process between zygote and worker", "fork", born(func(m *master, _ *worker) error {
			if left := children(m.pid); len(left) > 0 {
				return fmt.Errorf("the zygote still has the children %d", left)
			}
			return nil
		})},
		{"session", "a worker has a session of its own", "fork", born(func(_ *master, w *worker) error {
			sid, err := unix.Getsid(w.pid)
			if err == nil && sid != w.pid {
				err = fmt.Errorf("its session is %d; want its pid, %d", sid, w.pid)
			}
			return err
		})},
		{"cgroup", "the process before the worker writes 0 to cgroup.procs, and nobody else does", "fork", bornInGroup},
		{"cgroup-refused", "a group that cannot be entered is refused with the request's id, and leaves no process", "fork", func(m *master) error {
			if err := m.load(); err != nil {
				return err
			}
			full, err := unix.Open("/dev/full", unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return os.NewSyscallError("open /dev/full", err)
			}
			m.keep(full)
			if _, err := m.fork(full); !errors.Is(err, errRefused) {
				return fmt.Errorf("want refused, got %w", cmpErr(err))
			} else if want := fmt.Sprintf("refused %d %d \"cgroup: ", m.last, int(unix.ENOSPC)); !strings.Contains(err.Error(), want) {
				return fmt.Errorf("want %s..., got %v", want, err)
			}
			if left := append(children(m.pid), slices.DeleteFunc(children(os.Getpid()), func(pid int) bool { return pid == m.pid })...); len(left) > 0 {
				return fmt.Errorf("the processes %d are left", left)
			}
			_, err = m.fork()
			return err
		}},
		{"gate-only", "a worker at its gate has neither the command socket nor cgroup.procs", "fork", func(m *master) error {
			if err := m.load(); err != nil {
				return err
			}
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return os.NewSyscallError("socketpair", err)
			}
			m.keep(pair[:]...)
			before := table(m.pid)
			command := ""
			for fd, target := range before {
				if strings.HasPrefix(target, "socket:") && fd >= 3+reserve && command == "" {
					command = target
				}
			}
			w, err := m.fork(pair[1])
			if err != nil {
				return err
			}
			for fd, target := range table(w.pid) {
				if target == command || target == table(os.Getpid())[pair[1]] {
					return fmt.Errorf("it holds fd %d, %s", fd, target)
				}
			}
			return nil
		}},
		{"gate-end", "a worker that finds the end of file at its gate exits, and calls nothing", "fork", func(m *master) error {
			if err := m.load(); err != nil {
				return err
			}
			w, err := m.fork()
			if err != nil {
				return err
			}
			if err := unix.Shutdown(w.gate, unix.SHUT_RDWR); err != nil {
				return os.NewSyscallError("shutdown", err)
			}
			return m.wantExit("the worker", w.pid, w.pidfd, 0)
		}},
		{"no-descriptor", "a request without a gate is refused, and the next one is not", "fork", func(m *master) error {
			if err := m.load(); err != nil {
				return err
			}
			if err := linux.Send(m.command, zygote.EncodeFork(77)); err != nil {
				return err
			}
			answer, err := m.hear()
			if err == nil && (answer.Kind != zygote.Refused || answer.ID != 77) {
				err = fmt.Errorf("want refused 77, got %s", shown(answer))
			}
			if err == nil {
				_, err = m.fork()
			}
			return err
		}},
		{"unknown-message", "a message that it does not know is ignored, or the zygote says broken and ends", "fork", func(m *master) error {
			if err := m.load(); err != nil {
				return err
			}
			for _, text := range []string{"sing\x00loud", "sing\x00" + strings.Repeat("x", 1<<15), ""} {
				if err := linux.Send(m.command, []byte(text)); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
					return err
				}
			}
			if _, err := m.fork(); err == nil {
				return nil
			}
			status, err := m.exit("a zygote that does not fork any more", m.pid, m.pidfd)
			if err == nil && status.Signaled() {
				err = fmt.Errorf("it ends by %s", ending(status))
			}
			return err
		}},
		{"many", "workers that are asked for together say hello each, and have no descriptor of each other", "fork", func(m *master) error {
			if err := m.load(); err != nil {
				return err
			}
			if m.most < 2 {
				return skipped("it takes one request at a time")
			}
			n := min(m.most, 4)
			gates, err := m.send(n)
			if err != nil {
				return err
			}
			for i, ours := range gates {
				w, err := m.greet(ours, m.last-uint64(n-1-i))
				if err != nil {
					return fmt.Errorf("the worker %d of %d: %w", i+1, n, err)
				}
				for j, end := range m.ends {
					if has := slices.Contains(slices.Collect(maps.Values(table(w.pid))), end); has != (i == j) {
						return fmt.Errorf("the worker %d of %d has the gate of the worker %d: %t", i+1, n, j+1, has)
					}
				}
			}
			return nil
		}},
		{"hundred", "a hundred forks leave no descriptor and no process in the zygote", "fork", func(m *master) error {
			if err := m.load(); err != nil {
				return err
			}
			if _, err := m.fork(); err != nil {
				return err
			}
			before := table(m.pid)
			for range 100 {
				w, err := m.fork()
				if err != nil {
					return err
				}
				_ = unix.Kill(w.pid, unix.SIGKILL) // a child of ours, not waited for
				if _, err := m.exit("a worker", w.pid, w.pidfd); err != nil {
					return err
				}
			}
			if after := table(m.pid); len(after) > len(before) {
				return fmt.Errorf("it had %d descriptors and has %d: %v", len(before), len(after), after)
			}
			if left := children(m.pid); len(left) > 0 {
				return fmt.Errorf("it has the children %d", left)
			}
			return nil
		}},
	}
}

// born is a check of one worker at its gate.
func born(check func(m *master, w *worker) error) func(m *master) error {
	return func(m *master) error {
		if err := m.load(); err != nil {
			return err
		}
		w, err := m.fork()
		if err != nil {
			return err
		}
		return check(m, w)
	}
}

// bornInGroup has a socket for cgroup.procs: it tells who writes.
func bornInGroup(m *master) error {
	if err := m.load(); err != nil {
		return err
	}
	ours, procs, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	m.keep(ours, procs)
	w, err := m.fork(procs)
	if err != nil {
		return err
	}
	buf := make([]byte, 100)
	n, from, err := linux.Receive(ours, buf)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return errors.New("at hello nothing has been written to it")
	case err != nil:
		return err
	case strings.TrimRight(string(buf[:n]), "\n") != "0":
		return fmt.Errorf("want 0 in it, got %q", buf[:n])
	case int(from.Pid) == m.pid || int(from.Pid) == w.pid:
		return fmt.Errorf("%s writes; want the process that forks the worker, so that the worker is born in the group", m.called(int(from.Pid)))
	}
	if n, _, err = linux.Receive(ours, buf); !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("something writes a second time: %q, %v", buf[:n], err)
	}
	return nil
}

// called is a process as an author knows it.
func (m *master) called(pid int) string {
	switch pid {
	case m.pid:
		return "the zygote"
	case os.Getpid():
		return "the master"
	}
	return fmt.Sprintf("process %d", pid)
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("a worker")
	}
	return err
}

// table is the open descriptors of a process: what each is.
func table(pid int) map[int]string {
	open := map[int]string{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir) // who has gone has none
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err == nil {
			if target, err := os.Readlink(dir + "/" + e.Name()); err == nil {
				open[fd] = target
			}
		}
	}
	return open
}
