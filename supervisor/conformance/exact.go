// SPDX-License-Identifier: AGPL-3.0-or-later

package conformance

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

func environmentIsExact(m *master) error {
	if err := m.start("OWN=floor", "BOTH=floor", "WATCHDOG_PID=1", "LISTEN_PID=1"); err != nil {
		return err
	}
	if err := linux.Send(m.command, m.request().Encode()); err != nil {
		return err
	}
	for said := ""; said != "loaded"; {
		answer, err := m.hear()
		if err != nil {
			return err
		}
		if said = string(answer.Kind); said == "broken" {
			return fmt.Errorf("want loaded, got %s", shown(answer))
		}
	}
	r, socket, err := pipe(m)
	if err != nil {
		return err
	}
	m.keep(socket)
	w, s, err := m.again(gate.Orders{
		Env: []string{"BOTH=worker", "EMPTY=", "EQUAL=a=b c", "LATIN=\u00fc"}, Listen: []string{"http", "http"}, Stored: []string{"x"},
		Watchdog: 1500 * time.Millisecond,
	}, r, r, socket)
	if err != nil {
		return err
	}
	want := map[string]string{
		"OWN": "floor", "BOTH": "worker", "EMPTY": "", "EQUAL": "a=b c", "LATIN": "\u00fc",
		"LISTEN_FDS": "3", "LISTEN_FDNAMES": "http:http:x", "LISTEN_PID": strconv.Itoa(w.pid),
		"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": strconv.Itoa(w.pid),
	}
	for _, kv := range environment() {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.Contains(value, "\n") { // the entry says a line for each
			want[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.env)) {
		if value, ok := want[name]; !ok {
			return fmt.Errorf("it has %s=%s, which nobody has set", name, s.env[name])
		} else if value != s.env[name] {
			return fmt.Errorf("%s is %q, want %q", name, s.env[name], value)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		return fmt.Errorf("it has not %q", slices.Sorted(maps.Keys(want)))
	}
	// The next one has none of that.
	_, s, err = m.again(gate.Orders{})
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "WATCHDOG_PID", "WATCHDOG_USEC"} {
		if value, ok := s.env[name]; ok && err == nil {
			err = fmt.Errorf("without sockets and a watchdog it has %s=%s", name, value)
		}
	}
	return err
}

// descriptorsAreExact allows, beyond what is handed down, what the floor has opened by
// the same number, and what watches without being a channel to anybody (eventfd, epoll):
// interpreters have such of their own.
func descriptorsAreExact(m *master) error {
	var want []string
	var fds []int
	for range 3 {
		r, w, err := pipe(m)
		if err != nil {
			return err
		}
		m.keep(w)
		fds, want = append(fds, r), append(want, table(os.Getpid())[r])
	}
	w, _, err := m.state(gate.Orders{Listen: []string{"b", "a"}, Stored: []string{"c"}}, fds...)
	if err != nil {
		return err
	}
	floor := table(m.pid)
	command := table(m.pid)[3+reserve]
	open := table(w.pid)
	for i, target := range want {
		if open[3+i] != target {
			return fmt.Errorf("fd %d is %q, want %q", 3+i, open[3+i], target)
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", w.pid, 3+i))
		if err != nil {
			return err
		}
		if cloexec(string(info)) {
			return fmt.Errorf("fd %d is close-on-exec: a program that the entry executes would not have it", 3+i)
		}
	}
	for _, fd := range slices.Sorted(maps.Keys(open)) {
		target := open[fd]
		switch {
		case fd < 3+len(want):
		case fd < 3+reserve:
			return fmt.Errorf("fd %d (%s) is open, a number that was held for sockets", fd, target)
		case strings.HasPrefix(target, "anon_inode:"):
		case floor[fd] == target && target != command && !strings.HasPrefix(target, "socket:"):
		default:
			return fmt.Errorf("fd %d (%s) is open", fd, target)
		}
	}
	return nil
}

func cloexec(info string) bool {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, "flags:"); ok {
			flags, err := strconv.ParseUint(strings.TrimSpace(value), 8, 64)
			return err == nil && flags&unix.O_CLOEXEC != 0
		}
	}
	return false
}
