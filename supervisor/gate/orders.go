// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"errors"
	"fmt"
	"math"
	"strconv"
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
	// Ambient is ambient=NUMBER, once for each, for the shim: the capabilities
	// that the program has as an ordinary user (capabilities(7)). It has no
	// other ambient ones, whatever the master has.
	Ambient []int

	// Notify is notify=, the path of the slot's notify socket, which the process gives
	// to its user before it becomes that.
	Notify string

	Entry     string // entry=module:callable
	AfterFork string // after_fork=module:callable
	Args      string // args=, a Python tuple or list literal
	Kwargs    string // kwargs=, a Python dict literal
}

// Limit is one resource limit; ^uint64(0) is infinity.
type Limit struct {
	Resource   int
	Soft, Hard uint64
}

// Encode returns the fields of a go message, without its name. Values must not
// hold NUL.
func (o *Orders) Encode() []byte {
	var b encoder
	b.text("fleet", o.Fleet)
	b.text("worker", o.Worker)
	b.text("slot", o.Slot)
	b.text("index", strconv.Itoa(o.Index))
	b.text("generation", strconv.Itoa(o.Generation))
	b.text("title", o.Title)
	b.text("comm", o.Comm)
	b.text("dir", o.Dir)
	b.text("user", o.User)
	b.text("group", o.Group)
	b.list("extra_group", o.ExtraGroups)
	if o.Umask != nil {
		b.text("umask", strconv.FormatUint(uint64(*o.Umask), 8))
	}
	if o.Nice != nil {
		b.text("nice", strconv.Itoa(*o.Nice))
	}
	for _, l := range o.Limits {
		b.text("limit", fmt.Sprintf("%d:%s:%s", l.Resource, formatLimit(l.Soft), formatLimit(l.Hard)))
	}
	b.flag("no_new_privileges", o.NoNewPrivs)
	b.flag("ignore_sigpipe", o.IgnoreSIGPIPE)
	b.flag("death_signal", o.DeathSignal)
	b.text("master", strconv.Itoa(o.Master))
	b.list("base", o.Base)
	b.list("env", o.Env)
	b.list("listen", o.Listen)
	b.list("stored", o.Stored)
	if o.Reserve != 0 {
		b.text("reserve", strconv.Itoa(o.Reserve))
	}
	b.flag("stdout", o.Stdout)
	b.flag("stderr", o.Stderr)
	if o.Watchdog > 0 {
		b.text("watchdog", microseconds(o.Watchdog))
	}
	if o.OOMScoreAdjust != nil {
		b.text("oom_score_adjust", strconv.Itoa(*o.OOMScoreAdjust))
	}
	b.list("argv", o.Argv)
	for _, number := range o.Ambient {
		b.text("ambient", strconv.Itoa(number))
	}
	b.text("notify", o.Notify)
	b.text("entry", o.Entry)
	b.text("after_fork", o.AfterFork)
	b.text("args", o.Args)
	b.text("kwargs", o.Kwargs)
	return b
}

type encoder []byte

func (b *encoder) text(key, value string) {
	if value != "" {
		b.put(key, value)
	}
}

// put keeps empty values: an empty argument is an argument. A NUL is left out,
// so that no value can add a field.
func (b *encoder) put(key, value string) {
	if len(*b) > 0 {
		*b = append(*b, 0)
	}
	*b = append(append(append(*b, key...), '='), strings.ReplaceAll(value, "\x00", "")...)
}

func (b *encoder) list(key string, values []string) {
	for _, v := range values {
		b.put(key, v)
	}
}

func (b *encoder) flag(key string, set bool) {
	if set {
		b.put(key, "1")
	}
}

const infinity = "infinity"

func formatLimit(n uint64) string {
	if n == ^uint64(0) {
		return infinity
	}
	return strconv.FormatUint(n, 10)
}

// microseconds rounds up: what is more than nothing must not become zero, which
// stands for no watchdog.
func microseconds(d time.Duration) string {
	n := d / time.Microsecond
	if d%time.Microsecond > 0 {
		n++
	}
	return strconv.FormatInt(int64(n), 10)
}

