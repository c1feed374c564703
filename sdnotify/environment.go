// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

// Environment is what a service manager said in the environment, word for word:
// "" means unset or empty. Nothing is checked until a method or [Listeners] is
// asked, so that each mistake is reported where it matters.
type Environment struct {
	PID int // of the process that was asked; the variables may be for another

	NotifySocket string // NOTIFY_SOCKET; for [New]

	WatchdogUSec string // WATCHDOG_USEC
	WatchdogPID  string // WATCHDOG_PID

	ListenPID     string // LISTEN_PID
	ListenPIDFDID string // LISTEN_PIDFDID, since systemd 259
	ListenFDs     string // LISTEN_FDS
	ListenFDNames string // LISTEN_FDNAMES

	FDStore     string // FDSTORE: how many descriptors systemd would keep
	MainPID     string // MAINPID, in ExecReload= and the like
	MainPIDFDID string // MAINPIDFDID

	JournalStream  string // JOURNAL_STREAM; see [JournalStream]
	InvocationID   string // INVOCATION_ID
	SystemdExecPID string // SYSTEMD_EXEC_PID
}

// field returns the field for a variable, nil if it is not one of these.
func (e *Environment) field(name string) *string {
	switch name {
	case "NOTIFY_SOCKET":
		return &e.NotifySocket
	case "WATCHDOG_USEC":
		return &e.WatchdogUSec
	case "WATCHDOG_PID":
		return &e.WatchdogPID
	case "LISTEN_PID":
		return &e.ListenPID
	case "LISTEN_PIDFDID":
		return &e.ListenPIDFDID
	case "LISTEN_FDS":
		return &e.ListenFDs
	case "LISTEN_FDNAMES":
		return &e.ListenFDNames
	case "FDSTORE":
		return &e.FDStore
	case "MAINPID":
		return &e.MainPID
	case "MAINPIDFDID":
		return &e.MainPIDFDID
	case "JOURNAL_STREAM":
		return &e.JournalStream
	case "INVOCATION_ID":
		return &e.InvocationID
	case "SYSTEMD_EXEC_PID":
		return &e.SystemdExecPID
	}
	return nil
}

// TakeEnvironment reads these variables from the process environment and
// removes them from it. Call it once, before anything else is started.
func TakeEnvironment() Environment {
	environ := os.Environ()
	e := ParseEnvironment(environ, os.Getpid())
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if e.field(name) != nil {
			_ = os.Unsetenv(name) // fails only for a name that is not one
		}
	}
	return e
}

// ParseEnvironment reads the variables from a list of NAME=VALUE, for the
// process pid. Of a name that occurs twice the first counts, as for getenv(3).
func ParseEnvironment(environ []string, pid int) Environment {
	e := Environment{PID: pid}
	seen := make(map[string]bool)
	for _, entry := range environ {
		name, value, ok := strings.Cut(entry, "=")
		field := e.field(name)
		if !ok || field == nil || seen[name] {
			continue
		}
		seen[name] = true
		*field = value
	}
	return e
}

// Scrub returns a copy of a list of NAME=VALUE without the variables that
// [Environment] has fields for: they are between a manager and one process, and
// a worker that inherits them would speak in that process's name. Variables
// that only begin alike, such as LISTEN_ADDRESS, stay.
func Scrub(environ []string) []string {
	var e Environment
	kept := make([]string, 0, len(environ))
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if e.field(name) == nil {
			kept = append(kept, entry)
		}
	}
	return kept
}

// Watchdog returns the time after which systemd takes this process for dead if
// it sends no [Watchdog] field; 0 if none is asked of this process.
func (e Environment) Watchdog() (time.Duration, error) {
	if e.WatchdogUSec == "" {
		return 0, nil
	}
	const most = math.MaxInt64 / uint64(time.Microsecond)
	usec, err := strconv.ParseUint(e.WatchdogUSec, 10, 64)
	if err != nil || usec == 0 || usec > most {
		return 0, fmt.Errorf("WATCHDOG_USEC=%q must be a number from 1 to %d", e.WatchdogUSec, most)
	}
	if e.WatchdogPID != "" {
		pid, err := parsePID("WATCHDOG_PID", e.WatchdogPID)
		if err != nil || pid != e.PID {
			return 0, err
		}
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// ListenNames returns the names of the descriptors that LISTEN_FDS passes to
// this process, the first being that of fd 3; none, without an error, if they
// are for another process. It looks at no descriptor; see [Listeners].
func (e Environment) ListenNames() ([]string, error) {
	if e.ListenPID == "" {
		return nil, nil
	}
	pid, err := parsePID("LISTEN_PID", e.ListenPID)
	if err != nil || pid != e.PID || e.ListenFDs == "" {
		return nil, err
	}
	count, err := strconv.Atoi(e.ListenFDs)
	if err != nil || count <= 0 || count > maxListen {
		return nil, fmt.Errorf("LISTEN_FDS=%q must be a number of descriptors from 1 to %d: "+
			"check what starts this process", e.ListenFDs, maxListen)
	}
	return e.splitNames(count)
}

// splitNames gives each of count descriptors its name.
func (e Environment) splitNames(count int) ([]string, error) {
	var names []string
	if e.ListenFDNames == "" {
		names = make([]string, count)
	} else {
		names = strings.Split(e.ListenFDNames, ":")
	}
	if len(names) != count {
		return nil, fmt.Errorf("LISTEN_FDNAMES=%q has %d names for the %d descriptors of LISTEN_FDS: "+
			"check FileDescriptorName= of the socket units and what starts this process",
			e.ListenFDNames, len(names), count)
	}
	for i, name := range names {
		if name == "" {
			names[i] = "unknown" // what sd_listen_fds_with_names(3) calls it
		}
	}
	return names, nil
}

func parsePID(variable, text string) (int, error) {
	pid, err := strconv.ParseInt(text, 10, 32)
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%s=%q must be a process id", variable, text)
	}
	return int(pid), nil
}
