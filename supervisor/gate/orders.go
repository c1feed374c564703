// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Exit statuses of a process that could not become what it was told, before
// any user code ran. They are systemd's (systemd.exec(5), "Process Exit
// Codes"), so that they read the same in a journal.
const (
	ExitChdir           = 200
	ExitNice            = 201
	ExitFDs             = 202
	ExitExec            = 203
	ExitLimits          = 205
	ExitOOMAdjust       = 206
	ExitGroup           = 216
	ExitUser            = 217
	ExitCapabilities    = 218
	ExitCgroup          = 219
	ExitSetsid          = 220
	ExitNoNewPrivileges = 227
)

// InlineMax is the size in bytes of the largest go message; longer fields
// travel in a memfd, so that a process at the gate needs only a small buffer.
const InlineMax = 4096

// Orders is what a process at the gate needs to become a slot or a floor.
// The zero value of a field means "leave it as it is".
type Orders struct {
	Fleet      string // fleet=
	Worker     string // worker=
	Slot       string // slot=, "web.0"
	Index      int    // index=
	Generation int    // generation=
	Title      string // title=, the whole process title
	Comm       string // comm=, at most 15 bytes

	Dir         string   // dir=
	User        string   // user=, a name or a number
	Group       string   // group=
	ExtraGroups []string // extra_group=, once for each
	Umask       *uint32  // umask=, octal
	Nice        *int     // nice=
	Limits      []Limit  // limit=RESOURCE:SOFT:HARD, numbers or "infinity"
	NoNewPrivs  bool     // no_new_privileges=1
	// IgnoreSIGPIPE is ignore_sigpipe=1, for the shim: the program starts with
	// SIGPIPE ignored. Every other signal has its default action.
	IgnoreSIGPIPE bool
	DeathSignal   bool     // death_signal=1: SIGKILL when the master's thread ends
	Master        int      // master=, the pid to find as parent after that
	Base          []string // base=NAME=VALUE, for the shim: what the environment starts from
	Env           []string // env=NAME=VALUE, set over Base, or over what the floor has
	Listen        []string // listen=NAME, one for each socket, at fd 3 and up
	Stored        []string // stored=NAME, one for each descriptor that is given back, after the sockets
	Reserve       int      // reserve=, for the shim: see placeFDs
	Stdout        bool     // stdout=1: the first descriptor becomes fd 1
	Stderr        bool     // stderr=1: the next one becomes fd 2; it may be the same file

	// Watchdog is watchdog=MICROSECONDS, rounded up: WATCHDOG_USEC, beside a
	// WATCHDOG_PID that is the process's own.
	Watchdog       time.Duration
	OOMScoreAdjust *int // oom_score_adjust=, -1000 to 1000 (proc_pid_oom_score_adj(5))

	Argv []string // argv=, for the shim
	// Ambient is ambient=NUMBER, once for each, for the shim and what prefork's own
	// zygote forks: the capabilities that the process has as an ordinary user
	// (capabilities(7)). It has no other ambient ones, whatever the master has.
	Ambient []int

	// Notify is notify=, the path of the slot's notify socket, which the process gives
	// to its user before it becomes that.
	Notify string

	Entry     string // entry=module:callable
	AfterFork string // after_fork=module:callable
	Args      string // args=, a list in JSON
	Kwargs    string // kwargs=, a table in JSON
	Tasks     string // tasks=, instead of an entry: a list in JSON, of a table for each
	Lifespan  string // lifespan=module:callable, around the tasks

	// Probe is probe=, a Python program that a process runs in place of an entry: it is no
	// slot, and calls nothing of the user's (package zygote).
	Probe string
}

// Limit is one resource limit; ^uint64(0) is infinity.
type Limit struct {
	Resource   int
	Soft, Hard uint64
}

// Encode returns the fields of a go message, without its name. A NUL in a value is left
// out, so that none can add a field.
func (o *Orders) Encode() []byte {
	var b []byte
	for _, k := range keys {
		for _, value := range values(k.field(o)) {
			if len(b) > 0 {
				b = append(b, 0)
			}
			b = append(append(append(b, k.name...), '='), strings.ReplaceAll(value, "\x00", "")...)
		}
	}
	return b
}

// Decode is the inverse of Encode.
func Decode(fields []byte) (*Orders, error) {
	o := &Orders{}
	for _, field := range strings.Split(string(fields), "\x00") {
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			return nil, fmt.Errorf("orders: a field without a value: %q", field)
		}
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
		if i < 0 {
			return nil, fmt.Errorf("orders: %s: unknown field", name)
		}
		if err := set(keys[i].field(o), value); err != nil {
			return nil, fmt.Errorf("orders: %s: %v", name, err)
		}
	}
	return o, nil
}
