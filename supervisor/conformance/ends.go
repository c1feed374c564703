// SPDX-License-Identifier: AGPL-3.0-or-later

package conformance

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/gate"
)

// endChecks are about ends: of the zygote, of the master, of entries.
func endChecks() []check {
	return []check{
		{"command-end", "a zygote that finds the end of file exits with status 0, and its workers live on", "go", func(m *master) error {
			return outlives(m, func() error {
				if err := unix.Shutdown(m.command, unix.SHUT_RDWR); err != nil {
					return os.NewSyscallError("shutdown", err)
				}
				return m.wantExit("the zygote", m.pid, m.pidfd, 0)
			})
		}},
		{"killed", "a worker outlives a zygote that is killed", "go", func(m *master) error {
			return outlives(m, func() error {
				_ = unix.Kill(m.pid, unix.SIGKILL) // a child of ours, not waited for
				_, err := m.exit("the zygote", m.pid, m.pidfd)
				return err
			})
		}},
		{"return", "an entry that returns is exit status 0", "go", ended("return", func(s unix.WaitStatus) bool { return s.Exited() && s.ExitStatus() == 0 }, "exit status 0")},
		{"exit", "an entry that exits with status 7 is exit status 7", "go", ended("exit", func(s unix.WaitStatus) bool { return s.Exited() && s.ExitStatus() == 7 }, "exit status 7")},
		{"raise", "an entry that fails is another exit status than 0, or a signal", "go", ended("raise", func(s unix.WaitStatus) bool { return s.Signaled() || s.ExitStatus() != 0 }, "a failure")},
		{"term", "SIGTERM ends a worker that does not handle it", "state", func(m *master) error {
			w, _, err := m.state(gate.Orders{})
			if err != nil {
				return err
			}
			_ = unix.Kill(w.pid, unix.SIGTERM) // a child of ours, not waited for
			_, err = m.exit("a worker that was sent SIGTERM", w.pid, w.pidfd)
			return err
		}},
		{"flush", "what an entry wrote is there when it has ended, once", "exit", func(m *master) error {
			stdout, _, err := m.outputs("exit")
			if err == nil && stdout != "bye" {
				err = fmt.Errorf("standard output is %q, want bye", shorten(stdout))
			}
			return err
		}},
		{"error-output", "an entry that fails says why on standard error, not on standard output", "raise", func(m *master) error {
			stdout, stderr, err := m.outputs("raise")
			if err == nil && (stdout != "" || stderr == "") {
				err = fmt.Errorf("standard output is %q, standard error %q", shorten(stdout), shorten(stderr))
			}
			return err
		}},
	}
}

func outlives(m *master, end func() error) error {
	if err := m.load(); err != nil {
		return err
	}
	w, err := m.fork()
	if err != nil {
		return err
	}
	if err := end(); err != nil {
		return err
	}
	if err := w.run("return", gate.Orders{}); err != nil {
		return fmt.Errorf("tell the worker: %v", err)
	}
	return m.wantExit("the worker", w.pid, w.pidfd, 0)
}

func ended(word string, right func(s unix.WaitStatus) bool, want string) func(m *master) error {
	return born(func(m *master, w *worker) error {
		if err := w.run(word, gate.Orders{}); err != nil {
			return err
		}
		status, err := m.exit("the worker", w.pid, w.pidfd)
		if err == nil && !right(status) {
			err = fmt.Errorf("it ends with %s, want %s", ending(status), want)
		}
		return err
	})
}
