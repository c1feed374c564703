// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/decnet/prefork/supervisor/internal/envfile"
	"github.com/decnet/prefork/supervisor/policy"
)

// File is a fleet file that passed every check. Defaults are filled in. It is
// read-only: workers may share the maps and lists that [defaults] gave them.
type File struct {
	Name         string // from the file's name
	Path         string // the file, as it was named
	Description  string
	Start        Start // for the generator; a fleet that was started needs it no more
	ReadyWhen    policy.ReadyWhen
	TimeoutStart time.Duration // policy.Forever: none
	StopDelay    time.Duration // that the fleet serves on when it is to stop
	Floor        *Floor        // nil if the file has no [floor]
	Log          Log
	Metrics      *Metrics // nil if the file has no [metrics]
	Sockets      []Socket // in the order of the file
	Workers      []Worker // in the order of the file
	Strays       []string // variables of [Host.Counts] that are for none of Workers, sorted

	lines map[string]int // of the keys that name callables
}

// Start is what starts a fleet under systemd.
type Start string

// The values of start.
const (
	StartManual     Start = "manual"     // systemctl start, or a unit that wants it
	StartBoot       Start = "boot"       // the boot of the machine
	StartConnection Start = "connection" // the first connection to one of its sockets
)

// Floor is the [floor] table.
type Floor struct {
	Zygote    []string // a program and its arguments; nil: prefork's own, which Python, Repack, Immortal and GCFreeze are for
	Python    string   // a program name or a path; default "python3"
	Preload   []string // of prefork's own zygote, modules; what another one loads is its affair
	Path      []string
	Setup     string // "module:callable" or ""
	Warm      string // "module:callable" or ""
	Repack    bool
	Immortal  bool
	AfterFork string // "module:callable" or ""
	Env       map[string]string
	User      string // "" keeps the master's user
	Threads   Guard
	FDs       Guard
	GCFreeze  bool
	Spares    int
}

// Guard is what to do with a floor that is not safe to fork.
type Guard string

// The values of floor.threads and floor.fds.
const (
	Refuse Guard = "refuse"
	Allow  Guard = "allow"
)

// SocketType is the type= of a [socket.*] table.
type SocketType string

// The socket types.
const (
	Stream    SocketType = "stream"
	Datagram  SocketType = "datagram"
	Seqpacket SocketType = "seqpacket"
)

// Socket is one [socket.NAME] table.
type Socket struct {
	Name      string
	Listen    []Address
	Type      SocketType
	Backlog   int
	ReusePort bool   // SO_REUSEPORT, on IP addresses only
	FreeBind  bool   // IP_FREEBIND, on IP addresses only
	Mode      uint32 // of a Unix socket's file
	User      string // owner of a Unix socket's file; "" leaves it
	Group     string
}

// Log is the [log] table.
type Log struct{ Format LogFormat }

// LogFormat is the form of lines in a pipe or a file.
type LogFormat string

// The values of log.format. Without one, what workers say is not looked at.
const (
	LogByName LogFormat = "name" // with the time, the name and the stream before them
	LogAsJSON LogFormat = "json" // an object each
)

// Metrics is the [metrics] table.
type Metrics struct {
	Listen Address
	Ready  []string // names of workers; nil: those that have sockets
}

// Address is one entry of listen=.
type Address struct {
	Text   string         // as written
	IP     netip.AddrPort // valid for IP sockets; a port alone has the address [::], see IsPort
	V6Only bool           // the same port is listed for IPv4 too, so [::] must not take it
	Unix   string         // a path, or "@name" for an abstract socket; "" for IP sockets
}

// Limit is one limit_* key. A limit may be [quantity.Infinity].
type Limit struct {
	Resource int // RLIMIT_* number
	Name     string
	Soft     uint64
	Hard     uint64
}

// NotifyAccess says whose notifications count as those of a slot.
type NotifyAccess string

// The values of notify_access.
const (
	NotifyMain NotifyAccess = "main" // of its main process
	NotifyAll  NotifyAccess = "all"  // of every process in its cgroup
	NotifyNone NotifyAccess = "none"
)

