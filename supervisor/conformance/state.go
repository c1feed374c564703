// SPDX-License-Identifier: AGPL-3.0-or-later

package conformance

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/gate"
)

// told is what the test entry says with "state".
type told struct {
	stdout int // the pipe that was its standard output, our end
	random string
	env    map[string]string
}

// state starts a zygote, and has a worker of it call the test entry with "state".
func (m *master) state(o gate.Orders, fds ...int) (*worker, told, error) {
	if err := m.load(); err != nil {
		return nil, told{}, err
	}
	return m.again(o, fds...)
}

// again is state with the zygote that there is. The worker is nil if there is none.
func (m *master) again(o gate.Orders, fds ...int) (*worker, told, error) {
	s := told{env: map[string]string{}}
	w, err := m.fork()
	if err != nil {
		return nil, s, err
	}
	r, stdout, err := pipe(m)
	if err != nil {
		return w, s, err
	}
	o.Stdout, s.stdout = true, r
	err = w.run("state", o, append([]int{stdout}, fds...)...)
	_ = unix.Close(stdout) // the worker has its own
	if err != nil {
		return w, s, err
	}
	if err := w.leaves(); err != nil {
		return w, s, err
	}
	text, err := m.read(r, "\nready\n")
	lines := strings.Split(text, "\n")
	if s.random = strings.TrimPrefix(lines[0], "random "); err == nil && (s.random == lines[0] || s.random == "") {
		err = fmt.Errorf("the first line of the entry is %q, want random and a number", lines[0])
	}
	for _, line := range lines[1:] {
		if name, value, ok := strings.Cut(line, "="); ok {
			s.env[name] = value
		}
	}
	return w, s, err
}

// pipe returns the end that this process reads, and that for the worker.
func pipe(m *master) (r, w int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, os.NewSyscallError("pipe2", err)
	}
	m.keep(p[0])
	return p[0], p[1], nil
}

// read reads a pipe until some text has come, or its end if that is "".
func (m *master) read(fd int, until string) (string, error) {
	var all strings.Builder
	buf := make([]byte, 1<<16)
	for until == "" || !strings.HasSuffix(all.String(), until) {
		if err := m.readable(fmt.Sprintf("%q is all that the entry writes", shorten(all.String())), fd); err != nil {
			return "", err
		}
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return "", os.NewSyscallError("read", err)
		case n == 0 && until != "":
			return "", fmt.Errorf("the entry ends, and has written %q", shorten(all.String()))
		case n == 0:
			return all.String(), nil
		default:
			all.Write(buf[:n])
		}
	}
	return all.String(), nil
}

func shorten(s string) string { return s[:min(len(s), 200)] }

// outputs has the entry called with a word, and returns what it wrote until it ended.
func (m *master) outputs(word string) (stdout, stderr string, err error) {
	if err := m.load(); err != nil {
		return "", "", err
	}
	w, err := m.fork()
	if err != nil {
		return "", "", err
	}
	var ours, theirs [2]int
	for i := range ours {
		if ours[i], theirs[i], err = pipe(m); err != nil {
			return "", "", err
		}
	}
	err = w.run(word, gate.Orders{Stdout: true, Stderr: true}, theirs[0], theirs[1])
	_, _ = unix.Close(theirs[0]), unix.Close(theirs[1]) // the worker has its own
	if err == nil {
		stdout, err = m.read(ours[0], "")
	}
	if err == nil {
		stderr, err = m.read(ours[1], "")
	}
	return stdout, stderr, err
}