// Decode is the inverse of Encode.
func Decode(fields []byte) (*Orders, error) {
	o := &Orders{}
	for _, field := range strings.Split(string(fields), "\x00") {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return nil, fmt.Errorf("orders: a field without a value: %q", field)
		}
		if err := o.set(key, value); err != nil {
			return nil, fmt.Errorf("orders: %s: %v", key, err)
		}
	}
	return o, nil
}

func (o *Orders) set(key, value string) (err error) {
	if text := o.textField(key); text != nil {
		*text = value
		return nil
	}
	if list := o.listField(key); list != nil {
		*list = append(*list, value)
		return nil
	}
	switch key {
	case "index":
		o.Index, err = strconv.Atoi(value)
	case "generation":
		o.Generation, err = strconv.Atoi(value)
	case "master":
		o.Master, err = strconv.Atoi(value)
	case "reserve":
		o.Reserve, err = strconv.Atoi(value)
	case "umask":
		var mask uint64
		mask, err = strconv.ParseUint(value, 8, 32)
		o.Umask = new(uint32(mask))
	case "nice":
		var nice int
		nice, err = strconv.Atoi(value)
		o.Nice = new(nice)
	case "watchdog":
		o.Watchdog, err = parseMicroseconds(value)
	case "oom_score_adjust":
		var adjust int
		adjust, err = strconv.Atoi(value)
		o.OOMScoreAdjust = new(adjust)
	case "ambient":
		var number uint64
		number, err = strconv.ParseUint(value, 10, 6) // the kernel's sets have 64 bits
		o.Ambient = append(o.Ambient, int(number))
	case "limit":
		var l Limit
		l, err = parseLimit(value)
		o.Limits = append(o.Limits, l)
	case "no_new_privileges":
		o.NoNewPrivs = value == "1"
	case "ignore_sigpipe":
		o.IgnoreSIGPIPE = value == "1"
	case "death_signal":
		o.DeathSignal = value == "1"
	case "stdout":
		o.Stdout = value == "1"
	case "stderr":
		o.Stderr = value == "1"
	default:
		return errors.New("unknown field")
	}
	return err
}

func (o *Orders) textField(key string) *string {
	switch key {
	case "fleet":
		return &o.Fleet
	case "worker":
		return &o.Worker
	case "slot":
		return &o.Slot
	case "title":
		return &o.Title
	case "comm":
		return &o.Comm
	case "dir":
		return &o.Dir
	case "user":
		return &o.User
	case "group":
		return &o.Group
	case "notify":
		return &o.Notify
	case "entry":
		return &o.Entry
	case "after_fork":
		return &o.AfterFork
	case "args":
		return &o.Args
	case "kwargs":
		return &o.Kwargs
	}
	return nil
}

func (o *Orders) listField(key string) *[]string {
	switch key {
	case "extra_group":
		return &o.ExtraGroups
	case "base":
		return &o.Base
	case "env":
		return &o.Env
	case "listen":
		return &o.Listen
	case "stored":
		return &o.Stored
	case "argv":
		return &o.Argv
	}
	return nil
}

func parseMicroseconds(text string) (time.Duration, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, err
	}
	if n > math.MaxInt64/uint64(time.Microsecond) {
		return 0, errors.New("out of range")
	}
	return time.Duration(n) * time.Microsecond, nil
}

func parseLimit(text string) (Limit, error) {
	part := strings.Split(text, ":")
	if len(part) != 3 {
		return Limit{}, errors.New("must be RESOURCE:SOFT:HARD")
	}
	resource, err := strconv.Atoi(part[0])
	if err != nil {
		return Limit{}, err
	}
	var l Limit
	l.Resource = resource
	for i, to := range []*uint64{&l.Soft, &l.Hard} {
		if part[i+1] == infinity {
			*to = ^uint64(0)
			continue
		}
		if *to, err = strconv.ParseUint(part[i+1], 10, 64); err != nil {
			return Limit{}, err
		}
	}
	return l, nil
}