// Worker is one [worker.NAME] table with [defaults] merged in.
type Worker struct {
	Name      string
	Count     int
	CountFrom string // why Count is what it is, if the file does not say a number: "2*cpu with 2 processors"

	// Exactly one of Entry, Exec and Tasks is set.
	Entry  string // "module:callable"
	Args   []any  // string, int64, float64, bool, []any, map[string]any
	Kwargs map[string]any
	Exec   []string
	Tasks  []Task // in the order of the file

	Lifespan            string   // "module:callable" or "": around all of Tasks
	Sockets             []string // names of Fleet.Sockets
	Oneshot             bool     // type = "oneshot"
	OnDemand            bool     // started by a connection to one of Sockets, which are some
	After               []string // names of Fleet.Workers that are ready before it starts
	NotifyAccess        NotifyAccess
	FDStoreMax          int // descriptors that a slot can store with FDSTORE=1
	Environment         map[string]string
	EnvironmentFiles    []envfile.File
	WorkingDirectory    string // "" keeps the master's
	User                string
	Group               string
	SupplementaryGroups []string
	Umask               *uint32
	Nice                *int
	OOMScoreAdjust      *int
	Limits              []Limit
	NoNewPrivileges     bool
	IgnoreSIGPIPE       bool     // true if it is forked: python3 ignores it by itself
	AmbientCapabilities []string // upper case, with CAP_

	// Limits of each slot's cgroup, 0 if not given; see Limited. MemoryHigh and
	// MemoryMax are bytes. The three that count may be quantity.Infinity.
	MemoryHigh uint64
	MemoryMax  uint64
	TasksMax   uint64
	CPUWeight  int
	CPUQuota   time.Duration // processor time per second: 200ms is 20% of one processor
	IOWeight   int

	Policy  policy.Policy
	Roll    policy.Rolling   // how its processes are replaced
	Recycle policy.Recycling // when they are, though nothing is wrong with them
	Vital   policy.Vital     // which of their ends end the fleet

	// Values have the specifiers of slots, and percent signs escaped: [Worker.Of].
	percent bool
	counted bool // %c is among them
}

// Callables are what its processes call, in the words of the file: none for a program.
func (w *Worker) Callables() (names []string) {
	if w.Entry != "" {
		return []string{w.Entry}
	}
	if w.Lifespan != "" {
		names = append(names, w.Lifespan)
	}
	for i := range w.Tasks {
		names = append(names, w.Tasks[i].Entry)
	}
	return names
}

// Call is a callable that a fleet file names.
type Call struct {
	Key   string // such as worker.web.entry
	Name  string // such as app.web:serve
	Place string // where that is, as an error says it: FILE:LINE: KEY
}

// Calls are the callables that the floor and its workers call, in the order in which that
// happens first, but each only once.
func (f *File) Calls() (all []Call) {
	known := map[string]bool{"": true}
	add := func(key, name string) {
		if known[name] {
			return
		}
		known[name] = true
		place := f.Path
		if line := f.lines[key]; line > 0 {
			place = fmt.Sprintf("%s:%d", f.Path, line)
		}
		all = append(all, Call{key, name, place + ": " + key})
	}
	if f.Floor != nil {
		add("floor.setup", f.Floor.Setup)
		add("floor.warm", f.Floor.Warm)
		add("floor.after_fork", f.Floor.AfterFork)
	}
	for i := range f.Workers {
		w := &f.Workers[i]
		key := join("worker", w.Name)
		add(key+".entry", w.Entry)
		add(key+".lifespan", w.Lifespan)
		for _, t := range w.Tasks {
			add(join(key+".tasks", t.Name), t.Entry)
		}
	}
	return all
}

// Forked reports whether its processes are forked from the floor.
func (w *Worker) Forked() bool { return w.Entry != "" || len(w.Tasks) > 0 }

// TaskNames are the names of its tasks, in the order of the file.
func (w *Worker) TaskNames() (names []string) {
	for i := range w.Tasks {
		names = append(names, w.Tasks[i].Name)
	}
	return names
}

// Task is one of the asyncio tasks that share a process, with what its worker says filled
// in.
type Task struct {
	Name          string
	Entry         string // "module:callable"
	Args          []any  // as of a Worker
	Kwargs        map[string]any
	Policy        policy.Policy    // of which restarts, the start limit, Notify and TimeoutStart are the task's
	FailureAction policy.EndAction // policy.EndExit: its process ends, with status 1
}
